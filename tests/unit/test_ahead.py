"""Work ahead of its use: the same items, errors where they belong, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.ahead import ahead


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_the_same_items_in_the_same_order() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead(iter([]))) == []
    assert names() == []


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
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

    def counted() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    items = ahead(counted())
    next(items)
    time.sleep(0.1)
    assert len(made) <= 3
    items.close()


def test_stopping_early_ends_the_work() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    source = endless()
    items = ahead(source)
    next(items)
    items.close()
    assert names() == []
    source.close()  # nobody is in it any more
    assert ended.is_set()
