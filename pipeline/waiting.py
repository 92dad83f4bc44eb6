"""Waits for what others hold, such as locks: reported, and limited per stage. Slow servers: see ``time_limits``.

Stores and warehouses meet the locks and know no tasks. They wait with ``Wait``. What runs the work says with
``reported_to`` to whom its waits are reported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .errors import is_said
from .remote import capped

LOGGER = logging.getLogger("pipeline")

#: Seconds of waiting after which it is reported.
SAID_AFTER = 5.0

#: Seconds for which a run waits again for somebody for whom it has waited up to the limit before.
SHORT_WAIT = 1.0


class Listener:
    """Is told of waits. This one serves commands that are no run: it writes one line."""

    #: Written before the text. The text says "it" for a name that the title already ends with.
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


@dataclass
class _Waits:
    """Waits of this process, in whatever thread. ``spent`` has the seconds by what was waited for, if that counts."""

    listener: Listener
    spent: dict[str, float] | None = None
    is_reported: bool = False


_waits = _Waits(Listener())


def set_default_listener(listener: Listener) -> None:
    """Report to ``listener`` the waits of this process that are outside of ``reported_to``."""
    _waits.listener = listener


@contextmanager
def reported_to(listener: Listener) -> Iterator[None]:
    """Within this context ``listener`` is told, and all waits for the same thing share one limit."""
    global _waits
    before, _waits = _waits, _Waits(listener, spent={})
    try:
        yield
    finally:
        _waits = before


def remaining(limit: float, what: str, whom: str = "") -> float:
    """Seconds of ``limit`` that are left for ``whom``, or whoever it is, after what was waited for ``what`` before."""
    left = max(0.0, capped(limit) - (_waits.spent or {}).get(what, 0.0))
    return min(left, SHORT_WAIT) if _waits.listener.has_given_up(what, whom) else left


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
        if self._limits and (spent := _waits.spent) is not None:
            spent[self.what] = spent.get(self.what, 0.0) + time.monotonic() - self._began
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

    def again(self, whom: str, seconds: float = 0.05) -> bool:
        """Pause before the next try to get what ``whom`` holds. False, at once, when the limit is over."""
        left = self.left(whom)
        time.sleep(min(seconds, left))
        return left > 0


def gave_up(what: str, whom: str) -> bool:
    """Note that the limit is over: in this run ``whom`` is waited for again for a moment only.

    Returns whether that was so before.
    """
    before = _waits.listener.has_given_up(what, whom)
    _waits.listener.gave_up(what, whom)
    return before


def say(text: str) -> bool:
    """Report a wait; empty when it is over. Returns whether it was reported: not while another one is."""
    if text and _waits.is_reported:
        return False
    _waits.is_reported = bool(text)
    _waits.listener.waiting(text)
    return True
