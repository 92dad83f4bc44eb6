"""Which of the wanted months a publisher has, which are not published yet, and which are gaps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..partition import add_months

#: How many months after its end an absent month counts as not yet published. TLC publishes a month some two to three
#: months after its end, so half a year leaves room; what is absent for longer is a gap, whoever the publisher is.
APPEARS_WITHIN = 6


@dataclass(frozen=True)
class Availability:
    """Of the wanted months, sorted: ``not_yet`` (absent, may still appear) and ``missing`` (gaps).

    A month may still appear if it is later than ``newest`` and ``can_still_appear``. All others are published, or
    presumed so. ``newest`` is the newest month known to be published, whether it was asked for or not.
    """

    not_yet: tuple[dt.date, ...]
    missing: tuple[dt.date, ...]
    newest: dt.date | None

    @classmethod
    def of(
        cls, wanted: Iterable[dt.date], absent: Collection[dt.date], newest: dt.date | None, today: dt.date
    ) -> Availability:
        """Sort the ``absent`` among the wanted months."""
        lacking = [month for month in wanted if month in absent]
        not_yet = [m for m in lacking if can_still_appear(m, today) and (newest is None or m > newest)]
        return cls(tuple(not_yet), tuple(month for month in lacking if month not in not_yet), newest)


def can_still_appear(month: dt.date, today: dt.date | None = None) -> bool:
    """Whether a month that a publisher does not have may just not be published yet; see ``APPEARS_WITHIN``."""
    return add_months(month, 1 + APPEARS_WITHIN) > (today or dt.date.today())
