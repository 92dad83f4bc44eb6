"""Prefetching in background threads: same items, errors in their place, no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from pipeline.prefetch import ahead


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_the_same_items_in_the_same_order() -> None:
    assert list(ahead(number for number in range(100))) == list(range(100))
    assert list(ahead(number for number in ())) == []
    assert names() == []


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise KeyError("third")

    seen = []
    with pytest.raises(KeyError, match="third"):
        for item in ahead(broken()):
            seen.append(item)
    assert seen == [1, 2] and names() == []


def test_no_more_is_made_ahead_than_wanted() -> None:
    made = []

    def counted() -> Generator[int, None, None]:
        for number in range(10):
            made.append(number)
            yield number

    for number in ahead(counted()):
        assert len(made) <= number + 3
    assert len(made) == 10


def test_closing_closes_what_it_takes_from_too() -> None:
    ended = threading.Event()

    def endless() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    items = ahead(endless())
    next(items)
    items.close()
    assert ended.is_set() and names() == []
