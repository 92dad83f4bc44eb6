"""How tests wait: for a condition, never for a time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

#: Seconds after which a test counts as hanging. No test is about this limit, and no machine is too slow for it.
PATIENCE = 600.0

#: Seconds between two looks at a condition.
INTERVAL = 0.01

Found = TypeVar("Found")


def wait_for(
    condition: Callable[[], Found],
    process: subprocess.Popen[Any] | None = None,
    told: Callable[[], object] = lambda: "",
) -> Found:
    """What ``condition`` returns, as soon as that is true.

    ``process`` is the one that makes it true: once it has ended there is nothing to wait for. ``told`` says more if it
    never becomes true, such as the output of that process.
    """
    give_up = time.monotonic() + PATIENCE
    while True:
        has_ended = process is not None and process.poll() is not None
        found = condition()
        if found:
            return found
        assert not has_ended, f"the process has ended before: {told()}"
        assert time.monotonic() < give_up, f"in vain for {PATIENCE:g} s: {told()}"
        time.sleep(INTERVAL)


def has_ended(process: int) -> bool:
    """Whether it runs no more. Where nobody waits for orphans, as in some containers, it stays on as a zombie."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Clock:
    """In place of the module ``time`` of code under test: to sleep takes no time, and is written down."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
