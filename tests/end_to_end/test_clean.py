"""Files and disks that Clean and WriteParquet meet: nothing is left out silently, and one line says what to do."""

from __future__ import annotations

import gzip
import json

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
