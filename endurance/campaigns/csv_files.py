"""CSV files with something odd in them, read in four ways and by an oracle that knows nothing of Arrow."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline import datasets
from pipeline.cleaning import csv_reader
from pipeline.cleaning.chunks import Report
from pipeline.cleaning.cleaner import clean
from pipeline.cleaning.csv_reader import CsvReader
from pipeline.cleaning.rules import Rules
from pipeline.datasets.schema import Column, Dataset
from pipeline.errors import DamagedFile

from ..campaign import Campaign, Difference

Row = dict[str, Any]
#: (reason, column, line, original)
Rejected = tuple[str, str | None, int, str]

#: What takes the place of a value: nearly right ones, and what breaks readers.
ODD = [
    *(b"", b" ", b"1", b"2.0", b"-3", b"+4", b"0x10", b"1e3", b".5", b"5.", b"1.50", b"nan", b"inf", b"-inf", b"1e999"),
    *(b"1e-400", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"1.0000000000000001"),
    *(b"0.1000000000000000055511151231257827", b"9007199254740993", b"9007199254740993.0", b"1_000", b"1,5", b"--1"),
    *(b"2020-04-01 00:00:00", b"2020-04-01", b"4/30/2020 0:30", b"2020-13-01", b"0000-01-01 00:00:00", b"2020-4-1 7"),
    *(b"2020-04-01T10:11:12.123456789", b"2020-04-01 24:00:00", b"4/1/2020 12:05 PM", b"2020-02-30", b"9999-12-31"),
    *(b"2020-04-01 00:00:00Z", b"2020-04-01 00:00:00+01:00", b"20200401", b"2020-04-01 00:00:60", b"1/1/0001"),
    *(
        b"B00001",
        b"b1 ",
        b"CMT",
        b"CSH",
        b"cash",
        b"Y",
        b"y",
        b"N",
        b"*",
        b"x",
        b"\x00",
        b"a\x00b",
        b"\xa0",
        b"\xc3\xa9",
    ),
    *(b"NA", b"#N/A", b"<NA>", b"null", b"None", b"TRUE", b"f", b"\x1a", b"\xef\xbb\xbf", b"\x92", b"\xc3\xa9\x92"),
    *(b'"', b'""', b'"a', b'a"', b'"a"b', b'"a,b"', b'"1"', b' "1"', b'"1" ', b"'1'", b'"a""b"', b"1\x1f", b"\x1f"),
    *(
        b"\xef\xbb\xbf1",
        b"1\xef\xbb\xbf",
        b"\xe2\x80\x83",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x9a\x95",
        b"\xff\xfe",
        b"\xe2\x80",
    ),
    *(
        b"x" * 1000,
        b"x" * 1001,
        b"1" * 400,
        b"0" * 400 + b"1",
        b"0." + b"3" * 500,
        b"\t1\t",
        b"1\x0b",
        b"\x85",
        b"\xc2\x85",
    ),
]
#: What is put anywhere.
STRAY = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\r\n",
    b"\n\n",
    b",",
    b",,",
    b'"',
    b'""',
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xff",
    b" ",
    b"\x1a",
]

INVISIBLE = {*range(0x21), *range(0x7F, 0xA1), 0xAD, 0x1680, *range(0x2000, 0x2010), *range(0x2028, 0x2030)}
INVISIBLE |= {*range(0x205F, 0x2065), 0x3000, 0xFEFF}
UNSEEN = "".join(map(chr, sorted(INVISIBLE)))
NOTHING = {
    "",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NAN",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NAN",
}
NOTHING |= {"NAT", "NONE", "NULL", "\\N"}
CLOCK = r"([ T]+(\d{1,2})(:(\d\d)(:(\d\d)(\.(\d{1,9}))?)?)?( ?([AP])M)?)?"
YEAR_FIRST = re.compile(r"(\d{4})([-/])(\d{1,2})\2(\d{1,2})" + CLOCK, re.ASCII | re.IGNORECASE)
MONTH_FIRST = re.compile(r"(\d{1,2})([-/])(\d{1,2})\2(\d{4})" + CLOCK, re.ASCII | re.IGNORECASE)


class CsvFiles(Campaign):
    name = "csv"
    what = "mutated CSV files: no row is lost, and all ways to read them give what Python's csv module and Decimal say"
    slice = 30

    def attempt(self, chance: random.Random, folder: Path) -> str:
        dataset = datasets.get(chance.choice(["green", "fhv", "yellow", "fhvhv"]))
        data = _file(chance, dataset)
        (folder / "file.csv").write_bytes(data)
        longest = max(map(len, re.split(rb"[\r\n]", data)), default=0) + 8
        ways: dict[str, Callable[[], Any]] = {
            "fast": lambda: _read(data, dataset),
            "exact": lambda: _read(data, dataset, _is_plain=lambda self, lines: False),
            "split": lambda: _read(data, dataset, _arrow=lambda self, lines, types: None),
            "in small blocks": lambda: _read(data, dataset, chance.randint(longest, longest + 400)),
            "in parts, packed": lambda: _read(data, dataset, packed=True, lines=chance.randint(1, 5)),
        }
        results = {way: read() for way, read in ways.items()}
        first = results["fast"]
        for way, result in results.items():
            if result != first:
                raise Difference(f"{dataset.name}, read fast and {way}: {_unlike(first, result)}")
        if isinstance(first, str):
            if "\n" in first:
                raise Difference(f"more than one line: {first!r}")
            return "refused"
        expected = Oracle(dataset).read(data)
        if expected is None:
            raise Difference("read, and it should be refused: a second header with other columns")
        if first != expected:
            raise Difference(f"{dataset.name}, ours and the oracle's: {_unlike(first, expected)}")
        return "rows and rejects" if first[1] else "rows"


def _unlike(one: Any, other: Any) -> str:
    """Where two results part, in a few words."""
    if isinstance(one, str) or isinstance(other, str):
        return f"{str(one)[:200]} / {str(other)[:200]}"
    for title, ours, others in zip(("row", "reject"), one, other, strict=True):
        for number in range(max(len(ours), len(others))):
            a = ours[number] if number < len(ours) else None
            b = others[number] if number < len(others) else None
            if a == b:
                continue
            if isinstance(a, dict) and isinstance(b, dict):
                a, b = ({key: row[key] for key in row if a[key] != b[key]} for row in (a, b))
            return f"{title} {number}: {str(a)[:200]} / {str(b)[:200]}"
    return "no difference"


# -- files -----------------------------------------------------------------------------------------


def _file(chance: random.Random, dataset: Dataset) -> bytes:
    """A file of the dataset with up to five oddities."""
    columns = [column for column in dataset.columns if column.name in dataset.required or chance.random() < 0.4]
    names = [chance.choice([column.name, *column.aliases]) for column in columns]
    names = [chance.choice([str, str, str.upper, str.lower, " {}".format])(name) for name in names]
    lines = [[_value(chance, column) for column in columns] for _ in range(chance.randint(1, 12))]
    for _ in range(chance.choice([0, 0, 0, 1, 2])):  # columns that nobody knows, or once more
        extra = chance.choice(["new", "", names[0], "Unnamed: 0", "index", "new"])
        place = chance.choice([0, len(names), chance.randint(0, len(names))])
        names.insert(place, extra)
        for line in lines:
            line.insert(place, chance.choice([b"", b"7", b"x"]))
    header = ",".join(names).encode() + b"," * chance.choice([0, 0, 0, 1, 2])
    for _ in range(chance.choice([0, 1, 1, 2, 3, 5])):
        line = chance.choice(lines)
        if line:
            line[chance.randrange(len(line))] = chance.choice(ODD)
    ends = chance.choice([[b"\n"], [b"\r\n"], [b"\n", b"\r\n"], [b"\r"], [b"\r\r\n"], [b"\n", b"\r", b"\r\n"]])
    rows = [header, *(b",".join(line) + b"," * chance.choice([0, 0, 0, 0, 1, 2]) for line in lines)]
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        again = chance.choice([header, header.upper(), b"", b" ", chance.choice(rows), b"\xef\xbb\xbf", b"\x1a"])
        rows.insert(chance.randint(1, len(rows)), again)
    data = b"\xef\xbb\xbf" * chance.choice([0, 0, 0, 1, 2]) + b"".join(row + chance.choice(ends) for row in rows)
    if chance.random() < 0.2:
        data = data[: -chance.randint(1, 30)]
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2])):
        place = chance.randint(min(len(header) + 6, len(data)), len(data))
        kind = chance.random()
        if kind < 0.6:
            data = data[:place] + chance.choice(STRAY) + data[place:]
        elif kind < 0.8:
            data = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        else:
            data = data[:place] + data[place + chance.randint(1, 20) :]
    return data


def _value(chance: random.Random, column: Column) -> bytes:
    if chance.random() < 0.1:
        return b""
    if column.type == "timestamp":
        return f"2020-04-{chance.randint(1, 30):02} {chance.randrange(24):02}:{chance.randrange(60):02}:00".encode()
    if column.type == "float64":
        return f"{chance.randint(-100, 5000) / 100:.2f}".encode()
    if column.texts:
        return chance.choice([text for text in column.texts if text.isprintable()]).encode()
    return str(chance.randint(1, 265)).encode() if column.type == "int64" else b"B%05d" % chance.randrange(100)


# -- ours ------------------------------------------------------------------------------------------


def _read(
    data: bytes,
    dataset: Dataset,
    block: int = csv_reader.BLOCK_SIZE,
    packed: bool = False,
    lines: int = csv_reader.MAX_LINES,
    **patches: Any,
) -> tuple[list[Row], list[Rejected]] | str:
    """Rows and rejects, or the line that says why there are none."""
    report = Report()
    stream = io.BytesIO(gzip.compress(data, 1) if packed else data)
    rows: list[Row] = []
    rejects: list[Rejected] = []
    with _patched(block, lines, patches):
        try:
            for piece in clean(stream, "csv.gz" if packed else "csv", dataset, None, Rules(), "the file", report):
                rows += piece.rows.to_pylist()
                rejects += [
                    (each["reason"], each["column"], each["source_line"], each["original"])
                    for each in piece.rejects.to_pylist()
                ]
        except DamagedFile as error:
            return str(error).replace(" inside gzip", "")
    if report.rows_read != len(rows) + len(rejects):
        raise Difference(f"{report.rows_read} rows read are {len(rows)} and {len(rejects)}")
    return rows, rejects


@contextmanager
def _patched(block: int, lines: int, patches: dict[str, Any]) -> Iterator[None]:
    with (
        mock.patch.object(csv_reader, "BLOCK_SIZE", block),
        mock.patch.object(csv_reader, "MAX_LINES", lines),
        mock.patch.multiple(CsvReader, **patches) if patches else mock.patch.object(csv_reader, "THREADS", 2),
    ):
        yield


# -- the oracle ------------------------------------------------------------------------------------


class Oracle:
    """Reads line by line what docs and declarations promise, with nothing but Python."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def read(self, data: bytes) -> tuple[list[Row], list[Rejected]] | None:
        """Rows and rejects; None for two files in one."""
        while data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        lines = re.sub(rb"\r+\n|\r", b"\n", data).split(b"\n")
        self.names: list[str] = []
        width = None
        rows: list[Row] = []
        rejects: list[Rejected] = []
        for number, line in enumerate(lines, 1):
            while line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
            if not line.strip(bytes(range(1, 33))):
                continue
            text = decoded(line)
            values, is_closed = _split(text)
            if not self.names:
                self._header(values)
                continue
            is_last = number == len(lines)
            reason, column = None, None
            if "\0" in text:
                reason = "not_text"
            elif is_last and (len(values) < (width or self.needed) or not is_closed):
                reason = "truncated_line"
            elif not is_closed:
                reason = "unclosed_quote"
            elif len(values) < self.needed:
                reason = "too_few_values"
            elif any(value.strip() for value in values[len(self.names) :]):
                reason = "too_many_values"
            else:
                width = min(len(values), width or len(values))
                row, bad = self._row(values)
                if bad is None:
                    rows.append(row)
                    continue
                reason = "truncated_line" if is_last else "unknown_code" if bad.codes else "bad_value"
                column = bad.name
            meanings = self._meanings(values)
            if meanings == self._meanings(self.names):
                continue
            if set(self.dataset.required) <= set(meanings):
                return None
            rejects.append((reason, column, number, text))
        return rows, rejects

    def _header(self, values: list[str]) -> None:
        self.names = [value.strip(UNSEEN) for value in values]
        self.needed = max((i + 1 for i, name in enumerate(self.names) if name), default=0)

    def _meanings(self, values: list[str]) -> list[str]:
        columns = [(self.dataset.column_for(value.strip(UNSEEN)), value.strip(UNSEEN).lower()) for value in values]
        meanings = [column.name if column else value for column, value in columns]
        while meanings and not meanings[-1]:
            meanings.pop()
        return meanings

    def _row(self, values: list[str]) -> tuple[Row, Column | None]:
        """The row, and the first column whose value does not fit."""
        found: dict[str, list[tuple[bool, Any]]] = {}
        seen: set[str] = set()
        for i, name in enumerate(self.names):
            column = self.dataset.column_for(name)
            if column is None or name.lower() in seen:
                continue
            seen.add(name.lower())
            try:
                value = meaning(values[i] if i < len(values) else "", column)
            except ValueError:
                return {}, column
            found.setdefault(column.name, []).append((name.lower() != column.name.lower(), value))
        row: Row = {}
        for column in self.dataset.columns:
            candidates = sorted(found.get(column.name, []), key=lambda each: each[0])
            row[column.name] = next((value for _, value in candidates if value is not None), None)
        return row, None


def decoded(line: bytes) -> str:
    text = ""
    while True:
        try:
            return text + line.decode()
        except UnicodeDecodeError as error:
            wrong = line[error.start : error.end]
            text += line[: error.start].decode()
            text += "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in wrong)
            line = line[error.end :]


def _split(text: str) -> tuple[list[str], bool]:
    """The values, and whether the last quote is closed: otherwise the csv module takes the next line too."""
    following = list(csv.reader([text, "x"]))
    if len(following) == 2:
        return following[0], True
    return next(csv.reader([text])), False


def meaning(text: str, column: Column) -> Any:
    """What a text means in a column; ``ValueError`` if it means nothing."""
    text = text.strip(UNSEEN)
    upper = text.upper()
    if column.texts or column.upper:
        if upper in column.texts:
            return column.texts[upper]
        if not column.texts:
            if "\0" in upper or len(upper) > 1000:
                raise ValueError(text)
            return upper or None
        number = _whole(text)
        return number if column.type == "int64" or number is None else column.texts.get(str(number), str(number))
    if column.type == "string":
        if "\0" in text or len(text) > 1000:
            raise ValueError(text)
        return text or None
    if column.type == "int64":
        return _whole(text)
    if upper in NOTHING:
        return None
    return _number(text) if column.type == "float64" else _time(text)


def _whole(text: str) -> int | None:
    if text.upper() in NOTHING:
        return None
    digits, _, zeros = text.partition(".")
    if zeros.strip("0") or not digits.lstrip("+-").isascii() or not digits.lstrip("+-").isdecimal() or "_" in digits:
        raise ValueError(text)
    number = int(digits)
    if not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _number(text: str) -> float:
    if not text.isascii() or not re.fullmatch(r"[-+0-9.eE]+", text):
        raise ValueError(text)
    try:
        number = float(Decimal(text))
    except (InvalidOperation, OverflowError):
        raise ValueError(text) from None
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


def _time(text: str) -> dt.datetime:
    if match := YEAR_FIRST.fullmatch(text):
        year, month, day = int(match[1]), int(match[3]), int(match[4])
    elif match := MONTH_FIRST.fullmatch(text):
        year, month, day = int(match[4]), int(match[1]), int(match[3])
    else:
        raise ValueError(text)
    hour, minute, second = (int(match[group] or 0) for group in (6, 8, 10))
    if half := match[14]:
        if not 1 <= hour <= 12:
            raise ValueError(text)
        hour = hour % 12 + 12 * (half in "Pp")
    micro = int((match[12] or "0").ljust(6, "0")[:6])
    return dt.datetime(year, month, day, hour, minute, second, micro)
