"""The published row counts, from tlc_parquet_rowcounts.csv and csv_mirror_row_checks.csv in ``facts/``."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ..partition import Partition


@dataclass(frozen=True)
class Figure:
    """How many rows the file of a month has, and how many bytes it had when they were counted, if that is known."""

    rows: int
    size_bytes: int | None = None


def published(publisher: str, partition: Partition) -> Figure | None:
    """The figure of a publisher (by its name) for a month; None where there is none."""
    return _FIGURES[publisher]().get(partition) if publisher in _FIGURES else None


@cache
def official() -> Mapping[Partition, Figure]:
    """TLC's Parquet files."""
    return {
        Partition.parse(row["dataset"], f"{row['year']}-{row['month']:0>2}"): Figure(
            int(row["rows"]), int(row["size_bytes"]) if row["size_bytes"] else None
        )
        for row in _table("tlc_parquet_rowcounts.csv")
    }


@cache
def mirror() -> Mapping[Partition, Figure]:
    """The csv.gz files of dtc. The table has whole years too, which are no month's figure."""
    return {
        Partition.parse(row["dataset"], row["period"]): Figure(int(row["rows"]))
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
    return max((each.first_day for each in figures if each.dataset == dataset), default=None)
