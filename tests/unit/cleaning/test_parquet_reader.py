"""Parquet values that do not fit, damaged files, and undeclared columns."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import datasets
from pipeline.cleaning import parquet_file, parquet_reader
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
    numbers, bad = from_arrow(pa.array(distances), datasets.get("yellow").column_for("trip_distance"), Counter())
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
    monkeypatch.setattr(parquet_file, "BATCH_ROWS", 2)
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


NOT_UTF_8 = pa.array([b"1", b"\xff\x92", b"N"])
LARGEST = pa.array([2**62, 0, None])
ODD_COLUMNS = {
    "half": pa.array([1, 0.5, None], pa.float16()),
    "view": pa.array(["1", "x", None], pa.string_view()),
    "bytes view": pa.array([b"1", b"\x92", None], pa.binary_view()),
    "fixed bytes": pa.array([b"1", b"2", None], pa.binary(1)),
    "not UTF-8": NOT_UTF_8.view(pa.string()),
    "not UTF-8, large": NOT_UTF_8.cast(pa.large_binary()).view(pa.large_string()),
    "not UTF-8, dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1, 1]), NOT_UTF_8.view(pa.string())),
    "NUL": pa.array(["a\0b", "1\0", None]),
    "small decimal": pa.array([Decimal("1.5"), Decimal("2.00"), None], pa.decimal32(5, 2)),
    "large decimal": pa.array([Decimal("1.5"), Decimal("2.00"), None], pa.decimal256(50, 2)),
    "date": pa.array([2**31 - 1, 0, None], pa.int32()).view(pa.date32()),
    "date in milliseconds": pa.array([2**62 // 86_400_000 * 86_400_000, 0, None]).view(pa.date64()),
    "time": LARGEST.view(pa.time64("us")),
    "milliseconds": LARGEST.view(pa.timestamp("ms")),
    "zone": LARGEST.view(pa.timestamp("us", "America/New_York")),
    "zone nobody knows": LARGEST.view(pa.timestamp("us", "Mars/Olympus")),
    "duration": LARGEST.view(pa.duration("us")),
    "list of times": pa.array([[2**62], [], None], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("us"))),
    "struct": pa.array([{"a": 1}, {"a": None}, None]),
    "struct of times": pa.array([{"a": TIME}, None, None], pa.struct([("a", pa.timestamp("us", "Mars/Olympus"))])),
    "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "categories": pa.array([1, 2, None]).dictionary_encode(),
    "uuid": pa.array([b"1" * 16] * 3, pa.uuid()),
}


@pytest.mark.parametrize("kind", ODD_COLUMNS)
@pytest.mark.parametrize("int96", [False, True])
@pytest.mark.parametrize(
    "column", ["pickup_datetime", "PUlocationID", "SR_Flag", "Affiliated_base_number", "other", "__index_level_0__"]
)
def test_an_odd_column_is_rows_and_rejects_or_one_clear_error(column: str, int96: bool, kind: str) -> None:
    table = {"dispatching_base_num": ["B1"] * 3, "pickup_datetime": [TIME, None, TIME]} | {column: ODD_COLUMNS[kind]}
    sink = io.BytesIO()
    pq.write_table(pa.table(table), sink, use_deprecated_int96_timestamps=int96)
    try:  # each row is either read or refused by the reader or one of these rules, and then written down as JSON
        result = run(sink.getvalue(), "fhv", "parquet", "pickup_outside_month,missing_times", dt.date(2019, 1, 1))
    except UnreadableFile as error:
        assert "\n" not in str(error) and (column in str(error) or "UTF8" in str(error))
    else:
        assert result.report.rows_read == result.report.rejected == 3
        assert all(isinstance(json.loads(original), dict) for original in result.originals)


def test_text_that_is_not_utf_8_is_windows_1252_and_counted() -> None:
    result = run(fhv(Affiliated_base_number=NOT_UTF_8.view(pa.string())), "fhv", "parquet")
    assert result.column("Affiliated_base_number") == ["1", "\u0178\u2019", "N"]  # upper case of y with diaeresis
    assert result.report.repaired == {"windows_1252": 1}


def test_decimals_are_exact_where_doubles_are_not() -> None:
    large = [Decimal("9007199254740993"), Decimal("9007199254740993.5"), Decimal("-9007199254740993")]
    result = run(fhv(PUlocationID=pa.array(large)), "fhv", "parquet")
    assert result.column("PUlocationID") == [9007199254740993, -9007199254740993]
    assert result.reasons == [("bad_value", "PUlocationID", 2)]


@pytest.mark.parametrize("scale", [0, 6, 7, 9, 18])
def test_zeros_and_small_decimals_of_any_scale(scale: int) -> None:
    numbers = pa.array([0, None, 265]).cast(pa.decimal128(38, scale))
    assert run(fhv(PUlocationID=numbers), "fhv", "parquet").column("PUlocationID") == [0, None, 265]
    tiny = pa.array([Decimal(0), Decimal(1).scaleb(-scale), Decimal(-2)], pa.decimal128(38, scale))
    values, bad = from_arrow(tiny, datasets.get("green").column_for("fare_amount"), Counter())
    assert (values.to_pylist(), bad) == ([0.0, float(f"1e-{scale}"), -2.0], None)


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize(("unit", "per_second"), [("ms", 1_000), ("us", 1_000_000)])
def test_times_at_the_limits_of_what_is_held(unit: str, per_second: int, zone: str | None) -> None:
    first = (dt.datetime.min - dt.datetime(1970, 1, 1)) // dt.timedelta(seconds=1) * per_second
    last = (dt.datetime.max - dt.datetime(1970, 1, 1)) // dt.timedelta(seconds=1) * per_second + per_second - 1
    times = pa.array([-(2**63) + 1, first - 1, first, last, last + 1, 2**63 - 1]).view(pa.timestamp(unit, zone))
    table = {"dispatching_base_num": ["B1"] * 6, "pickup_datetime": times}
    result = run(parquet(pa.table(table)), "fhv", "parquet")
    assert result.column("pickup_datetime")[0] == dt.datetime.min
    assert result.column("pickup_datetime")[1].replace(microsecond=0) == dt.datetime.max.replace(microsecond=0)
    assert [line for _, _, line in result.reasons] == [1, 2, 5, 6]


def test_a_zone_that_leads_out_of_the_years_makes_rejects() -> None:
    last = (dt.datetime.max - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    times = pa.array([last, 0, last - 1]).view(pa.timestamp("us", "+05:00"))
    result = run(fhv(dropOff_datetime=times), "fhv", "parquet")
    assert result.column("dropOff_datetime") == [dt.datetime(1970, 1, 1, 5)]
    assert [line for _, _, line in result.reasons] == [1, 3]


def test_a_footer_whose_text_is_not_utf_8_is_damage() -> None:
    data = parquet(pa.table({"dispatching_base_num": ["B1"], "pickup_datetime": [TIME]}))
    with pytest.raises(UnreadableFile, match="the_file: "):
        run(data.replace(b"pickup_datetime", b"\xffickup_datetime"), "fhv", "parquet")


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
