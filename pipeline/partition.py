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
        return self.dataset if self.month is None else f"{self.dataset} {format_month(self.month)}"

    @property
    def month_text(self) -> str | None:
        """``2020-04``; None where there are no months, as in manifests and journals."""
        return None if self.month is None else format_month(self.month)


def format_month(month: dt.date) -> str:
    """``2020-04``."""
    return f"{month:%Y-%m}"


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
