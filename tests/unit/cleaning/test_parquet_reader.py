"""Parquet values that do not fit, files that are damaged, and columns that nobody knows."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import datasets
from pipeline.cleaning import parquet_reader
from pipeline.cleaning.values import decode, from_arrow
from pipeline.errors import UnreadableFile, WrongFormat

from .support import parquet, run

TIME = dt.datetime(2020, 1, 1)
ROWS = 3


def fhv(**columns: object) -> bytes:
    base = {"dispatching_base_num": ["B1"] * ROWS, "pickup_datetime": [TIME] * ROWS}
    return parquet(pa.table(base | columns))


@pytest.mark.parametrize(
    ("column", "values", "kept", "reason"),
    [
        ("PUlocationID", pa.array([1.0, 1.5, None]), [1, None], "bad_value"),
        ("PUlocationID", pa.array([1.0, 1e300, float("nan")]), [1, None], "bad_value"),
        ("PUlocationID", pa.array([1, 2**63, 2], pa.uint64()), [1, 2], "bad_value"),
        ("PUlocationID", pa.array([Decimal("1.00"), Decimal("1.50"), None]), [1, None], "bad_value"),
        ("PUlocationID", pa.array(["1", "x", "2.0"]), [1, 2], "bad_value"),
        ("SR_Flag", pa.array(["1", "x", ""]), [1, None], "unknown_code"),
        ("dropOff_datetime", pa.array([TIME, None, TIME], pa.timestamp("ms")), [TIME, None, TIME], None),
        (
            "dropOff_datetime",
            pa.array([0, 2**62, None], pa.timestamp("us")),
            [dt.datetime(1970, 1, 1), None],
            "bad_value",
        ),
        ("dropOff_datetime", pa.array(["2020-01-01 00:00:00", "x", None]), [TIME, None], "bad_value"),
        ("dropOff_datetime", pa.array([TIME] * 3, pa.timestamp("us", "UTC")), [TIME] * 3, None),
        ("dropOff_datetime", pa.array([TIME.date()] * 3, pa.date32()), [TIME] * 3, None),
        ("Affiliated_base_number", pa.array([b"b1", b"b\xa0", None]), ["B1", "B", None], None),
        ("Affiliated_base_number", pa.array([1.0, 2.5, None]), ["1", "2.5", None], None),
    ],
)
def test_values(column: str, values: pa.Array, kept: list[object], reason: str | None) -> None:
    result = run(fhv(**{column: values}), "fhv", "parquet")
    assert result.column(column) == kept
    assert result.reasons == ([] if reason is None else [(reason, column, 2)])


def test_decimal_numbers_are_the_nearest_doubles() -> None:
    distances = [Decimal("10.70"), Decimal("10.20"), Decimal("-0.30"), None]
    numbers, bad = from_arrow(pa.array(distances), datasets.get("yellow").column("trip_distance"), Counter())
    assert numbers.to_pylist() == [10.7, 10.2, -0.3, None] and bad is None


def test_the_original_of_a_reject_is_its_row_as_json() -> None:
    data = fhv(
        PUlocationID=pa.array([1.0, 1.5, 2.0]),
        dropOff_datetime=pa.array([0, 2**62, 0], pa.timestamp("us")),
        odd=pa.array([1.0, float("nan"), 1.0]),
        raw=pa.array([b"", b"\xff", b""]),
    )
    (original,) = run(data, "fhv", "parquet").originals
    row = json.loads(original)
    assert list(row) == [
        "dispatching_base_num",
        "pickup_datetime",
        "PUlocationID",
        "dropOff_datetime",
        "odd",
        "raw",
    ]
    assert row["pickup_datetime"] == "2020-01-01 00:00:00.000000"
    assert (row["PUlocationID"], row["odd"], row["raw"]) == (1.5, "nan", "\xff")


@given(
    st.lists(
        st.tuples(
            st.none() | st.text() | st.sampled_from(["plain", 'a "quote"', "back\\slash", "line\n"]),
            st.none() | st.floats(),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.booleans(),
            st.none() | st.datetimes(),
            st.none() | st.dates(),
            st.none() | st.binary(),
        ),
        min_size=1,
    ),
    st.data(),
)
def test_rows_as_json_are_what_python_makes_of_them(rows: list[tuple], data: st.DataObject) -> None:
    types = (pa.string(), pa.float64(), pa.int64(), pa.bool_(), pa.timestamp("us"), pa.date32(), pa.binary())
    names = ['na"me', "float", "integer", "flag", "time", "date", "bytes"]
    batch = pa.record_batch(
        [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)], names
    )
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))

    def plain(value: object) -> object:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dt.datetime):
            return f"{value.replace(year=2000):{value.year:04}-%m-%d %H:%M:%S.%f}"
        if isinstance(value, bytes):
            return decode(value)[0]
        return str(value) if isinstance(value, dt.date) else value

    made = [json.loads(text) for text in parquet_reader._as_json(batch, np.array(chosen, int))]
    assert made == [dict(zip(names, map(plain, rows[i]), strict=True)) for i in chosen]


def test_row_numbers_go_on_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_reader, "BATCH_ROWS", 2)
    result = run(fhv(PUlocationID=pa.array([1.0, 1.0, 1.5])), "fhv", "parquet")
    assert result.reasons == [("bad_value", "PUlocationID", 3)]
    assert result.report.rows_written == 2


def test_unknown_columns_are_kept_out_and_counted() -> None:
    data = fhv(is_new=[True, None, None], __index_level_0__=[0, 1, 2])
    report = run(data, "fhv", "parquet").report
    assert report.unknown_columns == {"is_new": 1}
    assert report.ignored_columns == ["__index_level_0__"]


def test_two_spellings_of_a_column_are_put_together() -> None:
    columns = {
        "Dispatching_base_number": ["B1", "B2", None],
        "Dispatching_base_num": ["B3", None, None],
        "pickup_datetime": [TIME] * 3,
    }
    assert run(parquet(pa.table(columns)), "fhv", "parquet").column("dispatching_base_num") == ["B3", "B2", None]


def test_values_that_two_spellings_of_a_column_disagree_about_are_counted() -> None:
    columns = {
        "Dispatching_base_number": ["B1", "B2", "B3", None],
        "Dispatching_base_num": ["B2", "b2 ", None, "B4"],
        "pickup_datetime": [TIME] * 4,
    }
    assert run(parquet(pa.table(columns)), "fhv", "parquet").report.unknown_columns == {
        "Dispatching_base_number (beside Dispatching_base_num)": 1
    }


@pytest.mark.parametrize("again", ["PUlocationID", "PULOCATIONID"])
def test_a_repeated_column_is_kept_out_and_counted(again: str) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["B1"] * 3), pa.array([TIME] * 3), pa.array([1, None, 3]), pa.array(["any", "type", None])],
        ["dispatching_base_num", "pickup_datetime", "PUlocationID", again],
    )
    result = run(parquet(table), "fhv", "parquet")
    assert result.reasons == [] and result.column("PUlocationID") == [1, None, 3]
    assert result.report.unknown_columns == {f"{again} (2nd)": 2}


def test_a_repeated_column_of_words_is_kept_out_and_counted() -> None:
    names = ["dispatching_base_num", "pickup_datetime", "dispatching_base_num"]
    table = pa.Table.from_arrays([pa.array(["B1"] * 3), pa.array([TIME] * 3), pa.array(["B2", "B2", None])], names)
    result = run(parquet(table), "fhv", "parquet")
    assert result.column("dispatching_base_num") == ["B1"] * 3
    assert result.report.unknown_columns == {"dispatching_base_num (2nd)": 2}


def test_a_file_without_rows() -> None:
    report = run(
        parquet(pa.table({"dispatching_base_num": pa.nulls(0), "pickup_datetime": pa.nulls(0)})), "fhv", "parquet"
    )
    assert report.report.rows_read == 0


def test_a_type_that_can_never_mean_the_column_is_an_error_for_the_file() -> None:
    with pytest.raises(UnreadableFile, match=r"the_file: column dropOff_datetime has the type int64.*timestamp"):
        run(fhv(dropOff_datetime=[1, 2, 3]), "fhv", "parquet")
    with pytest.raises(UnreadableFile, match="column PUlocationID has the type struct"):
        run(fhv(PUlocationID=[{"a": 1}] * 3), "fhv", "parquet")


def test_damaged_files() -> None:
    data = fhv()
    with pytest.raises(UnreadableFile, match="the_file: the Parquet file is damaged or cut off"):
        run(data[:-10], "fhv", "parquet")
    with pytest.raises(UnreadableFile, match="damaged"):
        run(data[:4] + b"\xff" * 100 + data[104:], "fhv", "parquet")
    with pytest.raises(WrongFormat, match="the_file: no Parquet file"):
        run(b"<html>", "fhv", "parquet")
    with pytest.raises(UnreadableFile, match="no green file, it lacks VendorID"):
        run(data, "green", "parquet")
