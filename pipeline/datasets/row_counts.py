"""The published row counts that come with the package; ``facts/README.md`` says where they are from."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

Key = tuple[str, dt.date]


@dataclass(frozen=True)
class Figure:
    """How many rows the file of a month has, and how many bytes it had when they were counted, if that is known."""

    rows: int
    size_bytes: int | None = None


def published(publisher: str, dataset: str, month: dt.date | None) -> Figure | None:
    """The figure of a publisher (by its name) for a month; None where there is none."""
    return _FIGURES[publisher]().get((dataset, month)) if publisher in _FIGURES and month else None


@cache
def official() -> Mapping[Key, Figure]:
    """TLC's Parquet files."""
    return {
        (row["dataset"], dt.date(int(row["year"]), int(row["month"]), 1)): Figure(
            int(row["rows"]), int(row["size_bytes"]) if row["size_bytes"] else None
        )
        for row in _table("tlc_parquet_rowcounts.csv")
    }


@cache
def mirror() -> Mapping[Key, Figure]:
    """The csv.gz files of dtc. The table has whole years too, which are no month's figure."""
    return {
        (row["dataset"], dt.date.fromisoformat(f"{row['period']}-01")): Figure(int(row["rows"]))
        for row in _table("csv_mirror_row_checks.csv")
        if "-" in row["period"]
    }


#: The tables, by the name of the publisher.
_FIGURES = {"tlc": official, "dtc": mirror}


def _table(name: str) -> csv.DictReader[str]:
    return csv.DictReader((files(__package__) / "facts" / name).read_text(encoding="utf-8").splitlines())


@cache
def newest_month(publisher: str, dataset: str) -> dt.date | None:
    """The newest month of a dataset that a publisher (by its name) has a figure for; None without any."""
    figures = _FIGURES[publisher]() if publisher in _FIGURES else {}
    return max((month for name, month in figures if name == dataset), default=None)
