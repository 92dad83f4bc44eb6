"""Small files that expand to gigabytes: rows and rejects within bounds, or one error line."""

from __future__ import annotations

import datetime as dt
import io
import struct
import sys

import pyarrow as pa
import pytest

from pipeline import datasets
from pipeline.cleaning import parquet_file, parquet_reader
from pipeline.cleaning.chunks import Report
from pipeline.cleaning.cleaner import clean
from pipeline.cleaning.rules import Rules
from pipeline.errors import UnreadableFile

from .hostile import CSV, PARQUET, bounded, green, parquet, repeated
from .support import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
REFUSED = {
    "lists of a long text",
    "a long list",
    "one value of 20 MB",
    "larger pages",
    "a larger dictionary",
    "10,000 columns",
    "a header that ends in 900 commas",
    "a header of 1,500 names",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*PARQUET, *CSV])
def test_memory_is_bounded(kind: str) -> None:
    data = {**PARQUET, **CSV}[kind]()
    file_format = "parquet" if kind in PARQUET else "csv"
    report = Report()
    rules = Rules.parse("zero_passengers")
    refused = None
    with bounded():
        try:
            for _ in clean(
                io.BytesIO(data), file_format, datasets.get("green"), dt.date(2020, 4, 1), rules, "the_file", report
            ):
                pass
        except UnreadableFile as error:
            refused = str(error)
    assert (refused is not None) == (kind in REFUSED)
    if refused is not None:
        assert refused.startswith("the_file: ") and "\n" not in refused and len(refused) < 400
    else:
        assert report.rows_read == report.rows_written + report.rejected
        assert all(len(name) < 150 for name in report.unknown_columns)


def test_a_long_text_is_shortened_with_a_mark_in_the_original() -> None:
    data = parquet(green(3, zz=pa.array(["\u00e9" * 5_000, "a" * 4_000, None]), passengers=0))
    first, second, third = run(data, "green", "parquet", "zero_passengers").originals
    assert '"zz": "' + "\\u00e9" * 2_000 + '... (10,000 bytes)"' in first
    assert '"zz": "' + "a" * 4_000 + '"' in second and '"zz": null' in third


def test_a_long_struct_is_shortened_with_a_mark_in_the_original() -> None:
    data = parquet(green(1, zz=pa.array([{"a": "x" * 5_000}]), passengers=0))
    [original] = run(data, "green", "parquet", "zero_passengers").originals
    assert original.endswith('x... (5,009 characters)"}') and 4_000 < len(original) < 4_500


def test_a_text_is_a_value_up_to_its_longest_length() -> None:
    texts = ["\U0001f695" * 1_000, "a" * 1_001, "b"]
    for values in (pa.array(texts), pa.array(texts).dictionary_encode(), pa.array(texts).cast(pa.binary())):
        result = run(parquet(green(3, request_source=values)), "green", "parquet")
        assert result.column("request_source") == [texts[0], "b"]
        assert result.reasons == [("bad_value", "request_source", 2)]


def test_an_identifier_is_a_value_up_to_its_longest_length() -> None:
    names = b"dispatching_base_num,pickup_datetime,dropOff_datetime,PUlocationID,DOlocationID,SR_Flag\n"
    lines = [b"B" * length + b",2020-01-01 00:00:00,2020-01-01 00:10:00,1,2,\n" for length in (1_000, 1_001)]
    result = run(names + b"".join(lines), "fhv")
    assert result.column("dispatching_base_num") == ["B" * 1_000]
    assert result.reasons == [("bad_value", "dispatching_base_num", 3)]


@pytest.mark.parametrize("size", [1, 100, 60_000])
def test_pieces_have_all_rows_in_their_order(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(parquet_reader, "PIECE_BYTES", size)
    sources = [None if i % 7 == 0 else f"source {i % 11}" for i in range(200)]
    data = parquet(green(200, request_source=pa.array(sources), zz=repeated("x" * 500, 200)), row_group_size=60)
    result = run(data, "green", "parquet")
    assert result.column("request_source") == sources
    assert result.report.unknown_columns == {"zz": 200}


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", None])
def test_texts_are_the_same_however_they_are_read(
    monkeypatch: pytest.MonkeyPatch, limit: int, encoding: str | None
) -> None:
    monkeypatch.setattr(parquet_file, "MAX_DISTINCT", limit)
    monkeypatch.setattr(parquet_file, "BATCH_BYTES", 20_000)
    texts = [f"source {i % 50}" for i in range(2_000)]
    options = {"use_dictionary": False, "column_encoding": {"request_source": encoding}} if encoding else {}
    data = parquet(green(2_000, request_source=pa.array(texts)), row_group_size=900, data_page_size=2_000, **options)
    assert run(data, "green", "parquet").column("request_source") == texts


@pytest.mark.parametrize(("limit", "is_found"), [(1_000, True), (100, False)])
def test_arrow_finds_the_distinct_texts_of_small_row_groups_only(
    monkeypatch: pytest.MonkeyPatch, limit: int, is_found: bool
) -> None:
    monkeypatch.setattr(parquet_file, "MAX_DISTINCT", limit)
    stream = io.BytesIO(parquet(green(50, zz=pa.array([f"text {i}" for i in range(50)])), use_dictionary=False))
    [batch] = parquet_file.read_batches(stream, parquet_file.footer(stream))
    assert pa.types.is_dictionary(batch.column("zz").type) == is_found


def test_a_page_that_lies_about_its_size_is_not_believed() -> None:
    data = bytearray(parquet(green(3), compression="none", use_dictionary=False))
    start = 4  # the header of the first page: type, size unpacked, size packed
    assert data[start : start + 3] == b"\x15\x00\x15"
    position = start + 3
    while data[position] & 128:
        position += 1
    size = bytes(data[start + 3 : position + 1])
    for lie in (b"\xfe\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"):
        # As long as before, so that the places in the footer stay right: what follows is then a wrong header.
        with pytest.raises(UnreadableFile, match="the_file: "), bounded():
            run(bytes(data[: start + 3] + lie[: len(size)] + data[position + 1 :]), "green", "parquet")
        with pytest.raises(UnreadableFile, match="the_file: "), bounded():
            run(bytes(data[: start + 3] + lie + data[start + 3 + len(lie) :]), "green", "parquet")


def test_a_footer_that_lies_about_its_length_is_not_believed() -> None:
    data = parquet(green(3))
    for length in (0, 1, 2**31, 2**32 - 1):
        with pytest.raises(UnreadableFile, match="the_file: "), bounded():
            run(data[:-8] + struct.pack("<I", length) + b"PAR1", "green", "parquet")


@pytest.mark.parametrize(
    ("bound", "says"),
    [
        ("MAX_FOOTER", r"the footer of the Parquet file has [1-9],\d{3} bytes, more than the 4 allowed\. Check"),
        ("MAX_FOOTER_LIST", r"damaged or cut off \(.*[Ss]ize limit.*\)\. Check"),
        ("MAX_ROWS", r"the Parquet file claims 12 rows, more than any month has\. Check"),
        ("MAX_STRUCTS", r"damaged or cut off \(.*more parts than any file has.*\)\. Download it again"),
        ("MAX_DATA_PAGES", r"a column of a row group has more than 4 pages\. Have it published with pages of 1 MB"),
        ("MAX_PAGES", r"the pages of the Parquet file take [\d,]+ bytes at once, more than the 4 that are read\. Have"),
        ("MAX_COLUMNS", r"it has 8 columns, more than the 1,000 that are read\. Check"),
    ],
)
def test_each_bound_of_a_parquet_file_is_one_line(monkeypatch: pytest.MonkeyPatch, bound: str, says: str) -> None:
    data = parquet(green(12), row_group_size=6, use_dictionary=False, max_rows_per_page=1)
    assert run(data, "green", "parquet").report.rows_written == 12
    monkeypatch.setattr(parquet_file, bound, 4)
    with pytest.raises(UnreadableFile, match=f"^the_file: .*{says}"):
        run(data, "green", "parquet")


def test_rows_that_arrow_leaves_out_are_missed() -> None:
    lists = pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2))
    with pytest.raises(UnreadableFile, match="fewer rows than its footer says"):
        run(parquet(green(1, zz=lists), data_page_size=1), "green", "parquet")


def test_the_least_integer_as_a_double_is_the_same_whatever_its_neighbours() -> None:
    for values, kept in (([-(2.0**63)], [-(2**63)]), ([-(2.0**63), 1.5, 2.0**63], [-(2**63)])):
        column = pa.array(values)
        result = run(parquet(green(len(values), passenger_count=column)), "green", "parquet")
        assert result.column("passenger_count") == kept
