"""Run a generator or a function in background threads, a bounded number of items ahead of their use.

This saves time because Arrow, numpy and isal release Python's lock. Results come in the order of the items, and an
error comes where it would have come without threads. A caller that may stop early, also by an error of its own, closes
the generator (``contextlib.closing``). No thread works any more when that returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice, repeat
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """The items; up to two are made, in a thread of their own, before they are asked for. Closes the generator."""
    one = in_parallel(lambda _: list(islice(items, 1)), repeat(None), threads=1)
    with closing(items), closing(one) as pieces:
        for piece in pieces:
            if not piece:
                return
            yield piece[0]


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
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
