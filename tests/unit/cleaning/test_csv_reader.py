"""Malformed CSV lines: counted, refused with the reason, and never lost."""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Callable
from unittest import mock

import pytest

from pipeline import datasets
from pipeline.cleaning import csv_reader, values
from pipeline.cleaning.cleaner import clean
from pipeline.cleaning.csv_reader import split
from pipeline.cleaning.rules import Rules
from pipeline.errors import UnreadableFile, UsageError, WrongFormat

from .support import run

HEADER = b"dispatching_base_num,pickup_datetime,dropOff_datetime,PUlocationID,DOlocationID,SR_Flag\r\n"
GOOD = b"B00001,2020-01-01 00:00:00,2020-01-01 00:10:00,1,2,\r\n"


def fhv(*lines: bytes) -> bytes:
    return HEADER + b"".join(lines)


@pytest.mark.parametrize(
    ("line", "reject"),
    [
        (b"B00001,2020-01-01 00:00:00,2020-01-01 00:10:00,1\r\n", ("too_few_values", None)),
        (b"B00001,2020-01-01 00:00:00,2020-01-01 00:10:00,1,2,,x\r\n", ("too_many_values", None)),
        (b"B00001,2020-01-01 00:00:00,yesterday,1,2,\r\n", ("bad_value", "dropOff_datetime")),
        (b"B00001,2020-02-30 00:00:00,,1,2,\r\n", ("bad_value", "pickup_datetime")),
        (b"B00001,0000-01-01 00:00:00,,1,2,\r\n", ("bad_value", "pickup_datetime")),
        (b"B00001,31/1/2020 00:30,,1,2,\r\n", ("bad_value", "pickup_datetime")),
        (b"B00001,2020-01-01 00:00:00Z,,1,2,\r\n", ("bad_value", "pickup_datetime")),
        (b"B00001,2020-01-01 00:00:00,,one,2,\r\n", ("bad_value", "PUlocationID")),
        (b"B00001,2020-01-01 00:00:00,,0x10,2,\r\n", ("bad_value", "PUlocationID")),
        (b"B00001,2020-01-01 00:00:00,,1.5,2,\r\n", ("bad_value", "PUlocationID")),
        (b"B00001,2020-01-01 00:00:00,,9223372036854775808,2,\r\n", ("bad_value", "PUlocationID")),
        (b"B00001,2020-01-01 00:00:00,,1,2,yes\r\n", ("unknown_code", "SR_Flag")),
        (b'B00001,2020-01-01 00:00:00,,1,2,"1\r\n', ("unclosed_quote", None)),
        (b"B00\x00001,2020-01-01 00:00:00,,1,2,\r\n", ("not_text", None)),
        (b"<html>\r\n", ("too_few_values", None)),
    ],
)
def test_a_line_that_does_not_fit_is_refused_with_reason_place_and_text(line: bytes, reject: tuple[str, str]) -> None:
    result = run(fhv(GOOD, b"\r\n", line, GOOD), "fhv")
    assert result.reasons == [(*reject, 4)]
    assert result.originals == [line.decode().removesuffix("\r\n")]
    assert result.rejects.column("source_file").to_pylist() == ["the_file"]
    assert (result.report.rows_read, result.report.rows_written) == (3, 2)
    assert (result.report.unreadable, result.report.blank_lines) == (1, 1)
    first = result.report.first_unreadable
    assert first is not None and (first.reason, first.column, first.line) == (*reject, 4)


def test_numbers_in_the_spellings_that_occur() -> None:
    line = b"b00001 ,2020-01-01 00:00:00, 2020/1/1 9:05 ,1.0, 2 ,+1\r\n"
    result = run(fhv(line), "fhv")
    assert result.reasons == []
    row = result.rows.to_pylist()[0]
    assert row["dispatching_base_num"] == "B00001"
    assert row["dropOff_datetime"].isoformat() == "2020-01-01T09:05:00"
    assert (row["PUlocationID"], row["DOlocationID"], row["SR_Flag"]) == (1, 2, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-01-31 00:30:00.5", "2020-01-31T00:30:00.500000"),
        ("2020-01-31 00:30:00.1234567", "2020-01-31T00:30:00.123456"),
        ("2020-01-31T00:30", "2020-01-31T00:30:00"),
        ("2020-01-31", "2020-01-31T00:00:00"),
        ("1/31/2020 0:30", "2020-01-31T00:30:00"),
        ("01/02/2020 12:30:00 AM", "2020-01-02T00:30:00"),
        ("1/2/2020 12:30 PM", "2020-01-02T12:30:00"),
    ],
)
def test_times_in_the_spellings_that_occur(text: str, expected: str) -> None:
    result = run(fhv(b"B1,%s,,,,\n" % text.encode()), "fhv")
    assert [time.isoformat() for time in result.column("pickup_datetime")] == [expected]


@pytest.mark.parametrize("word", ["", " ", "NaN", "null", "\\N"])
def test_no_value_is_null(word: str) -> None:
    result = run(fhv(b"B1,2020-01-01 00:00:00,2020-01-01 00:00:00,%s,2,\n" % word.encode()), "fhv")
    assert result.column("PUlocationID") == [None]


def test_floats_must_be_finite() -> None:
    header = ",".join(datasets.get("green").required).encode()
    line = b"\n2,2020-01-01 00:00:00,2020-01-01 00:00:00,1,%s,1,2,3"
    result = run(header + b"".join(line % word for word in (b"nan", b"inf", b"1e999", b".5", b"5.", b"-1e2")), "green")
    assert result.column("trip_distance") == [None, 0.5, 5.0, -100.0]
    assert result.reasons == [("bad_value", "trip_distance", 3), ("bad_value", "trip_distance", 4)]


def test_a_word_without_a_code_is_refused_and_a_number_without_one_kept() -> None:
    header = ",".join(datasets.get("green").required).encode()
    line = b"\n%s,2020-01-01 00:00:00,2020-01-01 00:00:00,1,1,%s,2,3"
    result = run(header + line % (b"XYZ", b"1") + line % (b"6", b"GOLD") + line % (b"9", b"77") * 2, "green")
    assert result.reasons == [("unknown_code", "VendorID", 2), ("unknown_code", "payment_type", 3)]
    assert "XYZ" in result.originals[0] and "GOLD" in result.originals[1]
    assert result.column("VendorID") == [9, 9]
    assert result.report.unknown_codes == {"VendorID": {"9": 2}, "payment_type": {"77": 2}}


def test_distinct_unknown_codes_are_bounded() -> None:
    header = ",".join(datasets.get("green").required).encode()
    line = b"\n%d,2020-01-01 00:00:00,2020-01-01 00:00:00,1,1,1,2,3"
    codes = run(header + b"".join(line % code for code in range(1000, 1250)), "green").report.unknown_codes["VendorID"]
    assert len(codes) == 101 and codes["(others)"] == 150 and codes.total() == 250


def test_what_the_report_keeps_of_the_file_is_short() -> None:
    header = b"hvfhs_license_num,dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID\n"
    line = b"%s,B00001,2021-01-01 00:00:00,2021-01-01 00:10:00,1,%s\n"
    data = header + b"".join(line % (b"H" * length, b"2") for length in (100, 101, 500)) + line % (b"H", b"x" * 1_000)
    result = run(data, "fhvhv")
    assert result.report.unknown_codes == {"hvfhs_license_num": {"H" * 100: 1, "(others)": 2}}
    assert result.originals == [(line % (b"H", b"x" * 1_000)).decode().rstrip()]
    first = result.report.first_unreadable
    assert first is not None and first.original == result.originals[0][:200]


def test_repeated_headers_and_blank_lines_are_no_rows() -> None:
    result = run(b"\n \n" + fhv(b" \t\r\n", GOOD, HEADER, b"\r\n", GOOD, HEADER.replace(b"\r", b"")), "fhv")
    report = result.report
    assert (report.rows_read, report.rows_written, report.repeated_headers, report.blank_lines) == (2, 2, 2, 4)


def test_a_stray_line_break_makes_two_short_lines() -> None:
    result = run(fhv(GOOD, GOOD[:20] + b"\n" + GOOD[20:], GOOD), "fhv")
    assert result.reasons == [("too_few_values", None, 3), ("too_few_values", None, 4)]
    assert "".join(result.originals) == GOOD.decode().rstrip()


def test_a_line_break_in_quotes_makes_two_lines_too() -> None:
    line = b'B00001,2020-01-01 00:00:00,"\n",1,2,\n'
    result = run(fhv(line, GOOD), "fhv")
    assert [reason for reason, _, _ in result.reasons] == ["unclosed_quote", "unclosed_quote"]
    assert result.report.rows_written == 1


def test_rows_split_and_joined_in_equal_number_are_noticed() -> None:
    """Arrow joins lines within quotes: to it the quoted lines are one row, as many as there are line feeds."""
    line = GOOD.removesuffix(b"\r\n")
    result = run(fhv(GOOD, line + b"\r" + line + b"\n", line + b'"1\n', b'"\n', GOOD), "fhv")
    assert [reason for reason, _, _ in result.reasons] == ["unclosed_quote", "unclosed_quote"]
    assert result.report.rows_written == 4


def test_windows_1252_is_read_and_counted() -> None:
    result = run(fhv(b"B00001\xa0,2020-01-01 00:00:00,,1,2,\n", GOOD, b"B\xe9,x,,1,2,\n"), "fhv")
    assert result.column("dispatching_base_num") == ["B00001", "B00001"]
    assert result.report.repaired == {"windows_1252": 2}
    assert result.originals == ["B\xe9,x,,1,2,"]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert run(b"\xef\xbb\xbf" + fhv(GOOD), "fhv").column("dispatching_base_num") == ["B00001"]


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
def test_a_line_cut_off_at_the_end_is_refused_unless_it_is_whole(cut: int) -> None:
    line = GOOD.replace(b",\r\n", b",1\r\n")
    result = run(fhv(GOOD, line[:cut]), "fhv")
    assert result.report.rows_read == 2
    has_all_values = line[:cut].count(b",") == 5
    assert result.reasons == ([] if has_all_values else [("truncated_line", None, 3)])


def test_a_cut_value_that_does_not_parse_is_a_truncated_line() -> None:
    header = b"dispatching_base_num,pickup_datetime\n"
    result = run(header + b"B1,2020-01-01 00:00:00\nB1,2020-01-", "fhv")
    assert result.reasons == [("truncated_line", "pickup_datetime", 3)]


def test_a_cut_line_is_recognised_where_rows_have_more_values_than_names() -> None:
    surplus = GOOD.replace(b"\r\n", b",,\r\n")
    result = run(fhv(surplus, surplus, surplus[:-3]), "fhv")
    assert result.reasons == [("truncated_line", None, 4)]
    assert result.report.surplus_values == 2


def test_an_index_column_is_ignored_and_an_unknown_one_counted() -> None:
    data = b",dispatching_base_num,pickup_datetime,test_bool\n0,B1,2020-01-01 00:00:00,f\n1,B1,2020-01-01 00:00:00,\n"
    report = run(data, "fhv").report
    assert report.ignored_columns == [""]
    assert report.unknown_columns == {"test_bool": 1}
    assert report.rows_written == 2


def test_a_repeated_column_is_kept_out_and_counted() -> None:
    header = ",".join((*datasets.get("green").required, "fare_amount", " FARE_AMOUNT ")).encode()
    line = b"\n2,2020-01-01 00:00:00,2020-01-01 00:00:00,1,1,1,%s,3"
    result = run(header + line % b"2" + b",0.5,x" + line % b"" + b",0.5,", "green")
    assert result.reasons == [] and result.column("fare_amount") == [2, None]
    assert result.report.unknown_columns == {"fare_amount (2nd)": 2, "FARE_AMOUNT (3rd)": 1}
    assert result.report.ignored_columns == []


def test_values_that_two_spellings_of_a_column_disagree_about_are_counted() -> None:
    header = b"Dispatching_base_number,Dispatching_base_num,pickup_datetime"
    lines = (b"B1,B2", b"B2,b2 ", b"B3,", b",B4", b",")
    result = run(header + b"".join(b"\n%s,2018-01-01 00:00:00" % line for line in lines), "fhv")
    assert result.column("dispatching_base_num") == ["B2", "B2", "B3", "B4", None]
    assert result.report.unknown_columns == {"Dispatching_base_number (beside Dispatching_base_num)": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\r\n", "is empty"),
        (b"<!DOCTYPE html>\n<html></html>\n", "is an HTML page, not CSV"),
        (b"VendorID,lpep_pickup_datetime\n1,2020-01-01 00:00:00\n", "no fhv file"),
        (b"\x00\x01\x02" * 1000, "no fhv file"),
    ],
)
def test_a_file_that_is_something_else_is_refused_as_a_whole(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableFile, match=message) as error:
        run(data, "fhv")
    assert "the_file" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_file_without_line_ends_is_refused_before_it_fills_the_memory() -> None:
    with mock.patch.object(csv_reader, "BLOCK_SIZE", 1000), pytest.raises(UnreadableFile, match="longer than 1,000"):
        run(HEADER + b"x" * 5000, "fhv")


def test_a_header_without_rows_is_a_file_without_rows() -> None:
    assert run(HEADER, "fhv").report.rows_read == 0
    assert run(HEADER.rstrip(), "fhv").report.rows_read == 0


@pytest.mark.parametrize("block_size", [100, 150, 333])
def test_blocks_may_end_anywhere(block_size: int) -> None:
    lines = [GOOD, b"\r\n", GOOD.replace(b"B00001", b"B1"), b"short\r\n", HEADER, GOOD] * 5
    whole = run(fhv(*lines), "fhv")
    with mock.patch.object(csv_reader, "BLOCK_SIZE", block_size):
        pieces = run(fhv(*lines), "fhv")
    assert pieces.rows.equals(whole.rows) and pieces.rejects.equals(whole.rejects)
    assert pieces.report == whole.report


def test_gzip() -> None:
    data = fhv(GOOD, b"short\n")
    packed = gzip.compress(data)
    assert run(packed, "fhv", "csv.gz").rows.equals(run(data, "fhv").rows)
    assert run(packed + gzip.compress(GOOD), "fhv", "csv.gz").report.rows_read == 3
    assert run(packed + bytes(700), "fhv", "csv.gz").rows.equals(run(data, "fhv").rows), "padding is no damage"
    with pytest.raises(WrongFormat, match="the_file: no gzip file"):
        run(b"<html>", "fhv", "csv.gz")


@pytest.mark.parametrize(
    "how",
    [
        lambda packed: packed[:-20],
        lambda packed: packed[:-8],
        lambda packed: packed[:4],
        lambda packed: packed + b"garbage",
        lambda packed: packed + b"\x1f",
        lambda packed: packed + b"\0\0\0\0x",
        lambda packed: packed[:-8] + bytes(byte ^ 1 for byte in packed[-8:-4]) + packed[-4:],
        lambda packed: packed[:-1] + bytes([packed[-1] ^ 1]),
        lambda packed: packed[:-8] + bytes(8),
    ],
    ids=["cut", "no trailer", "short", "trailing", "one more", "padded garbage", "bad CRC", "bad length", "zeros"],
)
def test_damaged_gzip(how: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnreadableFile, match=r"the_file: the gzip file is damaged or cut off"):
        run(how(gzip.compress(fhv(GOOD, b"short\n"))), "fhv", "csv.gz")


def test_a_file_that_unpacks_to_more_than_any_month_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "MOST_BYTES", 50_000_000)
    with pytest.raises(UnreadableFile, match="the_file: it unpacks to more than 50000000 bytes, which no month has"):
        run(gzip.compress(fhv(GOOD) + b"\n" * 60_000_000, 1), "fhv", "csv.gz")


def test_nobody_reads_on_after_an_error_or_an_early_end() -> None:
    others = set(threading.enumerate())  # servers of other tests may still be running

    def readers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread not in others]

    data = fhv(GOOD * 300_000)
    for format, content in (("csv", data), ("csv.gz", gzip.compress(data, 1))):
        with pytest.raises(UnreadableFile) as caught:  # it keeps the frames alive, as a log of it does
            run(content, "green", format)
        assert readers() == [], caught.value
        pieces = clean(io.BytesIO(content), format, datasets.get("fhv"), None, Rules.parse("none"), "the_file")
        next(pieces)
        pieces.close()
        assert readers() == []


def test_an_unknown_format_names_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'xlsx'.*csv, csv\.gz, parquet"):
        run(b"", "fhv", "xlsx")


@pytest.mark.parametrize(
    ("text", "fields", "is_closed"),
    [
        ("a,b", ["a", "b"], True),
        ("", [""], True),
        (",", ["", ""], True),
        ('"a,b",c', ["a,b", "c"], True),
        ('"a""b"c,d', ['a"bc', "d"], True),
        ('a"b,c', ['a"b', "c"], True),
        ('a,"', ["a", ""], False),
        ('a,"b,""c', ["a", 'b,"c'], False),
        ('"",', ["", ""], True),
    ],
)
def test_split(text: str, fields: list[str], is_closed: bool) -> None:
    assert split(text) == (fields, is_closed)


@pytest.mark.parametrize("size", [csv_reader.BLOCK_SIZE, 150])
def test_only_the_last_line_of_a_file_is_cut(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(csv_reader, "BLOCK_SIZE", size)
    line, few = GOOD.strip(), b"B00001,2020-01-01 00:00:00"
    bad = line.replace(b"2020-01-01 ", b"2020-13-01 ", 1)
    start = HEADER + line + b"\n" + few + b"\r" + bad + b"\r" + line + b"\r"
    reasons = [("too_few_values", None, 3), ("bad_value", "pickup_datetime", 4)]
    assert run(start + few, "fhv").reasons == [*reasons, ("truncated_line", None, 6)]
    assert run(start + bad + b"\r ", "fhv").reasons == [*reasons, ("bad_value", "pickup_datetime", 6)]


@pytest.mark.parametrize("lines", [1, 3])
def test_parts_of_a_block_are_read_like_the_whole(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    data = fhv(GOOD * 3, b"\r\n", b"x\r\n", b" \r\n", GOOD, b"\xef\xbb\xbf" + GOOD, b"y\r", GOOD * 2, b"B0,2020")
    whole = run(data, "fhv")
    monkeypatch.setattr(csv_reader, "MAX_LINES", lines)
    parts = run(data, "fhv")
    assert parts.rows.equals(whole.rows) and parts.rejects.equals(whole.rejects) and parts.report == whole.report


def test_a_number_of_a_million_digits_takes_no_time() -> None:
    for value in (b"1" * 1_000_000 + b"x", b"1." + b"0" * 1_000_000 + b"x", b"." + b"1" * 1_000_000 + b"ex"):
        assert run(fhv(GOOD.replace(b",1,2,", b"," + value + b",2,")), "fhv").reasons == [
            ("bad_value", "PUlocationID", 2)
        ]
        with pytest.raises(ValueError, match="1"):
            values.parse_float(value.decode())
