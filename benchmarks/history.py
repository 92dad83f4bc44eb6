"""The months of each dataset, for the cases that are about all of them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from pipeline.datasets import row_counts
from pipeline.partition import ZONES, Partition, add_months, format_month
from pipeline.publishers.catalog import TLC

#: Published by TLC as CSV only; a mirror in its layout is presumed to have them, so the stand-in for one does.
CSV_ONLY = tuple(Partition("green", dt.date(2013, month, 1)) for month in range(8, 13))


def all_months() -> list[Partition]:
    """Everything that TLC has published, without the zone table."""
    return [*CSV_ONLY, *row_counts.official()]


def range_words() -> list[str]:
    """The words of the ``luigi`` command that keeps all of it complete."""
    stop = add_months(max(partition.first_day for partition in all_months()), 1)
    span = ("--start", "2009-01", "--stop", format_month(stop))
    return ["--module", "pipeline", "RangeMonthly", "--of", "AllTrips", *span]


def publish_names(folder: Path) -> Path:
    """Make ``folder`` one of a publisher in TLC's layout, with an empty file for each month and the zone table."""
    for partition in (ZONES, *all_months()):
        file = folder / TLC.path(partition)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder
