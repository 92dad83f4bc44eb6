"""All real files at hand: publishers, eras, samples and damaged ones."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import datasets
from pipeline.cleaning import FORMATS
from pipeline.errors import UnreadableFile

from .support import Result, run

DEFAULT_RULES = "zero_passengers,pickup_outside_month"

#: Rows of each month, as the publishers' own counts have them.
ROWS = {
    "dtc": {"2020-03": 223_406, "2020-04": 35_612, "2020-05": 57_360, "2020-08": 81_063, "2020-10": 95_120},
    "tlc": {
        "2020-04": 35_644,
        "2021-01": 76_518,
        "2021-02": 64_572,
        "2022-01": 62_495,
        "2022-02": 69_399,
        "2022-03": 78_537,
        "2023-01": 68_211,
        "2023-02": 64_809,
        "2023-03": 72_044,
        "2025-01": 48_326,
    },
}
MONTHS = [(publisher, month) for publisher, months in ROWS.items() for month in months]


def clean_file(path: Path, rules: str = "none") -> Result:
    name = re.match("[a-z]+", path.name)
    month = re.search(r"(\d{4})-(\d\d)", path.name)
    assert name
    return run(
        path.read_bytes(),
        name.group() if name.group() in datasets.DATASETS else "zones",
        next(format for format in reversed(FORMATS) if path.name.endswith("." + format)),
        rules,
        dt.date(int(month[1]), int(month[2]), 1) if month else None,
        path.name,
    )


def path_of(real_data: Path, publisher: str, month: str) -> Path:
    folder = {"dtc": "green", "tlc": "trip-data"}[publisher]
    (path,) = (real_data / "publishers" / publisher / folder).glob(f"green_tripdata_{month}.*")
    return path


def csv_lines(path: Path) -> int:
    """Lines with text, without the header."""
    return sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) - 1


@pytest.mark.parametrize(("publisher", "month"), MONTHS)
def test_months_have_the_published_number_of_rows(real_data: Path, publisher: str, month: str) -> None:
    path = path_of(real_data, publisher, month)
    everything = clean_file(path)
    assert everything.report.rows_written == ROWS[publisher][month]
    assert everything.reasons == [] and everything.report.unknown_columns == {}
    ruled = clean_file(path, DEFAULT_RULES)
    counts = everything.rows.column("passenger_count").to_pandas()
    assert ruled.report.rows_rejected["zero_passengers"] == (counts == 0).sum() > 0
    assert set(ruled.report.rows_rejected) <= {"zero_passengers", "pickup_outside_month"}
    first = pd.Timestamp(month)
    pickups = ruled.rows.column("lpep_pickup_datetime").to_pandas()
    assert pickups.between(first, first + pd.offsets.MonthBegin(), inclusive="left").all()


@pytest.mark.parametrize("month", ROWS["tlc"])
def test_parquet_values_are_those_of_pyarrow(real_data: Path, month: str) -> None:
    path = path_of(real_data, "tlc", month)
    cleaned = clean_file(path).rows
    published = pq.read_table(path)
    for name in published.schema.names:
        values = published.column(name)
        if not pa.types.is_null(values.type):
            assert cleaned.column(name).cast(values.type).equals(values), name
    assert cleaned.column("pickup_longitude").null_count == len(cleaned)


@pytest.mark.parametrize("month", ROWS["dtc"])
def test_csv_values_are_those_of_pandas(real_data: Path, month: str) -> None:
    path = path_of(real_data, "dtc", month)
    cleaned = clean_file(path).rows
    published = pd.read_csv(path, low_memory=False)
    for name in published.columns:
        values = cleaned.column(name).to_pandas()
        if name.endswith("datetime"):
            assert (values == pd.to_datetime(published[name])).all()
        elif name == "store_and_fwd_flag":
            assert values.fillna("").eq(published[name].fillna("")).all()
        else:
            assert np.array_equal(values.to_numpy(float), published[name].to_numpy(float), equal_nan=True), name


def test_eras_lose_only_the_cut_line_at_their_end(real_data: Path) -> None:
    paths = sorted((real_data / "eras").glob("*.csv"))
    assert len(paths) == 28
    for path in paths:
        result = clean_file(path)
        last_line = path.read_bytes().count(b"\n") + 1
        assert result.reasons == [("truncated_line", None, last_line)], path.name
        assert result.report.rows_read == csv_lines(path) and result.report.rows_written >= 4, path.name
        assert result.report.unknown_columns == {}, path.name


def test_samples_are_read_completely(real_data: Path) -> None:
    paths = sorted((real_data / "samples").glob("*.csv"))
    assert len(paths) == 13
    for path in paths:
        result = clean_file(path)
        assert result.reasons == [], path.name
        assert result.report.rows_written == csv_lines(path) >= 300, path.name
        unknown = {"test_bool": 1000} if path.name == "yellow_tripdata_sample_2021.csv" else {}
        assert result.report.unknown_columns == unknown, path.name
        declared = datasets.get(path.name.split("_")[0])
        for name in declared.required:
            assert result.rows.column(name).null_count < len(result.rows), f"{path.name}: {name}"
    indexed = [path.name for path in paths if clean_file(path).report.ignored_columns == [""]]
    assert indexed == ["green_tripdata_2019-01_sample1000.csv", "yellow_tripdata_2009-01_sample1000.csv"]


@pytest.mark.parametrize(("publisher", "unknown"), [("dtc", "NV"), ("tlc", "N/A")])
def test_zones(real_data: Path, publisher: str, unknown: str) -> None:
    result = clean_file(real_data / "publishers" / publisher / "misc" / "taxi_zone_lookup.csv")
    assert result.column("LocationID") == list(range(1, 266))
    assert result.column("Zone")[263] == unknown
    assert all(column.null_count == 0 for column in result.rows.columns)


def test_damaged_files(real_data: Path) -> None:
    damaged = real_data / "damaged"
    resaved = clean_file(damaged / "green_tripdata_2024-03.pandas_resaved.parquet")
    assert resaved.report.rows_written == 57_457 and resaved.reasons == []
    with pytest.raises(UnreadableFile, match="cut off"):
        clean_file(damaged / "green_tripdata_2025-02.truncated.parquet")
    with pytest.raises(
        UnreadableFile, match="lacks VendorID, passenger_count, payment_type, fare_amount, total_amount"
    ):
        clean_file(damaged / "green_tripdata_2022-01.five_columns.parquet")
