"""The lines of ``verify`` about a month that does not agree, and the command line that does it again."""

from __future__ import annotations

import datetime as dt

import pytest

from pipeline.partition import Partition
from pipeline.planning.comparison import Comparison
from pipeline.redo_command import EVERYWHERE, NOTHING

MARCH = dt.date(2020, 3, 1)
RUN = "luigi --module pipeline MonthlyTrips --dataset green --month 2020-03"
FORGET = "python -m pipeline forget --dataset green --month 2020-03"


@pytest.mark.parametrize(
    ("forget", "remedy"),
    [
        ([NOTHING], RUN),
        ([EVERYWHERE, "duckdb"], f"{FORGET} && {RUN}"),
        (["duckdb", "bigquery"], f"{FORGET} --warehouse bigquery && {FORGET} --warehouse duckdb && {RUN}"),
    ],
)
def test_remedy_is_one_command_line(forget: list[str], remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Comparison(Partition("green", MARCH))
    assert line.remedy == ""
    for place in forget:
        line.disagrees("something", place)
    assert line.remedy == f"{remedy} --local-scheduler"
    monkeypatch.setattr("pipeline.luigi_config.names_luigid", lambda: True)
    assert line.remedy == remedy


def test_remedy_of_the_zones() -> None:
    line = Comparison(Partition("zones", None))
    line.disagrees("something", EVERYWHERE)
    assert line.remedy == (
        "python -m pipeline forget --dataset zones && luigi --module pipeline TaxiZones --local-scheduler"
    )


def test_numbers_that_differ() -> None:
    line = Comparison(Partition("green", MARCH))
    line.compare("the Parquet file has", 1000, "its manifest", 1001, NOTHING)
    line.compare("the text of x has", 29558, "the Parquet file", 29550, NOTHING, "characters")
    assert line.problems == [
        "the Parquet file has 1,000, its manifest 1,001 (-1)",
        "the text of x has 29,558 characters, the Parquet file 29,550 (+8)",
    ]
