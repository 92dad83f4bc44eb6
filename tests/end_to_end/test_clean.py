"""Damaged files and full disks in Clean and WriteParquet: nothing is left out silently; one line names the remedy."""

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


def test_a_zone_table_from_windows_is_read_as_it_is_meant(mirror: Project) -> None:
    """Lines that end with CR CR LF, Windows-1252, NA as a word of TLC's, and one zone twice."""
    (mirror.folder / "published/misc").mkdir()
    (mirror.folder / "published/misc/taxi_zone_lookup.csv").write_bytes(
        b"LocationID,Borough,Zone,service_zone\r\r\n41,Manhattan,Central Harlem,Boro Zone\r\r\n"
        b"103,Manhattan,Governor\x92s Island,Yellow Zone\r\r\n103,Manhattan,Governor\x92s Island,Yellow Zone\r\r\n"
        b"264,Unknown,NA,N/A\r\r\n"
    )
    header = HEADER.replace(",fare_amount,", ",fare_amount,PULocationID,DOLocationID,", 1).removesuffix(",fare_amount")
    line = LINE.replace(",8.5,", ",8.5,103,41,").removesuffix(",0.5")
    file = mirror.folder / "published" / "green" / "green_tripdata_2020-01.csv.gz"
    file.write_bytes(gzip.compress("\r".join([header, *[line] * 19, header.upper(), line + ",", ""]).encode()))
    zones, month = mirror.luigi("TaxiZones"), mirror.luigi(*MONTH)
    assert (zones.returncode, month.returncode) == (0, 0), zones.stdout + month.stdout
    assert mirror.query("SELECT * FROM taxi_zones ORDER BY 1") == [
        (41, "Manhattan", "Central Harlem", "Boro Zone"),
        (103, "Manhattan", "Governor\u2019s Island", "Yellow Zone"),
        (264, "Unknown", "NA", "N/A"),
    ]
    assert mirror.query("SELECT count(*), max(pickup_zone) FROM trips") == [(20, "Governor\u2019s Island")]
    manifest = json.loads(next((mirror.folder / "lake/manifests/zones").iterdir()).read_text())
    assert manifest["repaired"] == {"line_ends": 5, "windows_1252": 2}
    assert manifest["rows_rejected"] == {"duplicate_key": 1}
    assert "WARNING Clean zones: repaired in taxi_zone_lookup.csv: line_ends 5, windows_1252 2" in zones.stdout
    assert (
        "WARNING Clean green 2020-01: repaired in green_tripdata_2020-01.csv.gz: line_ends 22, repeated_headers 1;"
        in month.stdout
    )
    manifest = json.loads((mirror.folder / "lake/manifests/green/green_tripdata_2020-01.json").read_text())
    assert (manifest["repaired"], manifest["repeated_headers"], manifest["surplus_values"]) == ({"line_ends": 22}, 1, 1)


@pytest.mark.parametrize("rules", ["none", "pickup_outside_month"])
def test_the_file_of_another_month_is_told_of(mirror: Project, rules: str) -> None:
    file = mirror.folder / "published" / "green" / "green_tripdata_2020-01.csv.gz"
    line = LINE.replace("2020-01", "2019-12")
    file.write_bytes(gzip.compress("\n".join([HEADER, *[line] * 20, LINE, ""]).encode()))
    done = mirror.luigi(*MONTH, "--clean-rules", rules)
    assert done.returncode == 0, done.stdout
    (warning,) = [line for line in done.stdout.splitlines() if "another month's file" in line]
    assert "WARNING Clean green 2020-01: 20 of 21 trips in green_tripdata_2020-01.csv.gz" in warning
    assert "most of 2019-12 (20)" in warning


def test_a_file_in_another_format_is_named_in_one_line(mirror: Project) -> None:
    plain = "\n".join([HEADER, *[LINE] * 20, ""])
    published = mirror.folder / "published"
    (published / "misc").mkdir()
    (published / "misc/taxi_zone_lookup.csv").write_bytes("LocationID,Borough,Zone,service_zone\n".encode("utf-16"))
    (published / "green/green_tripdata_2020-01.csv.gz").write_bytes(gzip.compress(gzip.compress(plain.encode())))
    (published / "green/green_tripdata_2020-02.csv.gz").write_bytes(gzip.compress(plain.encode("utf-16")))
    done = mirror.luigi(
        "RangeMonthly", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03"
    )
    assert done.returncode == 30, done.stdout
    assert "green 2020-01: green_tripdata_2020-01.csv.gz: the file is gzip inside gzip, not CSV." in done.stdout
    assert "green 2020-02: green_tripdata_2020-02.csv.gz: the file is UTF-16, not UTF-8." in done.stdout
    zones = mirror.luigi("TaxiZones")
    assert zones.returncode == 30 and "this is UTF-16, not UTF-8" in zones.stdout, zones.stdout
    assert "Traceback" not in done.stdout + zones.stdout
