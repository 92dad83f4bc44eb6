"""Files and disks that Clean and WriteParquet meet: nothing is left out silently, and one line says what to do."""

from __future__ import annotations

import gzip
import json
import random
import subprocess

import pytest

from .conftest import Project

MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
HEADER = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,passenger_count,trip_distance,payment_type,fare_amount,"
    "total_amount,fare_amount"
)
LINE = "2,2020-01-05 10:00:00,2020-01-05 10:10:00,1,1.5,1,8.5,9,0.5"


@pytest.fixture
def mirror(project: Project) -> Project:
    """A project whose publisher is the folder ``published``, empty yet, in the mirror's place."""
    (project.folder / "published" / "green").mkdir(parents=True)
    project.environment.update(
        {
            "PIPELINE_PUBLISHER_NAME": "dtc",
            "PIPELINE_PUBLISHER_URL": "file:published",
            "PIPELINE_CLEAN_RULES": "none",
        }
    )
    return project


def test_a_repeated_column_is_told_of_and_the_month_complete(mirror: Project) -> None:
    file = mirror.folder / "published" / "green" / "green_tripdata_2020-01.csv.gz"
    file.write_bytes(gzip.compress("\n".join([HEADER, *[LINE] * 20, ""]).encode()))
    done = mirror.luigi(*MONTH)
    assert done.returncode == 0, done.stdout
    assert "column 'fare_amount (2nd)' of green_tripdata_2020-01.csv.gz is not declared" in done.stdout
    manifest = json.loads((mirror.folder / "lake/manifests/green/green_tripdata_2020-01.json").read_text())
    assert manifest["unknown_columns"] == {"fare_amount (2nd)": 20}
    assert mirror.query("SELECT DISTINCT fare_amount FROM green_trips") == [(8.5,)]
    again = mirror.luigi(*MONTH)
    assert again.returncode == 0 and "Clean" not in again.stdout, again.stdout


def luigi_with_room(project: Project, kilobytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A limit on the size of files fails in the middle of a write, as a full disk does."""
    limit = f'ulimit -f {kilobytes} && exec "$@"'
    return project.run("bash", "-c", limit, "bash", *project.luigi_command(*arguments))


@pytest.mark.parametrize("file", ["rows.arrow", "rejects.parquet"])
def test_a_full_disk_while_cleaning_is_one_line_and_the_next_run_goes_on(mirror: Project, file: str) -> None:
    chance = random.Random(7)
    header = HEADER.removesuffix(",fare_amount")
    good = LINE.removesuffix(",0.5")
    odd = [chance.randbytes(40).hex() for _ in range(8_000)] if file == "rejects.parquet" else []
    lines = [header, *[good] * (100 if odd else 8_000), *odd, ""]
    published = mirror.folder / "published" / "green" / "green_tripdata_2020-01.csv.gz"
    published.write_bytes(gzip.compress("\n".join(lines).encode()))
    mirror.environment["PIPELINE_CLEAN_MAX_UNREADABLE"] = "100"
    downloaded = mirror.luigi("Download", *MONTH[1:])
    assert downloaded.returncode == 0, downloaded.stdout
    assert_refused(luigi_with_room(mirror, 64, *MONTH), file)
    done = mirror.luigi(*MONTH)
    assert done.returncode == 0, done.stdout
    assert mirror.query("SELECT row_count, rejected_count FROM etl_current") == [(100 if odd else 8_000, len(odd))]


def test_a_full_disk_while_writing_parquet_is_one_line_and_the_next_run_goes_on(project: Project) -> None:
    cleaned = project.luigi("Clean", *MONTH[1:])
    assert cleaned.returncode == 0, cleaned.stdout
    assert_refused(luigi_with_room(project, 8, *MONTH), "trips.parquet")
    done = project.luigi(*MONTH)
    assert done.returncode == 0, done.stdout
    assert project.query("SELECT row_count + rejected_count FROM etl_current") == [(500,)]


def assert_refused(done: subprocess.CompletedProcess[str], file: str) -> None:
    """Check that the run failed for want of room for a file, and says so in one line."""
    output = " ".join(done.stdout.split())
    assert done.returncode == 30, done.stdout
    assert f"/{file} cannot be written: no room left" in output and "make room on that disk and run again" in output
    assert "Traceback" not in output and "OSError" not in output, done.stdout
