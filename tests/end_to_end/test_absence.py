"""A month that the official publisher answers with 403: absent, or throttled? Through the real command, over HTTP."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.publishers.sample import generator

from ..servers.http import ALWAYS, Fault, HttpServer
from .conftest import Project

GREEN = ("--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}')
ZONES = "/misc/taxi_zone_lookup.csv"


def month_path(month: int) -> str:
    return f"/trip-data/green_tripdata_2020-{month:02}.parquet"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HttpServer]:
    """Green January, February and April; whatever is not there answers 403, as TLC's address does."""
    folder = tmp_path / "published"
    months = [dt.date(2020, month, 1) for month in (1, 2, 4)]
    generator.publish(folder, "green", months, rows=200, seed=1, layout="tlc")
    (folder / "SYNTHETIC.txt").unlink()
    with HttpServer(folder, absent=403) as server:
        yield server


@pytest.fixture
def web(site: HttpServer, tmp_path: Path) -> Project:
    return Project(
        tmp_path,
        {
            "PIPELINE_PUBLISHER_NAME": "tlc",
            "PIPELINE_PUBLISHER_URL": site.url,
            "PIPELINE_RETRY_BACKOFF": "0.05",
            "PIPELINE_RETRY_ATTEMPTS": "2",
        },
    )


def test_absent_months_are_not_throttling(web: Project) -> None:
    done = web.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-07")
    assert done.returncode == 20, done.stdout
    assert done.stdout.count("missing at publisher") >= 2 and "not yet" not in done.stdout, "too old to appear still"
    assert web.query("SELECT count(DISTINCT file_month) FROM green_trips") == [(3,)]


def test_throttling_is_not_absence(web: Project, site: HttpServer) -> None:
    """Once everything is refused, a month that is refused too may well be there: told by the last loaded month."""
    assert web.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-02").returncode == 0
    site.clear()
    for path in (month_path(1), month_path(2), ZONES):
        site.program(path, Fault(status=403, times=ALWAYS))
    refused = web.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-02")
    assert refused.returncode == 35, refused.stdout
    assert refused.stdout == (
        f"error: publisher tlc cannot be reached at {site.url}: it refuses files that must exist: too many requests; "
        "check the network and [publisher] url, or try again later\n"
    )
    assert month_path(1) in site.asked("HEAD"), "the last loaded month is asked first"
    site.clear()
    assert web.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-02").returncode == 0
