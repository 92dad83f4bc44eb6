"""Files as tools write them: read as a person would, counted as repaired, or refused in one line with the cause."""

from __future__ import annotations

import codecs
import datetime as dt
import gzip
import io
import zipfile
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import datasets
from pipeline.cleaning import csv_reader
from pipeline.datasets import MONTHLY, Column
from pipeline.errors import UnreadableFile, WrongFormat

from .support import Result, parquet, run

NAMES = (*datasets.get("green").required, "store_and_fwd_flag", "ehail_fee", "request_source")
HEADER = ",".join(NAMES)
ROW = "2,2020-04-01 00:00:02,2020-04-01 01:00:23,1,1.68,1,8,9.3,N,,app"
VALUES = dict(zip(NAMES, ROW.split(","), strict=True))
PLAIN = "\n".join([HEADER, *[ROW] * 4, ""])
ZONES = "LocationID,Borough,Zone,service_zone\n"


def green(*rows: str, header: str = HEADER) -> Result:
    return run("\n".join([header, *rows, ""]).encode(), "green")


def row(**values: str) -> str:
    return ",".join((VALUES | values).values())


# -- line ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [csv_reader.BLOCK_SIZE, 300, 301, 302, 303])
@pytest.mark.parametrize(
    ("end", "repaired"), [(b"\n", {}), (b"\r\n", {}), (b"\r", {"line_ends": 7}), (b"\r\r\n", {"line_ends": 7})]
)
def test_lines_end_as_tools_end_them(end: bytes, repaired: dict[str, int], block_size: int) -> None:
    text = "\n".join([HEADER, ROW, row(fare_amount="x"), ROW, "", ROW, ROW, ""])
    whole = run(text.encode(), "green")
    with mock.patch.object(csv_reader, "BLOCK_SIZE", block_size):
        result = run(text.encode().replace(b"\n", end), "green")
    assert result.rows.equals(whole.rows) and result.rejects.equals(whole.rejects)
    assert result.reasons == [("bad_value", "fare_amount", 3)]
    assert result.report.blank_lines == 1
    assert result.report.repaired == repaired


def test_line_ends_may_be_mixed() -> None:
    data = PLAIN.encode().replace(b"\n", b"\r\n", 1).replace(ROW.encode() + b"\n", ROW.encode() + b"\r", 1)
    result = run(data, "green")
    assert result.report.rows_written == 4 and result.reasons == []
    assert result.report.repaired == {"line_ends": 1}


def test_many_returns_in_a_row_take_no_time() -> None:
    result = run(HEADER.encode() + b"\r" * 2_000_000 + ROW.encode() + b"\r" * 2_000_000 + b"\n", "green")
    assert result.report.rows_written == 1


def test_the_end_sign_of_dos_is_no_row() -> None:
    result = run(PLAIN.encode() + b"\x1a", "green")
    assert result.reasons == [] and result.report.blank_lines == 1


# -- encodings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Governor\x92s Island", "Governor\u2019s Island"),
        (b"\x80 \x93quoted\x94 \x85", "\u20ac \u201cquoted\u201d \u2026"),
        (b"Caf\xe9", "Café"),
        (b"\x81\x8d.\x8f\x90.\x9d", ".\x8f\x90."),  # bytes that it has no characters for
        ("Café".encode() + b" d\x92or", "Café d\u2019or"),  # of two files put together; what is UTF-8 stays
    ],
)
def test_bytes_that_are_not_utf_8_are_windows_1252(raw: bytes, text: str) -> None:
    data = (ZONES + "1,EWR,").encode() + raw + b",EWR\n2,Queens,Jamaica Bay,Boro Zone\n"
    result = run(data, "zones")
    assert result.column("Zone") == [text, "Jamaica Bay"]
    assert result.report.repaired["windows_1252"] == 1


@pytest.mark.parametrize("marks", [1, 2, 3])
def test_byte_order_marks_at_the_beginning_are_nothing(marks: int) -> None:
    result = run(codecs.BOM_UTF8 * marks + PLAIN.encode(), "green")
    assert result.report.rows_written == 4 and result.report.repaired == {}


def test_gzip_files_put_together_have_marks_and_headers_in_their_midst() -> None:
    one = gzip.compress(codecs.BOM_UTF8 + PLAIN.encode())
    two = gzip.compress(codecs.BOM_UTF8 + HEADER.upper().encode() + b"\r\n" + ROW.encode() + b"\r\n")
    result = run(one + two, "green", "csv.gz")
    assert (result.report.rows_written, result.report.repeated_headers, result.reasons) == (5, 1, [])
    assert result.report.repaired == {"byte_order_marks": 1}


@pytest.mark.parametrize("block_size", [csv_reader.BLOCK_SIZE, 200])
def test_a_byte_order_mark_before_a_row_is_no_part_of_its_first_value(block_size: int) -> None:
    row = b"\xef\xbb\xbf\xef\xbb\xbf" + ROW.encode()
    with mock.patch.object(csv_reader, "BLOCK_SIZE", block_size):
        result = run(PLAIN.encode() + row + b"\n" + b'\xef\xbb\xbf"2"' + ROW[1:].encode() + b"\n", "green")
    assert result.column("VendorID") == [2] * 6
    assert result.report.repaired == {"byte_order_marks": 2}


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.csv", data)
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (gzip.compress(PLAIN.encode()), "gzip inside gzip, not CSV"),
        (gzip.compress(gzip.compress(PLAIN.encode())), "gzip inside gzip, not CSV"),
        (PLAIN.encode("utf-16"), "UTF-16, not UTF-8"),
        (PLAIN.encode("utf-16-le"), "UTF-16, not UTF-8"),
        (PLAIN.encode("utf-16-be"), "UTF-16, not UTF-8"),
        (PLAIN.encode("utf-32"), "UTF-32, not UTF-8"),
        (PLAIN.encode("utf-32-be"), "UTF-32, not UTF-8"),
        (zipped(PLAIN.encode()), "a zip archive or Excel workbook inside gzip, not CSV"),
        (b"\xfd7zXZ\0\0\4" + bytes(range(100)), "xz inside gzip, not CSV"),
        (b"\x28\xb5\x2f\xfd" + bytes(range(100)), "Zstandard inside gzip, not CSV"),
        (parquet(pa.table({"a": [1]})), "Parquet inside gzip, not CSV"),
        (b"\n <!DOCTYPE html>\n<html>no</html>", "an HTML page inside gzip, not CSV"),
        (b"<Error><Code>AccessDenied</Code></Error>", "XML inside gzip, not CSV"),
        (b'[{"VendorID": 2}]', "JSON inside gzip, not CSV"),
        (bytes(1000), "nothing but NUL bytes inside gzip, not CSV"),
    ],
)
def test_another_format_is_named(content: bytes, cause: str) -> None:
    with pytest.raises(UnreadableFile) as error:
        run(gzip.compress(content), "green", "csv.gz")
    assert f"the_file: the file is {cause}." in str(error.value) and "\n" not in str(error.value)


def test_another_format_in_place_of_gzip_or_parquet_is_named() -> None:
    with pytest.raises(WrongFormat, match="the_file: no gzip file but Parquet"):
        run(parquet(pa.table({"a": [1]})), "green", "csv.gz")
    with pytest.raises(WrongFormat, match="the_file: no Parquet file but gzip"):
        run(gzip.compress(PLAIN.encode()), "green", "parquet")


@pytest.mark.parametrize(("sign", "title"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_another_separator_is_named(sign: str, title: str) -> None:
    with pytest.raises(UnreadableFile, match=f"the_file: the values are separated by {title}, not commas"):
        run(PLAIN.replace(",", sign).encode(), "green")


# -- values ------------------------------------------------------------------------------------

NO_VALUE = ["NA", "<NA>", "#N/A", "#N/A N/A", "#NA", "N/A", "n/a", "NULL", "null", "None", "nan", "-nan", "NaN", "-NaN"]


@pytest.mark.parametrize("word", [*NO_VALUE, "1.#QNAN", "-1.#IND", "\\N", "NaT"])
@pytest.mark.parametrize("name", NAMES[:-1])
def test_what_stands_for_no_value_is_null_in_all_but_text(word: str, name: str) -> None:
    result = green(ROW, row(**{name: word}), row(**{name: f'" {word} "'}))
    assert result.reasons == []
    assert result.column(name)[1:] == [None, None] and result.column("total_amount")[0] == 9.3
    assert result.report.repaired == {"na_values": 2}


@pytest.mark.parametrize("word", NO_VALUE)
def test_what_stands_for_no_value_elsewhere_is_text_in_text(word: str) -> None:
    assert green(row(request_source=word)).column("request_source") == [word]
    assert run(f"{ZONES}264,Unknown,{word},N/A\n".encode(), "zones").column("Zone") == [word]
    base = run(f"dispatching_base_num,pickup_datetime\n{word},2020-01-01 00:00:00\n".encode(), "fhv")
    assert base.column("dispatching_base_num") == [word.upper()]


def test_the_payment_na_of_yellow_2010_is_a_code() -> None:
    data = "vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,payment_type,fare_amount,"
    line = "CMT,2010-02-05 10:00:00,2010-02-05 10:10:00,1,0.5,NA ,4.5,6.5"
    assert run(f"{data}total_amount\n{line}\n".encode(), "yellow").column("payment_type") == [5]


FLAGS = [(name, column) for name in MONTHLY for column in datasets.get(name).columns if "Y" in column.texts]
SAMPLES = {"int64": "1", "float64": "1.5", "string": "", "timestamp": "2020-01-01 00:00:00"}


@pytest.mark.parametrize(("name", "column"), FLAGS, ids=lambda value: getattr(value, "name", value))
def test_flags_that_a_tool_took_for_booleans(name: str, column: Column) -> None:
    declared = datasets.get(name)
    names = [*(other for other in declared.required if other != column.name), column.name]
    values = [SAMPLES[declared.column_for(other).type] for other in names[:-1]]
    words = ["True", "False", "true", "FALSE", "t", "F", "1", "0", "1.0", "0.00", "Y", "n", ""]
    lines = [",".join([*values, word]) for word in words]
    yes, no = ("Y", "N") if column.type == "string" else (1, 0)
    result = run("\n".join([",".join(names), *lines, ""]).encode(), name)
    assert result.reasons == []
    assert result.column(column.name) == [yes, no] * 6 + [None]
    assert result.report.repaired == {"booleans": 6}
    table = {other: pa.nulls(3) for other in declared.required} | {column.name: pa.array([True, False, None])}
    typed = run(parquet(pa.table(table)), name, "parquet")
    assert typed.column(column.name) == [yes, no, None]
    assert typed.report.repaired == {"booleans": 2}


@pytest.mark.parametrize("sign", ["\x00", "\x01", "\x1f", "\x7f", "\x85", "\x92", "\u200b", "\u2060", "\ufeff", "\xa0"])
def test_what_nobody_sees_is_trimmed_from_text_as_from_all_values(sign: str) -> None:
    table = pa.table(
        {
            "LocationID": [f"{sign}1{sign}", "2"],
            "Borough": [f"{sign} EWR {sign}", "Queens"],
            "Zone": [f"a{sign}{sign}b" if sign != "\0" else "ab", f"{sign}"],
            "service_zone": ["EWR", " "],
        }
    )
    result = run(parquet(table), "zones", "parquet")
    assert result.column("LocationID") == [1, 2] and result.column("Borough") == ["EWR", "Queens"]
    assert result.column("Zone") == [table["Zone"][0].as_py(), None] and result.column("service_zone") == ["EWR", None]
    if sign != "\0":  # in a CSV file it is no text at all
        lines = [",".join(f'"{value}"' for value in line.values()) for line in table.to_pylist()]
        assert run((ZONES + "\n".join(lines) + "\n").encode(), "zones").rows.equals(result.rows)
    if sign not in "\x1f\x85\xa0":  # blanks to Python
        assert result.report.repaired["control_characters"] == 3


# -- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [
        HEADER,
        "\ufeff" + HEADER,
        HEADER.lower(),
        HEADER.upper(),
        HEADER.replace(",", " , "),
        '"' + HEADER.replace(",", '","') + '"',
        '\ufeff"' + HEADER.upper().replace(",", '","') + '"',
        HEADER + ",",
        HEADER + ",,",
        HEADER.replace("VendorID", "vendor_id"),
    ],
)
def test_a_repeated_header_is_none_of_the_rows(again: str) -> None:
    once = PLAIN + again + "\n" + ROW
    for text, times in ((once, 1), (once + "\n" + again + "\n", 2)):
        result = run(text.encode(), "green")
        assert result.reasons == []
        assert result.report.rows_read == 5 and result.report.repeated_headers == times


def test_two_files_in_one_with_other_columns_are_refused() -> None:
    first, second = NAMES[3], NAMES[4]
    other = HEADER.replace(first, "x").replace(second, first).replace("x", second)
    for header in (other, HEADER + ",new", HEADER.removesuffix(",request_source")):
        with pytest.raises(UnreadableFile, match="the_file: line 6 is another header with other columns"):
            run((PLAIN + header + "\n" + ROW + "\n").encode(), "green")


INDEXES = ["", "Unnamed: 0", "Unnamed: 0.1", "Unnamed: 0.1.1", "Unnamed: 7", "__index_level_0__", "index_level_0"]


@pytest.mark.parametrize("name", [*INDEXES, "index", "level_0", "_c0", "...1"])
@pytest.mark.parametrize("values", ["0,1,2,3", "0.0,1.0,2.0,3.0", ",,,"])
def test_an_index_is_ignored_and_not_told_as_drift(name: str, values: str) -> None:
    lines = [f"{value},{ROW}" for value in values.split(",")]
    result = green(*lines, header=f"{name},{HEADER}")
    assert result.reasons == [] and result.column("VendorID") == [2] * 4
    assert result.report.ignored_columns == [name] and result.report.unknown_columns == {}


@pytest.mark.parametrize(("name", "told"), [("Unnamed: 20", "Unnamed: 20"), ("", "column 12, without a name")])
def test_a_column_without_a_name_that_holds_something_is_told(name: str, told: str) -> None:
    rows = [f"{ROW},{value}" for value in ("north", "", "1")]
    result = green(*rows, header=f"{HEADER},{name}")
    assert result.reasons == [] and result.report.unknown_columns == {told: 1}


def test_two_indexes_and_a_comma_at_the_end() -> None:
    lines = [f"1,1,{ROW}," for _ in range(3)]
    result = green(*lines, header=f"Unnamed: 0.1,Unnamed: 0,{HEADER},Unnamed: 20")
    assert result.reasons == [] and result.report.unknown_columns == {}
    assert result.report.ignored_columns == ["Unnamed: 0.1", "Unnamed: 0", "Unnamed: 20"]


@pytest.mark.parametrize("neighbours", [[], [ROW], [ROW + ","], [ROW + ",,"], ["x"], [ROW.replace("app", "\xa0")]])
@pytest.mark.parametrize("ending", ["", ",", ",,", ",,,"])
@pytest.mark.parametrize("commas", ["", ",", ",,"])
def test_commas_at_the_end_mean_the_same_whatever_the_neighbours(
    commas: str, ending: str, neighbours: list[str]
) -> None:
    """Header and rows with and without values for columns that have no name."""
    rows = [*neighbours, ROW + ending, *neighbours]
    result = run("\n".join([HEADER + commas, *rows, ""]).encode("latin-1"), "green")
    assert result.report.rows_written == len(rows) - rows.count("x")
    assert {reason for reason, _, _ in result.reasons} <= {"too_few_values"}
    assert result.report.unknown_columns == {}


@pytest.mark.parametrize("commas", ["", ","])
def test_a_row_with_too_many_or_too_few_values_stays_a_reject(commas: str) -> None:
    result = green(ROW, ROW + ",,,1", ROW.removesuffix(",app"), header=HEADER + commas)
    assert result.reasons == [("too_many_values", None, 3), ("too_few_values", None, 4)]


# -- the zone table ----------------------------------------------------------------------------


def test_a_zone_that_stands_twice_is_kept_once() -> None:
    lines = "41,Manhattan,Central Harlem,Boro Zone\n56,Queens,Corona,Boro Zone\n"
    result = run((ZONES + lines + "56,Queens,Corona ,Boro Zone\n,,,\n,,,\n").encode(), "zones")
    assert result.column("LocationID") == [41, 56, None, None]
    assert result.reasons == [("duplicate_key", "LocationID", 4)]
    assert result.originals == ["56,Queens,Corona ,Boro Zone"]
    assert result.report.unreadable == 0


def test_a_zone_that_stands_twice_in_two_ways_is_an_error_for_the_file() -> None:
    lines = "56,Queens,Corona,Boro Zone\n103,Manhattan,Ellis Island,Yellow Zone\n103,Manhattan,Liberty Island,\n"
    with pytest.raises(UnreadableFile, match="the_file: rows 3 and 4 both have LocationID 103 but differ"):
        run((ZONES + lines).encode(), "zones")


def test_zones_are_kept_once_across_blocks() -> None:
    lines = "".join(f"{number % 7},Queens,Corona,Boro Zone\n" for number in range(50))
    with mock.patch.object(csv_reader, "BLOCK_SIZE", 100):
        result = run((ZONES + lines).encode(), "zones")
    assert result.column("LocationID") == list(range(7))
    assert result.report.rows_rejected == {"duplicate_key": 43}


# -- another month's file ----------------------------------------------------------------------


def test_pickups_are_counted_by_month_where_most_are_of_another() -> None:
    rows = [ROW] * 5 + [row(lpep_pickup_datetime=time) for time in ("2020-05-01 00:00:00", "", "2008-12-31 23:59:59")]
    data = "\n".join([HEADER, *rows, ""]).encode()
    report = run(data, "green", month=dt.date(2020, 5, 1), rules="pickup_outside_month").report
    assert report.pickups_in_month == 1 and report.other_months == {"2020-04": 5, "2008-12": 1}
    report = run(data, "green", month=dt.date(2020, 4, 1)).report
    assert report.pickups_in_month == 5 and report.other_months == {}


# -- INT96, which Spark and Hive write ----------------------------------------------------------


@pytest.mark.parametrize("year", [1, 1677, 1849, 2020, 2262, 3019, 9999])
def test_int96_times_of_all_years(year: int) -> None:
    time = dt.datetime(year, 2, 3, 17, 30, 0, 123456)
    table = pa.table({"dispatching_base_num": ["B1", "B1"], "pickup_datetime": pa.array([time, None])})
    sink = io.BytesIO()
    pq.write_table(table, sink, use_deprecated_int96_timestamps=True)
    assert "INT96" in str(pq.read_schema(sink)) or pq.ParquetFile(sink).schema.column(1).physical_type == "INT96"
    assert run(sink.getvalue(), "fhv", "parquet").column("pickup_datetime") == [time, None]
