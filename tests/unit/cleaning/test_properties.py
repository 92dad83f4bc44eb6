"""Whatever bytes come in: nothing is lost, and the fast path and the exact path agree."""

from __future__ import annotations

import io
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import datasets
from pipeline.cleaning import Report, Rules, clean
from pipeline.cleaning.csv_reader import CsvReader
from pipeline.errors import UnreadableFile

from .support import Result, parquet, run

GREEN = ",".join(datasets.get("green").required).encode()
FHV = b"dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag,test_bool"

#: A column again, and another spelling of one.
REPEATED = FHV + b",SR_FLAG,Dispatching_base_number"

#: Pieces that lines are made of: right values, nearly right ones, and what breaks a CSV reader.
PIECES = st.sampled_from(
    [
        *b', , , , , ,\n,\n,\r\n,\r,","",\''.split(b","),
        *(b",", b",", b",", b",", b"\n", b"\r\n", b"\n\n", b"\r"),
        *(b"1", b"2.0", b"-3", b"+4", b"0x10", b"1e3", b".5", b"nan", b"inf", b"1e999", b"9223372036854775808"),
        *(b"2020-01-01 00:00:00", b"2020-01-01", b"1/31/2020 0:30", b"2020-13-01", b"0000-01-01 00:00:00"),
        *(b"B00001", b"b1 ", b"CMT", b"CSH", b"Y", b"*", b"x", b"\x00", b"\xa0", b"\xc3\xa9", b"\xe2\x80\x83"),
    ]
)
GOOD_GREEN = b"2,2020-01-01 00:00:00,2020-01-01 00:10:00,1,1.5,1,8.5,9"
GOOD_FHV = b"B00001,2020-01-01 00:00:00,2020-01-01 00:10:00,1,2,,f"
GOOD_REPEATED = GOOD_FHV + b",1,B00002"


def lines(good: bytes) -> st.SearchStrategy[bytes]:
    """Good lines, good lines with something odd in one place, and lines of anything."""
    values = good.split(b",")

    def with_piece(position: int, piece: bytes) -> bytes:
        return b",".join([*values[:position], piece, *values[position + 1 :]])

    odd = st.builds(with_piece, st.integers(0, len(values)), PIECES)
    anything = st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=30)
    end = st.sampled_from([b"\n", b"\r\n"])
    return st.builds(bytes.__add__, st.just(good) | odd | anything, end)


def bodies(good: bytes) -> st.SearchStrategy[bytes]:
    return st.builds(bytes.__add__, st.lists(lines(good), max_size=12).map(b"".join), st.just(b"") | PIECES)


def data_lines(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.split(b"\n"))


def exact(data: bytes, dataset: str) -> Result:
    with mock.patch.object(CsvReader, "_is_plain", lambda self, lines: False):
        return run(data, dataset)


@pytest.mark.parametrize(
    ("dataset", "header", "good"),
    [("green", GREEN, GOOD_GREEN), ("fhv", FHV, GOOD_FHV), ("fhv", REPEATED, GOOD_REPEATED)],
    ids=["green", "fhv", "repeated"],
)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_nothing_is_lost_and_both_paths_agree(dataset: str, header: bytes, good: bytes, data: st.DataObject) -> None:
    text = header + b"\n" + data.draw(bodies(good))
    result = run(text, dataset)
    assert result.report.rows_read + result.report.repeated_headers == data_lines(text) - 1
    slow = exact(text, dataset)
    assert result.rows.equals(slow.rows)
    assert result.rejects.equals(slow.rejects)
    assert result.report == slow.report


@settings(max_examples=100, deadline=None)
@given(st.lists(lines(GOOD_FHV), min_size=1, max_size=8), st.sampled_from([b'1,"a\n\n', b'"', b'B1,"', b'"a""\n\n']))
@example([GOOD_FHV + b"\n"], GOOD_FHV.replace(b",f", b',"f') + b"\n\n\n")
def test_quotes_left_open_lose_nothing(body: list[bytes], end: bytes) -> None:
    text = FHV + b"\n" + b"".join(body) + end
    result = run(text, "fhv")
    assert result.report.rows_read == data_lines(text) - 1
    assert result.rejects.equals(exact(text, "fhv").rejects)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(datasets.DATASETS)))
def test_any_bytes_are_rows_or_one_clear_error(data: bytes, dataset: str) -> None:
    try:
        list(clean(io.BytesIO(data), "csv", datasets.get(dataset), None, Rules(), "f", Report()))
    except UnreadableFile as error:
        assert "\n" not in str(error)


ANY_ARRAY = st.one_of(
    st.lists(st.none() | st.floats(), min_size=3, max_size=3).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).map(
        lambda v: pa.array(v, pa.int64())
    ),
    st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=3, max_size=3).map(lambda v: pa.array(v, pa.uint64())),
    st.lists(st.none() | st.text(max_size=20), min_size=3, max_size=3).map(lambda v: pa.array(v, pa.large_string())),
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).flatmap(
        lambda v: st.sampled_from(["ms", "us"]).map(lambda unit: pa.array(v, pa.timestamp(unit)))
    ),
    st.just(pa.nulls(3)),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(datasets.get("yellow").columns), ANY_ARRAY)
def test_a_parquet_column_of_any_type_is_rows_and_rejects_or_one_clear_error(
    column: datasets.Column, array: pa.Array
) -> None:
    declared = datasets.get("yellow")
    table = {name: pa.nulls(3) for name in declared.required} | {column.name: array}
    try:
        result = run(parquet(pa.table(table)), "yellow", "parquet")
    except UnreadableFile as error:
        assert column.name in str(error) and "\n" not in str(error)
    else:
        assert result.report.rows_read == 3
        is_same_type = array.type == column.arrow_type and not column.texts
        if is_same_type and column.type in ("int64", "float64"):
            finite = [value for value in array.to_pylist() if value is None or abs(value) != float("inf")]
            assert result.column(column.name) == [None if value != value else value for value in finite]
