"""Servers that do not answer: how long they are waited for, and by which address they are named.

A run of the night waits for minutes, because that is cheaper than a month that failed. Somebody in front of a terminal
wants to know. So whoever asks a server takes its seconds from ``for_server``, and ``python -m pipeline`` says once, by
``somebody_waits``, which of its verbs somebody waits for. A run that has not begun yet is in between: see ``planning``.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from .errors import UsageError

#: Seconds of silence after which somebody who waits for the answer is told that there is none.
PATIENCE = 15.0

#: Seconds after which a run that is being planned gives up a server without which it can do nothing, and a stage the
#: one that all the others need too: within a minute a person knows.
RUN_PATIENCE = 30.0

#: Seconds of a ``Retry-After`` that are told of: a year says as much as any more digits would.
LONGEST_ASKED = 365 * 86_400.0


class Spent:
    """Seconds for which a server was waited for in vain, by one or by several at once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._until = float("-inf")
        self._changing = threading.Lock()

    def add(self, begun: float, ended: float) -> None:
        """Add a wait, by the monotonic clock. What several spent at the same time counts once."""
        with self._changing:
            self.seconds += max(0.0, ended - max(begun, self._until))
            self._until = max(self._until, ended)


_limit = float("inf")
_server_limit = float("inf")
_spent: Spent | None = None


@contextmanager
def somebody_waits(seconds: float = PATIENCE) -> Iterator[None]:
    """Within this context no server is waited for longer than ``seconds``, nor a publisher for all its questions."""
    global _limit, _spent
    before, _limit, _spent = (_limit, _spent), min(seconds, _limit), Spent()
    try:
        yield
    finally:
        _limit, _spent = before


@contextmanager
def planning(spent: Spent | None = None) -> Iterator[None]:
    """Within this context, before a run does anything, no server is waited for longer than ``RUN_PATIENCE``.

    Locks are: others work under them, and their limit is a setting. ``spent`` goes on with the waits of an earlier
    context for the same plan; those of a surrounding context count in any case.
    """
    global _server_limit, _spent
    before, _server_limit, _spent = (_server_limit, _spent), RUN_PATIENCE, _spent or spent or Spent()
    try:
        yield
    finally:
        _server_limit, _spent = before


def spent() -> Spent:
    """The waits that count for a question that is asked now."""
    return _spent or Spent()


def at_most(seconds: float) -> float:
    """``seconds``, or fewer while somebody waits."""
    return min(seconds, _limit)


def for_server(seconds: float) -> float:
    """Seconds to wait for a server: ``seconds``, or fewer while somebody waits or a run is planned."""
    return min(at_most(seconds), _server_limit)


def seconds_asked_for(headers: Mapping[str, str], now: dt.datetime | None = None) -> float | None:
    """Seconds of a ``Retry-After`` header, which is a number or a date; None without a readable one."""
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
        return f"see that the server that {variable} names is running, or unset that variable"
    return "see that this machine reaches it, or try again later"


#: What opening a key file raises where Google's library finds something else than a file that it can read.
NO_KEY_FILE = (IsADirectoryError, NotADirectoryError, PermissionError, FileNotFoundError)


def unusable_key_file(error: OSError) -> str:
    """What is wrong with the file that GOOGLE_APPLICATION_CREDENTIALS names, in one line with the remedy."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or error.filename
    why = "is a folder, not a key file" if os.path.isdir(str(path)) else f"cannot be read: {error.strerror}"
    return f"environment variable GOOGLE_APPLICATION_CREDENTIALS: {path} {why}; name a service account's key file"
