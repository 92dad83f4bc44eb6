"""A partition: one month of one dataset. The only place that formats, parses or counts months.

A month is the ``datetime.date`` of its first day, and as text ``YYYY-MM``. It is the month of the file, never that of a
pickup time.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import NamedTuple


class Partition(NamedTuple):
    """One month of a dataset, what all stages and backends work on; ``month`` is None for the zone table."""

    dataset: str
    month: dt.date | None

    def __str__(self) -> str:
        """``green 2020-04``, or the dataset alone where it has no months: the beginning of messages."""
        return f"{self.dataset} {self.month_text}".rstrip()

    @property
    def month_text(self) -> str:
        """``2020-04``; empty where there are no months."""
        return "" if self.month is None else format_month(self.month)

    @classmethod
    def parse(cls, dataset: str, month_text: str | None) -> Partition:
        """The inverse of ``month_text``. Raises ValueError for a text that is no month."""
        return cls(dataset, parse_month(month_text) if month_text else None)


#: The partition of the zone table, which has no months.
ZONES = Partition("zones", None)


def format_month(month: dt.date) -> str:
    """``2020-04``."""
    return f"{month.year:04}-{month.month:02}"


def parse_month(text: str) -> dt.date:
    """The first day of the month ``YYYY-MM``. Raises ValueError for anything else."""
    if not re.fullmatch(r"\d{4}-\d{2}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a month; write it as YYYY-MM, such as 2021-01")
    return dt.date(int(text[:4]), int(text[5:]), 1)


def add_months(month: dt.date, count: int) -> dt.date:
    """The first day of the month that is ``count`` months after that of ``month``, or before it."""
    index = month.year * 12 + month.month - 1 + count
    return dt.date(index // 12, index % 12 + 1, 1)


def months_between(start: dt.date, stop: dt.date) -> Iterator[dt.date]:
    """First days of the months from ``start`` up to, not including, ``stop``."""
    month = add_months(start, 0)
    while month < stop:
        yield month
        month = add_months(month, 1)
