"""Which months there are, for the cases that are about all of them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from pipeline.datasets import row_counts

#: Published by TLC as CSV only; a mirror in its layout is presumed to have them, so the stand-in for one does.
CSV_ONLY = tuple(("green", dt.date(2013, month, 1)) for month in range(8, 13))


def all_months() -> list[tuple[str, dt.date]]:
    """(dataset, month) of everything that TLC has published."""
    return [*CSV_ONLY, *row_counts.official()]


def range_words() -> list[str]:
    """The words of the ``luigi`` command that keeps all of it complete."""
    stop = (max(month for _, month in all_months()) + dt.timedelta(days=31)).replace(day=1)
    span = ("--start", "2009-01", "--stop", f"{stop:%Y-%m}")
    return ["--module", "pipeline", "RangeMonthly", "--of", "AllTrips", *span]


def publish_names(folder: Path) -> Path:
    """Make ``folder`` one of a publisher in TLC's layout, with an empty file for each month and the zone table."""
    for dataset, month in all_months():
        file = folder / "trip-data" / f"{dataset}_tripdata_{month:%Y-%m}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (folder / "misc").mkdir()
    (folder / "misc" / "taxi_zone_lookup.csv").touch()
    return folder
