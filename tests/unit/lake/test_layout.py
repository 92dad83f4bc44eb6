"""Paths in the lake, which other people's scripts rely on."""

from __future__ import annotations

import datetime as dt

import pytest

from pipeline.lake import layout
from pipeline.partition import ZONES, Partition

MONTH = dt.date(2021, 1, 1)
YELLOW = Partition("yellow", MONTH)


def test_paths_of_a_month() -> None:
    assert layout.data(YELLOW) == "data/yellow/yellow_tripdata_2021-01.parquet"
    assert layout.rejects(YELLOW) == "rejects/yellow/yellow_tripdata_2021-01.parquet"
    assert layout.manifest(YELLOW) == "manifests/yellow/yellow_tripdata_2021-01.json"
    assert layout.version(YELLOW, "ab" * 32) == "versions/yellow/yellow_tripdata_2021-01.abababababab.parquet"


def test_paths_of_the_zone_table() -> None:
    assert layout.data(ZONES) == "data/zones/taxi_zone_lookup.parquet"
    assert layout.manifest(ZONES) == "manifests/zones/taxi_zone_lookup.json"


def test_month_of_is_the_inverse() -> None:
    for path in (layout.data, layout.rejects, layout.manifest):
        assert layout.month_of(path(Partition("fhvhv", MONTH))) == MONTH
        assert layout.month_of(path(ZONES)) is None
    assert layout.month_of(layout.version(Partition("fhvhv", MONTH), "ab" * 32)) == MONTH
    with pytest.raises(ValueError, match=r"notes\.txt"):
        layout.month_of("data/yellow/notes.txt")


def test_observations_of_two_addresses_are_two_files() -> None:
    assert layout.observations("tlc") == "observations/tlc.json"
    paths = {layout.observations(f"tlc=file:/{folder}") for folder in ("a/b", "a-b", "a b", "x" * 300, "x" * 301)}
    assert len(paths) == 5
    assert all(len(path) < 120 and path.count("/") == 1 for path in paths)
