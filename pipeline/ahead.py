"""Work that goes on in other threads while its results are used: Arrow, numpy and isal let go of Python's lock.

Results come in the order of the items, and an error comes where it would have come without threads. A caller that
stops early finds nobody at work any more when the generator is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items; up to two are made, in a thread of their own, before they are asked for."""
    for piece in in_parallel(lambda _: list(islice(items, 1)), repeat(None), threads=1):
        if not piece:
            return
        yield piece[0]


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """The results of a function; at most one more than there are threads are begun or wait to be used."""
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        made = (pool.submit(function, item) for item in items)
        waiting = deque(islice(made, threads + 1))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(islice(made, 1))
        finally:
            for future in waiting:
                future.cancel()
