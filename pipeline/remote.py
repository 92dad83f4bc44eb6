"""Time-outs and error naming shared by all clients of remote servers; shorter time-outs while a person waits.

An unattended run waits for minutes, because that is cheaper than a month that failed. Somebody in front of a terminal
wants an answer. So every client takes its time-outs from ``for_server``, and ``python -m pipeline`` declares by
``interactive`` which of its verbs a person waits for. A run that is being planned is in between: see ``planning``.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from .errors import UsageError

#: Time-out in seconds for a server while a person waits for the answer.
INTERACTIVE_TIMEOUT = 15.0

#: Time-out in seconds for a server while a run is planned, so that a person knows within a minute.
PLANNING_TIMEOUT = 30.0

#: Longest ``Retry-After`` in seconds; any longer one is cut to it.
LONGEST_ASKED = 365 * 86_400.0


class Spent:
    """Seconds of waiting in vain for a server, by one or several threads."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._until = float("-inf")
        self._changing = threading.Lock()

    def add(self, begun: float, ended: float) -> None:
        """Add a wait, by the monotonic clock. Waits at the same time count once."""
        with self._changing:
            self.seconds += max(0.0, ended - max(begun, self._until))
            self._until = max(self._until, ended)


@dataclass(frozen=True)
class _Caps:
    """The longest allowed waits in seconds, and the waits that count for them; for all threads of the process."""

    all: float = float("inf")
    servers: float = float("inf")
    spent: Spent | None = None


_caps = _Caps()


@contextmanager
def _capping(caps: _Caps) -> Iterator[None]:
    global _caps
    before, _caps = _caps, caps
    try:
        yield
    finally:
        _caps = before


@contextmanager
def interactive(seconds: float = INTERACTIVE_TIMEOUT) -> Iterator[None]:
    """Within this context no server is waited for longer than ``seconds``, nor a publisher for all its questions."""
    with _capping(replace(_caps, all=min(seconds, _caps.all), spent=Spent())):
        yield


@contextmanager
def planning(spent: Spent | None = None) -> Iterator[None]:
    """Within this context, before a run does anything, a server is waited for ``PLANNING_TIMEOUT`` seconds at most.

    Locks are not: others work under them, and their limit is a setting. ``spent`` goes on with the waits of an earlier
    context for the same plan; those of a surrounding context count in any case.
    """
    with _capping(replace(_caps, servers=PLANNING_TIMEOUT, spent=_caps.spent or spent or Spent())):
        yield


def spent() -> Spent:
    """The waits that count for a question that is asked now."""
    return _caps.spent or Spent()


def capped(seconds: float) -> float:
    """``seconds``, or fewer while somebody waits for the answer."""
    return min(seconds, _caps.all)


def for_server(seconds: float) -> float:
    """The time-out of a request to a server: ``seconds``, or fewer while somebody waits or a run is planned."""
    return min(capped(seconds), _caps.servers)


def seconds_asked_for(headers: Mapping[str, str], now: dt.datetime | None = None) -> float | None:
    """Seconds from ``now`` in a ``Retry-After`` header, a number or a date; None without a readable one."""
    from email.utils import parsedate_to_datetime

    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value), LONGEST_ASKED)
    try:
        until = parsedate_to_datetime(value)
        until = until if until.tzinfo else until.replace(tzinfo=dt.UTC)
        return min(max(0.0, (until - (now or dt.datetime.now(dt.UTC))).total_seconds()), LONGEST_ASKED)
    except (ValueError, OverflowError, TypeError):
        return None


def emulator(variable: str) -> str | None:
    """The address in an environment variable such as ``STORAGE_EMULATOR_HOST``; None where it is not set.

    ``host:port`` is as good as ``http://host:port``: some tools want the one, some the other.
    """
    given = os.environ.get(variable, "").rstrip("/")
    address = given if not given or "://" in given else f"http://{given}"
    if address and not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w./-]*)?", address):
        raise UsageError(f"environment variable {variable} is no address; write http://host:port, or unset it")
    return address or None


def address_of(error: BaseException | None, otherwise: str) -> str:
    """Scheme, host and port of the request that failed, or of ``otherwise``: the rest may be as good as a key."""
    while error and error.args and isinstance(error.args[0], Exception) and not getattr(error, "request", None):
        error = error.args[0]  # Google's login wraps what its connection raised
    request = getattr(error, "request", None) or getattr(getattr(error, "response", None), "request", None)
    parts = urlsplit(str(getattr(request, "url", None) or otherwise))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def remedy(variable: str) -> str:
    """What to do about a service that does not answer, the address of which ``variable`` may have changed."""
    if os.environ.get(variable):
        return f"check that the server that {variable} names is running, or unset that variable"
    return "check that this machine reaches it, or try again later"


#: What opening a key file raises where Google's library finds something else than a file that it can read.
NO_KEY_FILE = (IsADirectoryError, NotADirectoryError, PermissionError, FileNotFoundError)


def unusable_key_file(error: OSError) -> str:
    """What is wrong with the file that GOOGLE_APPLICATION_CREDENTIALS names, in one line with the remedy."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or error.filename
    why = "is a folder, not a key file" if os.path.isdir(str(path)) else f"cannot be read: {error.strerror}"
    return f"environment variable GOOGLE_APPLICATION_CREDENTIALS: {path} {why}; name a service account's key file"
