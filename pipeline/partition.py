"""A partition: one month of one dataset. The only place that formats, parses or counts months.

A month is the ``datetime.date`` of its first day, and as text ``YYYY-MM``. It is the month of the file, never that of a
pickup time.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

from .errors import UsageError


class Partition(NamedTuple):
    """One month of a dataset, what all stages and backends work on; ``month`` is None for the zone table."""

    dataset: str
    month: dt.date | None

    def __str__(self) -> str:
        """``green 2020-04``, or the dataset alone where it has no months: the beginning of messages."""
        return self.dataset if self.month is None else f"{self.dataset} {format_month(self.month)}"

    @property
    def first_day(self) -> dt.date:
        """The month where there has to be one. Raises ValueError for the zone table."""
        if self.month is None:
            raise ValueError(f"{self.dataset} has no months")
        return self.month

    @property
    def month_text(self) -> str | None:
        """``2020-04``; None where there are no months, as in manifests and journals."""
        return None if self.month is None else format_month(self.month)

    @property
    def sort_key(self) -> tuple[str, dt.date]:
        """By dataset, then by month; what has no months comes first."""
        return self.dataset, self.month or dt.date.min

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
    try:
        if re.fullmatch(r"\d{4}-\d{2}", text, re.ASCII):
            return dt.date(int(text[:4]), int(text[5:]), 1)
    except ValueError:
        pass  # month 13, or year 0
    raise ValueError(f"{text!r} is not a month; write it as YYYY-MM, such as 2021-01")


def typed_month(text: str) -> dt.date:
    """The month that a person typed; ``2021-1`` will do. Raises UsageError for what is no month."""
    year, dash, number = text.partition("-")
    try:
        return parse_month(f"{year}{dash}{number:0>2}")
    except ValueError:
        raise UsageError(f"{text!r} is not a month; write it as YYYY-MM, such as 2021-01") from None


def add_months(month: dt.date, count: int) -> dt.date:
    """The first day of the month that is ``count`` months after that of ``month``, or before it."""
    return _month_at(_index(month) + count)


def months_between(start: dt.date, stop: dt.date) -> list[dt.date]:
    """First days of the months from that of ``start`` up to, not including, ``stop``."""
    return [_month_at(index) for index in range(_index(start), _index(stop) + (stop.day > 1))]


def count_months(start: dt.date, stop: dt.date) -> int:
    """How many months that of ``stop`` is later than that of ``start``; negative if it is earlier."""
    return _index(stop) - _index(start)


def _index(month: dt.date) -> int:
    """The number of a month; that of the next one is greater by one."""
    return month.year * 12 + month.month - 1


def _month_at(index: int) -> dt.date:
    """The first day of the month with this number. Raises ValueError outside of the years 1 to 9999."""
    return dt.date(index // 12, index % 12 + 1, 1)
