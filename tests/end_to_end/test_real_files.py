"""Published files, from both publishers' folders to the tables: the numbers are those of the files."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import datasets
from pipeline.partition import months_between

from ..real_data import FOLDER, ROWS, csv_files, csv_lines, month_in, path_of
from .conftest import Project

GREEN = datasets.get("green")
RANGE_OF_GREEN = ("RangeMonthly", "--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}')
DTC_FILES = {("dtc", month): rows for month, rows in ROWS["dtc"].items()}
TLC_FILES = {("tlc", month): rows for month, rows in ROWS["tlc"].items()}
#: Loaded from both.
TWICE = {("dtc", month) for month in ROWS["dtc"].keys() & ROWS["tlc"].keys()}
#: What is there after both ranges: 2020-04 was loaded from both, and the official file came last.
FILES = {month: (publisher, rows) for (publisher, month), rows in (DTC_FILES | TLC_FILES).items()}


def published_by(name: str, folder: Path) -> dict[str, str]:
    return {"PIPELINE_PUBLISHER_NAME": name, "PIPELINE_PUBLISHER_URL": f"file:{folder}"}


def manifest_of(project: Project, month: str, dataset: str = "green") -> dict[str, Any]:
    path = project.folder / "lake" / "manifests" / dataset / f"{dataset}_tripdata_{month}.json"
    return dict(json.loads(path.read_text()))


def lake_file(project: Project, month: str, kind: str = "data") -> Path:
    return project.folder / "lake" / kind / "green" / f"green_tripdata_{month}.parquet"


def load_all_of(project: Project, publisher: str) -> None:
    """All months of a publisher, as one range; months within it that are not there are gaps."""
    months = [dt.date.fromisoformat(f"{month}-01") for month in ROWS[publisher]]
    stop = (max(months) + dt.timedelta(days=31)).replace(day=1)
    asked = {f"{month:%Y-%m}" for month in months_between(min(months), stop)}
    gaps = [f"green {month}" for month in sorted(asked - ROWS[publisher].keys())]
    project.environment.update(published_by(publisher, FOLDER / "publishers" / publisher))
    done = project.luigi(*RANGE_OF_GREEN, "--start", f"{min(months):%Y-%m}", "--stop", f"{stop:%Y-%m}")
    assert done.returncode == (20 if gaps else 0), done.stdout
    assert f"{', '.join(gaps)}: missing at {publisher}" in done.stdout or not gaps


def load_both(folder: Path, rules: str) -> Project:
    """The mirror's months, then the official ones, into one lake and one table."""
    project = Project(folder, {"PIPELINE_CLEAN_RULES": rules})
    load_all_of(project, "dtc")
    assert project.query("SELECT count(*) FROM green_trips WHERE file_month = '2020-04-01'")[0][0] > 0
    assert project.query("SELECT count(DISTINCT file_month) FROM green_trips") == [(len(ROWS["dtc"]),)]
    load_all_of(project, "tlc")
    return project


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All months of both publishers without a rule."""
    return load_both(tmp_path_factory.mktemp("everything"), "none")


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All months of both publishers with the default rules."""
    return load_both(tmp_path_factory.mktemp("ruled"), "zero_passengers,pickup_outside_month")


def test_one_table_has_the_published_number_of_rows(everything: Project) -> None:
    assert everything.query(
        "SELECT strftime(file_month, '%Y-%m'), count(*) FROM green_trips GROUP BY 1 ORDER BY 1"
    ) == [(month, rows) for month, (_, rows) in sorted(FILES.items())]
    assert everything.query(
        "SELECT strftime(file_month, '%Y-%m'), split_part(publisher, '=', 1), row_count, rejected_count "
        "FROM etl_current WHERE dataset = 'green' ORDER BY 1"
    ) == [(month, publisher, rows, 0) for month, (publisher, rows) in sorted(FILES.items())]
    columns = everything.query("SELECT column_name, column_type FROM (DESCRIBE green_trips)")
    assert [name for name, _ in columns] == [column.name for column in GREEN.table_columns]
    assert dict(columns)["VendorID"] == dict(columns)["trip_type"] == "BIGINT"


def test_lake_files_have_one_schema_and_equal_the_table(everything: Project) -> None:
    for month in FILES:
        file = pq.ParquetFile(lake_file(everything, month))
        assert file.schema_arrow.remove_metadata().equals(GREEN.table_schema), month
        rows = f"read_parquet('{lake_file(everything, month)}')"
        slice_ = f"(SELECT * FROM green_trips WHERE file_month = '{month}-01')"
        for one, other in ((rows, slice_), (slice_, rows)):
            assert everything.query(f"SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})") == [(0,)], month


def test_official_values_are_those_that_pyarrow_reads(everything: Project) -> None:
    for _, month in TLC_FILES:
        published = pq.read_table(path_of("tlc", month))
        loaded = pq.read_table(lake_file(everything, month))
        for name in published.schema.names:
            values = published.column(name)
            if pa.types.is_null(values.type):
                assert loaded.column(name).null_count == len(published), (month, name)
            else:
                assert loaded.column(name).cast(values.type).equals(values), (month, name)
        absent = set(loaded.schema.names) - set(published.schema.names) - {"file_month"}
        assert all(loaded.column(name).null_count == len(loaded) for name in absent), month


def test_mirror_values_are_those_that_duckdb_reads(everything: Project) -> None:
    types = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR", "timestamp": "TIMESTAMP"}
    for _, month in DTC_FILES.keys() - TWICE:
        path = path_of("dtc", month)
        names = gzip.decompress(path.read_bytes()).split(b"\n", 1)[0].decode().strip().split(",")
        casts = ", ".join(
            f"CAST({f'CAST({name} AS DOUBLE)' if kind == 'BIGINT' else name} AS {kind}) AS {name}"
            for name in names
            for kind in [types[GREEN.column_for(name).type]]
        )
        text = f"(SELECT {casts} FROM read_csv('{path}', all_varchar = true))"
        rows = f"(SELECT {', '.join(names)} FROM read_parquet('{lake_file(everything, month)}'))"
        for one, other in ((text, rows), (rows, text)):
            assert everything.query(f"SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})") == [(0,)], month


def test_manifests_hold_the_numbers_of_the_files(everything: Project, ruled: Project) -> None:
    for project in (everything, ruled):
        for month, (publisher, rows) in FILES.items():
            manifest = manifest_of(project, month)
            source = path_of(publisher, month)
            rejected = sum(manifest["rows_rejected"].values())
            assert manifest["rows_read"] == rows == manifest["rows_written"] + rejected, month
            assert manifest["publisher"].split("=")[0] == publisher
            assert manifest["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
            assert manifest["source"]["length"] == source.stat().st_size
            assert manifest["unknown_columns"] == {}
            for kind, count in (("parquet", manifest["rows_written"]), ("rejects", rejected)):
                digest = manifest[kind]
                data = (project.folder / "lake" / digest["path"]).read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (digest["bytes"], digest["sha256"]), month
                assert pq.read_metadata(pa.BufferReader(data)).num_rows == count, month


def test_what_is_loaded_and_what_is_rejected_is_what_was_published(ruled: Project) -> None:
    for month, (publisher, rows) in FILES.items():
        manifest = manifest_of(ruled, month)
        path = path_of(publisher, month)
        rejects = pq.read_table(lake_file(ruled, month, "rejects")).to_pylist()
        counted: dict[str, int] = {}
        for reject in rejects:
            counted[reject["reason"]] = counted.get(reject["reason"], 0) + 1
        assert counted == manifest["rows_rejected"] and set(counted) <= {"zero_passengers", "pickup_outside_month"}
        assert ruled.query(f"SELECT count(*) FROM green_trips WHERE file_month = '{month}-01'") == [
            (rows - len(rejects),)
        ]
        assert ruled.query(
            f"SELECT row_count, rejected_count FROM etl_current WHERE dataset = 'green' AND file_month = '{month}-01'"
        ) == [(rows - len(rejects), len(rejects))]
        assert {reject["source_file"] for reject in rejects} == {path.name}
        if publisher == "dtc":
            lines = [line.rstrip("\r") for line in gzip.decompress(path.read_bytes()).decode().split("\n")]
            assert all(lines[reject["source_line"] - 1] == reject["original"] for reject in rejects), month
        else:
            places = [reject["source_line"] - 1 for reject in rejects]
            for row, reject in zip(pq.read_table(path).take(places).to_pylist(), rejects, strict=True):
                original = json.loads(reject["original"])
                assert original["fare_amount"] == row["fare_amount"]
                assert dt.datetime.fromisoformat(original["lpep_pickup_datetime"]) == row["lpep_pickup_datetime"]
                if reject["reason"] == "zero_passengers":
                    assert row["passenger_count"] == 0
                else:
                    assert f"{row['lpep_pickup_datetime']:%Y-%m}" != month


def test_zone_table_has_all_zones_and_keeps_the_text_not_available(everything: Project) -> None:
    assert everything.query("SELECT count(*), count(DISTINCT LocationID) FROM taxi_zones") == [(265, 265)]
    assert everything.query(
        'SELECT count(*) FROM taxi_zones WHERE Borough IS NULL OR "Zone" IS NULL OR service_zone IS NULL'
    ) == [(0,)]
    assert everything.query('SELECT Borough, "Zone" FROM taxi_zones WHERE LocationID IN (264, 265) ORDER BY ALL') == [
        ("N/A", "Outside of NYC"),
        ("Unknown", "N/A"),
    ]


def test_a_month_as_a_data_frame(everything: Project) -> None:
    """In a process of its own, as a notebook would: the settings come from luigi.cfg and the environment."""
    code = (
        'import json, pipeline; frame = pipeline.read("green", "2020-04"); '
        "print(json.dumps([len(frame), frame.dtypes.astype(str).to_dict(), "
        "int(frame.passenger_count.isna().sum()), str(frame.lpep_pickup_datetime.min()), frame.VendorID.max().item()]))"
    )
    ran = everything.run(sys.executable, "-c", code)
    rows, dtypes, unknown, first, vendor = json.loads(ran.stdout)
    assert (rows, vendor) == (35_644, 6)
    assert (unknown, first) == everything.query(
        "SELECT count(*) FILTER (passenger_count IS NULL), CAST(min(lpep_pickup_datetime) AS VARCHAR) "
        "FROM green_trips WHERE file_month = '2020-04-01'"
    )[0]
    assert dtypes["VendorID"] == dtypes["passenger_count"] == dtypes["PULocationID"] == "Int64"
    assert dtypes["fare_amount"] == dtypes["ehail_fee"] == dtypes["cbd_congestion_fee"] == "float64"
    assert dtypes["lpep_pickup_datetime"] == "datetime64[us]"
    assert dtypes["store_and_fwd_flag"] == "string"


# -- damaged files -------------------------------------------------------------------------------


def test_damaged_files_fail_by_name_and_leave_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "published" / "trip-data"
    folder.mkdir(parents=True)
    good = path_of("tlc", "2020-04")
    reduce_to_five_columns(good, folder / "green_tripdata_2020-03.parquet")
    pd.read_parquet(good).to_parquet(folder / "green_tripdata_2020-04.parquet")
    truncated = good.read_bytes()[: good.stat().st_size // 2]
    (folder / "green_tripdata_2020-05.parquet").write_bytes(truncated)
    project = Project(tmp_path, {**published_by("tlc", tmp_path / "published"), "PIPELINE_CLEAN_RULES": "none"})
    done = project.luigi(*RANGE_OF_GREEN, "--start", "2020-03", "--stop", "2020-06")
    assert done.returncode == 30, done.stdout
    assert "Traceback" not in done.stdout
    output = " ".join(done.stdout.split())
    assert "lacks VendorID, passenger_count, payment_type, fare_amount, total_amount" in output
    assert re.search(r"green_tripdata_2020-05.parquet\S* .*(cut off|incomplete|end)", output), output
    assert project.query("SELECT CAST(file_month AS VARCHAR), count(*) FROM green_trips GROUP BY 1") == [
        ("2020-04-01", 35_644)
    ]
    assert project.query("SELECT DISTINCT file_month FROM etl_loads WHERE dataset = 'green'") == [
        (dt.date(2020, 4, 1),)
    ]
    lake = {path.name for path in (project.folder / "lake").rglob("*") if path.is_file() and ".store" not in path.parts}
    assert {name.split(".")[0] for name in lake if name.startswith("green_")} == {"green_tripdata_2020-04"}


def reduce_to_five_columns(source: Path, target: Path) -> None:
    columns = ["lpep_pickup_datetime", "lpep_dropoff_datetime", "PULocationID", "DOLocationID", "trip_distance"]
    pq.write_table(pq.read_table(source, columns=columns), target)


def test_month_that_is_damaged_later_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "published" / "trip-data"
    folder.mkdir(parents=True)
    month = folder / "green_tripdata_2020-04.parquet"
    shutil.copy(path_of("tlc", "2020-04"), month)
    project = Project(tmp_path, {**published_by("tlc", tmp_path / "published"), "PIPELINE_CLEAN_RULES": "none"})
    arguments = ("MonthlyTrips", "--dataset", "green", "--month", "2020-04")
    assert project.luigi(*arguments).returncode == 0
    lake = {path: path.read_bytes() for path in (tmp_path / "lake").glob("*/green/*")}
    reduce_to_five_columns(path_of("tlc", "2020-04"), month)
    assert project.luigi(*arguments).returncode == 30
    assert {path: path.read_bytes() for path in (tmp_path / "lake").glob("*/green/*")} == lake
    assert project.query("SELECT count(*) FROM green_trips") == [(35_644,)]
    shutil.copy(path_of("tlc", "2020-04"), month)
    assert project.luigi(*arguments).returncode == 0, "the old file is back"


# -- all eras of all datasets --------------------------------------------------------------------

ALL_TRIPS = ("RangeMonthly", "--of", "AllTrips", "--start", "2009-01", "--stop", "2021-08")


#: Months of samples whose names have none, or whose own month is a file of an era too or younger than a mirror's last.
MONTHS_OF_SAMPLES = {
    **{("fhv", "2020-04"): "2020-05", ("fhvhv", "2020-04"): "2020-05", ("green", "2019-01"): "2019-02"},
    **{("green", "2020-04"): "2020-05", ("yellow", "2009-01"): "2009-02", ("yellow", "2015-01"): "2015-02"},
    **{("yellow", "2020-04"): "2020-05", ("yellow", ""): "2021-01", ("yellow", "2025-01"): "2021-02"},
}


def publish_csv(folder: Path, dataset: str, month: str, data: bytes, level: int) -> None:
    """Put a CSV file where the mirror would have it."""
    (folder / dataset).mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(data, level, mtime=level)
    (folder / dataset / f"{dataset}_tripdata_{month}.csv.gz").write_bytes(packed)


def without_last_line(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def test_every_era_goes_all_the_way_and_never_doubles(tmp_path: Path) -> None:
    project = Project(tmp_path, {**published_by("dtc", tmp_path / "published"), "PIPELINE_CLEAN_RULES": "none"})
    tables = sorted(datasets.MONTHLY)
    files = {}
    for name, data in csv_files("samples").items():
        dataset = name.split("_")[0]
        files[dataset, MONTHS_OF_SAMPLES.get((dataset, month_in(name)), month_in(name))] = data
    for name, data in csv_files("eras").items():
        files[name.split("_")[0], month_in(name)] = without_last_line(data)
    assert len(files) == len(csv_files("eras")) + len(csv_files("samples"))
    expected = sorted((dataset, month, csv_lines(data)) for (dataset, month), data in files.items())
    found = {}
    for level in (9, 1):  # other bytes around the same rows: republished, so that every month is loaded again
        for (dataset, month), data in files.items():
            publish_csv(tmp_path / "published", dataset, month, data, level)
        done = project.luigi(*ALL_TRIPS)
        assert done.returncode == 20 and "failed" not in done.stdout, done.stdout
        counts = [
            (dataset, month, count)
            for dataset in tables
            for month, count in project.query(
                f"SELECT strftime(file_month, '%Y-%m'), count(*) FROM {dataset}_trips GROUP BY 1"
            )
        ]
        assert sorted(counts) == expected
        found[level] = project.tables(*(f"{dataset}_trips" for dataset in tables))
        found[level].pop("ledger")
        assert "Clean yellow 2021-01: column 'test_bool' of yellow_tripdata_2021-01.csv.gz is not declared" in (
            done.stdout
        ), "never silent"
    assert found[9] == found[1]
    assert project.query("SELECT count(*) FROM etl_loads") == [(2 * len(expected),)]
    for dataset in tables:
        pickup = datasets.get(dataset).pickup
        assert project.query(f"SELECT count(*) FROM {dataset}_trips WHERE {pickup} IS NULL") == [(0,)]
    assert project.query(
        "SELECT count(*) FROM yellow_trips WHERE (pickup_longitude IS NULL) = (PULocationID IS NULL)"
    ) == [(0,)], "coordinates in the old files, zones in the new ones"


def test_too_many_unreadable_rows_fail_the_month(tmp_path: Path) -> None:
    """The beginning of a file is no month: its last line is cut off, one of five."""
    name = "yellow_tripdata_2009-01.csv"
    publish_csv(tmp_path / "published", "yellow", "2009-01", csv_files("eras")[name], 9)
    project = Project(tmp_path, published_by("dtc", tmp_path / "published"))
    arguments = ("MonthlyTrips", "--dataset", "yellow", "--month", "2009-01", "--clean-rules", "none")
    refused = project.luigi(*arguments)
    assert refused.returncode == 30
    assert re.search(
        r"yellow_tripdata_2009-01.csv.gz: 1 of 5 rows cannot be read, more than the 5 % of \[clean\] max_unreadable; "
        r"the first is row 7 \(truncated_line\): ",
        refused.stdout,
    ), refused.stdout
    assert not (tmp_path / "lake" / "data").exists() and not (tmp_path / "warehouse.duckdb").exists()
    allowed = project.luigi(*arguments, "--clean-max-unreadable", "20")
    assert allowed.returncode == 0, allowed.stdout
    assert project.query("SELECT row_count, rejected_count FROM etl_current WHERE dataset = 'yellow'") == [(4, 1)]
    rejects = pq.read_table(tmp_path / "lake" / "rejects" / "yellow" / "yellow_tripdata_2009-01.parquet").to_pylist()
    assert [reject["reason"] for reject in rejects] == ["truncated_line"]
