"""Waits for locks and for answers: reported once after a few seconds, and ended by a limit.

Stores and warehouses meet the locks and know no tasks. They wait with ``Wait``; what runs the work declares with
``told_to`` who is told.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from .errors import is_said
from .files import open_plain
from .remote import capped
from .strict_json import json_object

LOGGER = logging.getLogger("pipeline")

T = TypeVar("T")

#: Seconds of waiting after which it is said.
SAID_AFTER = 5.0

#: Seconds for which a run waits again for somebody for whom it has waited up to the limit before.
GLANCE = 1.0

#: Bytes of a lock file that are looked at.
_SIGNED = 10_000


class Listener:
    """Is told of waits. This one serves commands that are no run: it writes one line."""

    #: Stands before the text. What it ends with is not said twice.
    title = ""

    def waiting(self, text: str) -> None:
        """``text`` is such as ``waits for python (PID 12), which holds ...``; empty when the wait is over."""
        if text:
            LOGGER.warning("this command %s", text)

    def gave_up(self, what: str, whom: str) -> None:
        """The limit is over, and ``whom`` still holds ``what``."""

    def has_given_up(self, what: str, whom: str) -> bool:
        """Whether an earlier wait of this run for the same ended in vain."""
        return False


class _Waits:
    """Waits of this process, in whatever thread: who is told of them, and what was spent on them."""

    def __init__(self, listener: Listener, shares_limits: bool) -> None:
        self.listener = listener
        self.is_told = False
        self.spent: dict[str, float] | None = {} if shares_limits else None  # by what was waited for

    def tell(self, text: str) -> bool:
        """Tell of a wait; empty when it is over. Returns whether it was told: not while another one is told of."""
        if text and self.is_told:
            return False
        self.is_told = bool(text)
        self.listener.waiting(text)
        return True

    def add(self, what: str, seconds: float) -> None:
        if self.spent is not None:
            self.spent[what] = self.spent.get(what, 0.0) + seconds

    def remaining(self, limit: float, what: str, whom: str) -> float:
        left = capped(limit) - (self.spent or {}).get(what, 0.0)
        return max(0.0, min(left, GLANCE) if self.listener.has_given_up(what, whom) else left)


_waits = _Waits(Listener(), shares_limits=False)


def listen(listener: Listener) -> None:
    """Tell ``listener`` of the waits of this process, outside of ``told_to``."""
    _waits.listener = listener


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Within this context ``listener`` is told, and all waits for the same thing share one limit."""
    global _waits
    before, _waits = _waits, _Waits(listener, shares_limits=True)
    try:
        yield
    finally:
        _waits = before


def remaining(limit: float, what: str, whom: str = "") -> float:
    """Seconds of ``limit`` that are left for ``whom``, or whoever it is, after what was waited for ``what`` before."""
    return _waits.remaining(limit, what, whom)


class Wait:
    """One wait for ``what``, such as a database, for at most ``limit`` seconds; fewer while somebody waits for us."""

    def __init__(self, limit: float, what: str) -> None:
        self.limit = limit
        self.what = what
        self._is_said = False
        self._limits: dict[str, float] = {}  # by whom it is held

    def __enter__(self) -> Wait:
        self._began = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if self._limits:
            _waits.add(self.what, time.monotonic() - self._began)
        if self._is_said:
            _waits.listener.waiting("")

    def left(self, whom: str) -> float:
        """Seconds for which ``whom`` may still be waited for: 0 once the limit is over. Called again and again."""
        if whom not in self._limits:
            self._limits[whom] = remaining(self.limit, self.what, whom)
        waited = time.monotonic() - self._began
        if waited >= SAID_AFTER and not self._is_said:
            self._is_said = True
            what = "it" if is_said(self.what, _waits.listener.title) else self.what
            _waits.listener.waiting(f"waits for {whom}, which holds {what}, for at most {capped(self.limit):g} s")
        return max(0.0, self._limits[whom] - waited)


def gave_up(what: str, whom: str) -> bool:
    """Note that the limit is over: in this run ``whom`` is waited for again for a moment only.

    Returns whether that was so before.
    """
    before = _waits.listener.has_given_up(what, whom)
    _waits.listener.gave_up(what, whom)
    return before


class Held(Exception):
    """A lock file is held by somebody else, named by the text, for longer than we wait."""


@contextmanager
def lock_file(path: Path, wait: Wait, mode: int = 0o644) -> Iterator[None]:
    """Hold a lock file, which names its holder to those who wait for it. Raises ``Held`` or OSError."""
    import filelock

    lock = filelock.FileLock(path, thread_local=False, mode=mode)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            if not path.exists():  # where no file can be made, as in /proc, filelock waits for one to appear
                raise FileNotFoundError(errno.ENOENT, "no file can be made there", str(path)) from None
            whom = holder(path)
            left = wait.left(whom)
            if not left:
                raise Held(whom) from None
            time.sleep(min(left, 0.05))
    try:
        sign(path)
        yield
    finally:
        lock.release()


def sign(path: Path) -> None:
    """Write into the lock file who holds it. Where the file system has no locks, filelock keeps its own text there."""
    # Not through a link that was put there since it was locked.
    with suppress(OSError, ValueError), os.fdopen(open_plain(path, os.O_RDWR), "r+b") as file:
        text = file.read(_SIGNED)
        if not text or "pid" in json_object(text):
            mine = {"pid": os.getpid(), "host": socket.gethostname(), "run": os.environ.get("PIPELINE_RUN_ID")}
            file.seek(0)
            file.truncate()
            file.write(json.dumps(mine).encode())


def holder(path: Path) -> str:
    """Who holds a lock file that was signed."""
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
            found = json_object(file.read(_SIGNED))
        where = "" if found["host"] == socket.gethostname() else f" on {found['host']}"
        run = f", run {found['run']}" if found["run"] else ""
        return f"another run of the pipeline (PID {found['pid']}{where}{run})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another run of the pipeline"


def say(text: str) -> bool:
    """Tell of a wait; empty when it is over. Returns whether it was told: not while another one is told of."""
    return _waits.tell(text)


@contextmanager
def for_answer(whom: str, limit: float = float("inf")) -> Iterator[None]:
    """Tell of the wait within this context for a server to answer, if it takes longer than ``SAID_AFTER`` seconds."""
    at_most_so_long = "" if limit == float("inf") else f", for at most {round(limit, 1):g} s"
    is_over, is_told, changing = False, False, threading.Lock()

    def tell() -> None:
        nonlocal is_told
        with changing:
            is_told = not is_over and say(f"waits for {whom} to answer{at_most_so_long}")

    timer = threading.Timer(SAID_AFTER, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with changing:
            is_over = True
        if is_told:
            say("")


def within(limit: float, call: Callable[..., T]) -> Callable[..., T]:
    """``call`` of a client of requests, which raises its time-out where the whole answer takes longer than ``limit``.

    Without a limit it is ``call`` itself.
    """
    if limit == float("inf"):
        return call

    def limited(*args: Any, **kwargs: Any) -> T:
        import requests

        try:
            return answer_of(lambda: call(*args, **kwargs), limit)
        except TimeoutError:
            raise requests.ReadTimeout from None

    return limited


def answer_of(function: Callable[[], T], limit: float, whom: str = "") -> T:
    """What ``function`` returns, which asks a server; ``TimeoutError`` if that takes longer than ``limit`` seconds.

    A long wait is said if ``whom`` is named. Time-outs of requests are not enough for that: they count for each address
    that a name has, and not at all while the name is looked up. Who is given up goes on in a thread of its own, which
    ends with the process.
    """
    with for_answer(whom, limit) if whom else nullcontext():
        answer = begun(function, f"ask {whom}".strip())
        futures.wait([answer], min(limit, threading.TIMEOUT_MAX))
    if not answer.done():
        raise TimeoutError
    return answer.result()


def begun(function: Callable[[], T], name: str) -> futures.Future[T]:
    """What ``function`` will return. A thread of its own runs it, which ends with the process at the latest."""
    answer: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer
