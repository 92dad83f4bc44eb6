"""Published files: publishers' months, eras, samples and damaged ones."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import datasets
from pipeline.cleaning.cleaner import FORMATS
from pipeline.errors import UnreadableFile

from ...real_data import ROWS, csv_files, csv_lines, damaged, month_in, path_of, zones_of
from .support import Result, run

DEFAULT_RULES = "zero_passengers,pickup_outside_month"

MONTHS = [(publisher, month) for publisher, months in ROWS.items() for month in months]
assert MONTHS, "tests/data has some"


def clean_file(path: Path, rules: str = "none") -> Result:
    return clean_bytes(path.name, path.read_bytes(), rules)


def clean_bytes(name: str, data: bytes, rules: str = "none") -> Result:
    dataset = name.split("_")[0]
    month = month_in(name)
    return run(
        data,
        dataset if dataset in datasets.DATASETS else "zones",
        next(format for format in reversed(FORMATS) if name.endswith("." + format)),
        rules,
        dt.date.fromisoformat(f"{month}-01") if month else None,
        name,
    )


@pytest.mark.parametrize(("publisher", "month"), MONTHS)
def test_months_have_the_published_number_of_rows(publisher: str, month: str) -> None:
    path = path_of(publisher, month)
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
def test_parquet_values_are_those_of_pyarrow(month: str) -> None:
    path = path_of("tlc", month)
    cleaned = clean_file(path).rows
    published = pq.read_table(path)
    for name in published.schema.names:
        values = published.column(name)
        if not pa.types.is_null(values.type):
            assert cleaned.column(name).cast(values.type).equals(values), name
    assert cleaned.column("pickup_longitude").null_count == len(cleaned)


@pytest.mark.parametrize("month", ROWS["dtc"])
def test_csv_values_are_those_of_pandas(month: str) -> None:
    path = path_of("dtc", month)
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


def test_eras_lose_only_the_cut_line_at_their_end() -> None:
    files = csv_files("eras")
    assert len(files) >= 28 and {name.split("_")[0] for name in files} == {*datasets.MONTHLY}
    for name, data in files.items():
        result = clean_bytes(name, data)
        last_line = data.count(b"\n") + 1
        assert result.reasons == [("truncated_line", None, last_line)], name
        assert result.report.rows_read == csv_lines(data) and result.report.rows_written >= 4, name
        assert result.report.unknown_columns == {}, name


def test_samples_are_read_completely() -> None:
    files = csv_files("samples")
    assert len(files) >= 11
    for name, data in files.items():
        result = clean_bytes(name, data)
        assert result.reasons == [], name
        assert result.report.rows_written == csv_lines(data) >= 300, name
        unknown = {"test_bool": 1000} if name == "yellow_tripdata_sample_2021.csv" else {}
        assert result.report.unknown_columns == unknown, name
        declared = datasets.get(name.split("_")[0])
        for required in declared.required:
            assert result.rows.column(required).null_count < len(result.rows), f"{name}: {required}"
    indexed = [name for name, data in files.items() if clean_bytes(name, data).report.ignored_columns == [""]]
    assert indexed == ["green_tripdata_2019-01_sample1000.csv", "yellow_tripdata_2009-01_sample1000.csv"]


@pytest.mark.parametrize(("publisher", "unknown"), [("dtc", "NV"), ("tlc", "N/A")])
def test_zones(publisher: str, unknown: str) -> None:
    result = clean_file(zones_of(publisher))
    assert result.column("LocationID") == list(range(1, 266))
    assert result.column("Zone")[263] == unknown
    assert all(column.null_count == 0 for column in result.rows.columns)


def test_a_month_that_broke_off() -> None:
    for path in damaged("truncated"):
        with pytest.raises(UnreadableFile, match="cut off"):
            clean_file(path)


def test_a_month_that_was_reduced_to_five_columns(tmp_path: Path) -> None:
    columns = ["lpep_pickup_datetime", "lpep_dropoff_datetime", "PULocationID", "DOLocationID", "trip_distance"]
    reduced = tmp_path / "green_tripdata_2020-04.parquet"
    pq.write_table(pq.read_table(path_of("tlc", "2020-04"), columns=columns), reduced)
    for path in (reduced, *damaged("five_columns")):
        with pytest.raises(
            UnreadableFile, match="lacks VendorID, passenger_count, payment_type, fare_amount, total_amount"
        ):
            clean_file(path)


def test_a_month_that_pandas_saved_again(tmp_path: Path) -> None:
    resaved = tmp_path / "green_tripdata_2020-04.parquet"
    pd.read_parquet(path_of("tlc", "2020-04")).to_parquet(resaved)
    for path in (resaved, *damaged("pandas_resaved")):
        result = clean_file(path)
        assert result.report.rows_written == pq.read_metadata(path).num_rows and result.reasons == [], path


def as_csv(trips: pd.DataFrame, **options: Any) -> bytes:
    return trips.to_csv(**options).encode("utf-8-sig")


def as_parquet(trips: pd.DataFrame, **options: Any) -> bytes:
    sink = io.BytesIO()
    trips.to_parquet(sink, **options)
    return sink.getvalue()


def with_booleans(trips: pd.DataFrame) -> pd.DataFrame:
    return trips.assign(store_and_fwd_flag=trips["store_and_fwd_flag"].map({"Y": True, "N": False}))


REWRITTEN: dict[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "an index": ("csv", as_csv),
    "an index, saved twice": ("csv", lambda trips: as_csv(trips.reset_index().rename(columns={"index": "Unnamed: 0"}))),
    "NA and CR CR LF": ("csv", lambda trips: as_csv(trips, na_rep="NA", index=False, lineterminator="\r\r\n")),
    "nan, quotes and CR": (
        "csv",
        lambda trips: as_csv(trips, na_rep="nan", quoting=csv.QUOTE_ALL, lineterminator="\r"),
    ),
    "American times": ("csv", lambda trips: as_csv(trips, index=False, date_format="%m/%d/%Y %H:%M:%S")),
    "booleans": ("csv", lambda trips: as_csv(with_booleans(trips), index=False)),
    "nullable booleans": ("parquet", lambda trips: as_parquet(with_booleans(trips).convert_dtypes())),
    "three indexes": ("parquet", lambda trips: as_parquet(trips.reset_index().reset_index(), index=True)),
    "milliseconds": ("parquet", lambda trips: as_parquet(trips, coerce_timestamps="ms")),
    "INT96": ("parquet", lambda trips: as_parquet(trips, use_deprecated_int96_timestamps=True)),
    "categories": ("parquet", lambda trips: as_parquet(trips.astype({"store_and_fwd_flag": "category"}))),
    "texts": ("parquet", lambda trips: as_parquet(trips.astype(str))),
}


@pytest.mark.parametrize("tool", REWRITTEN)
def test_a_published_file_that_a_tool_saved_again_has_the_same_rows(tool: str) -> None:
    rows = pq.read_table(path_of("tlc", "2020-04")).slice(20_000, 5_000)
    format, save = REWRITTEN[tool]
    again = run(save(rows.to_pandas()), "green", format)
    published = io.BytesIO()
    pq.write_table(rows, published)
    assert again.rows.equals(run(published.getvalue(), "green", "parquet").rows)
    assert again.reasons == [] and again.report.unknown_columns == {}
