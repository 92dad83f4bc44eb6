"""Which texts can be the name of a run, a queue or an agent: none of them leaves its folder.

They come from flags, from the environment and from files that anybody may have written. They name files in every kind
of store, so none has a slash, a control character, or a dot at its beginning.
"""

from __future__ import annotations

import os
import re
import socket

from .errors import UsageError

_RUN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_QUEUE = re.compile(r"\w[\w.-]{0,99}")
_AGENT = re.compile(r"[\w.-]{1,100}:[0-9]{1,10}", re.ASCII)


def is_run_id(text: str) -> bool:
    """Whether a text can be the id of a run: it names files, queue objects and rows of the ledger."""
    return _RUN.fullmatch(text) is not None


def is_queue(text: str) -> bool:
    """Whether a text can name a queue, which is a folder."""
    return _QUEUE.fullmatch(text) is not None and len(text.encode(errors="replace")) <= 200


def check_queue(text: str) -> str:
    """The name of a queue as it was given. Raises UsageError for what cannot be a folder in every store."""
    if not is_queue(text):
        shown = "an address" if "://" in text else repr(text if len(text) <= 40 else f"{text[:40]}...")
        raise UsageError(f"{shown} cannot be the name of a queue; use letters, digits, dots and dashes")
    return text


def is_agent(text: str) -> bool:
    """Whether a text can be the name of an agent, such as ``moon:4711``."""
    return _AGENT.fullmatch(text) is not None


def this_agent() -> str:
    """The name of an agent that is this process."""
    host = re.sub(r"[^\w.-]", "-", socket.gethostname(), flags=re.ASCII)[:100]
    return f"{host or 'host'}:{os.getpid()}"


def file_of_agent(name: str) -> str:
    """``host-pid`` of an agent called ``host:pid``."""
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "agent"
