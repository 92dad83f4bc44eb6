"""Damaged scratch and lake files: the next plain run downloads the month again."""

from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.partition import Partition
from pipeline.publishers.sample import generator

from ..servers.http import HttpServer
from .conftest import Project

MONTH = ("--dataset", "green", "--month", "2020-01")
FILE = "green_tripdata_2020-01"


def damaged_parquet(good: bytes) -> bytes:
    """A page in the middle is overwritten; header and footer are as they should be."""
    return good[: len(good) // 3] + b"\xff" * 200 + good[len(good) // 3 + 200 :]


def other_columns(good: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), sink)
    return bytes(sink.getvalue())


def cut_gzip(good: bytes) -> bytes:
    return good[:-1000]


def wrong_checksum(good: bytes) -> bytes:
    return good[:-8] + bytes(byte ^ 1 for byte in good[-8:-4]) + good[-4:]


def unreadable_rows(good: bytes) -> bytes:
    lines = gzip.decompress(good).splitlines(keepends=True)
    return gzip.compress(lines[0] + b"".join(b"2,never,never\n" for _ in lines[1:]))


def no_rows(good: bytes) -> bytes:
    return gzip.compress(gzip.decompress(good).splitlines(keepends=True)[0])


class Site(HttpServer):
    """A publisher on the web, of one month."""

    def __init__(self, folder: Path, layout: str) -> None:
        super().__init__(folder)
        self.layout = layout
        self.file = folder / (f"trip-data/{FILE}.parquet" if layout == "tlc" else f"green/{FILE}.csv.gz")
        self.file.parent.mkdir(parents=True)
        generator.make_file(Partition("green", dt.date(2020, 1, 1)), self.file, rows=3000, seed=1, layout=layout)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    with Site(tmp_path / "published", getattr(request, "param", "tlc")) as server:
        yield server


@pytest.fixture
def web(site: Site, tmp_path: Path) -> Project:
    return Project(
        tmp_path,
        {
            "PIPELINE_PUBLISHER_NAME": site.layout,
            "PIPELINE_PUBLISHER_URL": site.url,
            "PIPELINE_RETRY_BACKOFF": "0.05",
            "PIPELINE_CLEAN_RULES": "none",
        },
    )


def scratch(project: Project) -> list[Path]:
    return [path for path in (project.folder / "workspace" / "scratch").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("site", "damage"),
    [
        ("tlc", damaged_parquet),
        ("tlc", other_columns),
        ("dtc", cut_gzip),
        ("dtc", wrong_checksum),
        ("dtc", unreadable_rows),
        ("dtc", no_rows),
    ],
    indirect=["site"],
)
def test_a_damaged_month_heals_when_the_publisher_has_mended_it(site: Site, web: Project, damage: object) -> None:
    good = site.file.read_bytes()
    assert callable(damage)
    site.file.write_bytes(damage(good))
    failed = web.luigi("MonthlyTrips", *MONTH)
    assert failed.returncode == 30, failed.stdout
    assert failed.stdout.count(" ERROR ") == 1, failed.stdout
    assert not scratch(web)
    again = web.luigi("MonthlyTrips", *MONTH)  # nobody has mended it yet: the same line
    assert again.returncode == 30 and again.stdout.count(" ERROR ") == 1, again.stdout
    site.file.write_bytes(good)
    healed = web.luigi("MonthlyTrips", *MONTH)
    assert healed.returncode == 0, healed.stdout
    assert web.query("SELECT count(*) FROM green_trips") == [(3000,)]
    assert len(site.asked("GET")) == 3


@pytest.mark.parametrize(
    ("stage", "name", "fails"),
    [
        ("Download", "raw", "Clean"),
        ("Clean", "rows.arrow", "WriteParquet"),
        ("WriteParquet", "trips.parquet", "Upload"),
    ],
)
def test_scratch_that_the_disk_damaged_is_made_again_by_the_next_run(
    site: Site, web: Project, stage: str, name: str, fails: str
) -> None:
    assert web.luigi(stage, *MONTH).returncode == 0
    file = next(path for path in scratch(web) if path.name == name)
    whole = file.read_bytes()
    file.write_bytes(whole[:-400] + b"\0" * 400)  # of the same length: its record still fits
    failed = web.luigi("MonthlyTrips", *MONTH)
    assert failed.returncode == 30, failed.stdout
    assert f"ERROR {fails} green 2020-01: " in failed.stdout and "run again" in failed.stdout, failed.stdout
    assert "Traceback" not in failed.stdout and not scratch(web)
    healed = web.luigi("MonthlyTrips", *MONTH)
    assert healed.returncode == 0, healed.stdout
    assert web.query("SELECT count(*) FROM green_trips") == [(3000,)]


def test_a_lake_file_that_the_disk_damaged_is_made_again_by_the_next_run(site: Site, web: Project) -> None:
    assert web.luigi("Upload", *MONTH).returncode == 0
    file = web.folder / "lake" / "data" / "green" / f"{FILE}.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-400] + b"\0" * 400)
    failed = web.luigi("MonthlyTrips", *MONTH)
    assert failed.returncode == 30, failed.stdout
    assert "is not the file of its manifest any more; run again" in failed.stdout and "Traceback" not in failed.stdout
    healed = web.luigi("MonthlyTrips", *MONTH)
    assert healed.returncode == 0, healed.stdout
    assert web.query("SELECT count(*) FROM green_trips") == [(3000,)]
    assert file.read_bytes() == whole
