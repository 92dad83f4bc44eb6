"""Ends calls that exceed a time limit, and reports slow answers. ``remote`` has the seconds, ``retry`` the next try."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from .waiting import SAID_AFTER, say

T = TypeVar("T")


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
