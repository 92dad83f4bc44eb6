"""Parquet files of odd types against an oracle in plain Python, and damaged ones in processes of their own."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import datasets
from pipeline.cleaning import parquet_file, parquet_reader
from pipeline.cleaning.chunks import Report
from pipeline.cleaning.cleaner import clean
from pipeline.cleaning.rules import Rules
from pipeline.datasets.schema import Column, Dataset
from pipeline.errors import DamagedFile, PipelineError
from tests.unit.cleaning.hostile import most_resident, resident_now

from ..campaign import Campaign, Difference
from .csv_files import ODD, decoded, meaning

#: Megabytes of resident memory that cleaning a file may add to a process, which has some 150 before.
MOST = 320
#: Files that are damaged at random in one attempt.
DAMAGED = 4

#: A value that its column cannot hold, a type that no value of its column can have, and what is left to other tests.
BAD, REFUSED, SKIP = object(), object(), object()
EPOCH = dt.datetime(1970, 1, 1)
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
#: The meaning of a raw value in a column.
Meaning = Callable[[Any, Column], Any]


class ParquetFiles(Campaign):
    name = "parquet"
    what = (
        "Parquet files of odd types and damaged ones: the oracle's rows and rejects, or one line; never a traceback, a "
        f"crash or more than {MOST} MB more"
    )
    slice = 12

    def attempt(self, chance: random.Random, folder: Path) -> str:
        data, expected, title = _typed(chance)
        (folder / "file.parquet").write_bytes(data)
        with _sizes(parquet_file.BATCH_ROWS, parquet_reader.PIECE_BYTES, parquet_file.MAX_DISTINCT):
            first = _read(data)
        with _sizes(chance.randint(1, 5), chance.choice([1, 60, 4_000]), chance.choice([0, 1 << 24])):
            second = _read(data)
        # Arrow reads structs of dictionaries in small batches only, and says so.
        is_beyond_arrow = any(isinstance(read, str) and "Nested data conversions" in read for read in (first, second))
        if first != second and not is_beyond_arrow:
            raise Difference(f"{title}, read at once and in pieces: {str(first)[:300]} / {str(second)[:300]}")
        if isinstance(first, str):
            if "\n" in first or len(first) > 1_000:
                raise Difference(f"more than one line: {first!r}")
            # Arrow loses rows of columns of lists in pages of a few values; that is noticed, and all that can be done.
            is_lost = "fewer rows than its footer says" in first and any(word in title for word in ("list", "map"))
            if expected is not REFUSED and not is_lost and not is_beyond_arrow:
                raise Difference(f"{title}: refused ({first})")
        elif expected is REFUSED:
            raise Difference(f"{title}: read, and no value of this type means the column")
        elif first != expected:
            raise Difference(f"{title}: {_unlike(first, expected)}")
        for number in range(DAMAGED):
            damaged = _damage(chance, data)
            (folder / f"damaged-{number}.parquet").write_bytes(damaged)
            said = in_a_process(damaged)
            if said.startswith("!"):
                raise Difference(f"damaged-{number}.parquet: {said}")
        return "refused" if isinstance(first, str) else "rows and rejects" if first[1] else "rows"


def _unlike(ours: Any, expected: Any) -> str:
    for title, one, other in zip(("rows", "rejects"), ours, expected, strict=True):
        if one != other:
            pairs = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
            if pairs and isinstance(pairs[0][0], dict):
                a, b = pairs[0]
                return f"{title}: { ({k: (a[k], b[k]) for k in a if a[k] != b[k]})!s:.400}"
            return f"{title}: {one!s:.200} / {other!s:.200}"
    return "no difference"


@contextmanager
def _sizes(rows: int, piece: int, distinct: int) -> Iterator[None]:
    with (
        mock.patch.multiple(parquet_file, BATCH_ROWS=rows, MAX_DISTINCT=distinct),
        mock.patch.object(parquet_reader, "PIECE_BYTES", piece),
    ):
        yield


def _read(data: bytes, dataset: Dataset | None = None) -> Any:
    """Rows and (reason, column, row) of the rejects, or the line that says why there are none."""
    report = Report()
    rows: list[dict[str, Any]] = []
    rejects: list[tuple[str, str, int]] = []
    dataset = dataset or datasets.get("green")
    try:
        for piece in clean(io.BytesIO(data), "parquet", dataset, None, Rules(), "the file", report):
            rows += piece.rows.to_pylist()
            for each in piece.rejects.to_pylist():
                if not isinstance(json.loads(each["original"]), dict):
                    raise Difference(f"no original: {each['original']!r}")
                rejects.append((each["reason"], each["column"], each["source_line"]))
    except DamagedFile as error:
        return str(error)
    if report.rows_read != len(rows) + len(rejects):
        raise Difference(f"{report.rows_read} rows read are {len(rows)} and {len(rejects)}")
    return rows, rejects


# -- damage ----------------------------------------------------------------------------------------


def _damage(chance: random.Random, data: bytes) -> bytes:
    """The file with up to four bytes changed, mostly in its footer and headers, or a part of it taken or moved."""
    changed = bytearray(data)
    kind = chance.random()
    if kind < 0.8:
        footer = int.from_bytes(data[-8:-4], "little") + 8
        for _ in range(chance.randint(1, 4)):
            within = chance.random() < 0.6 and footer < len(data)
            place = chance.randrange(len(data) - footer if within else 4, len(data))
            changed[place] = chance.choice([0, 255, 127, 128, changed[place] ^ 1 << chance.randrange(8)])
    else:
        start = chance.randrange(4, len(data))
        stop = min(start + chance.randint(1, 200), len(data))
        part = changed[start:stop]
        del changed[start:stop]
        if kind < 0.9:
            place = chance.randrange(4, len(changed))
            changed[place:place] = part
    return bytes(changed)


def in_a_process(data: bytes) -> str:
    """What becomes of a file in a process of its own: ``rows``, ``refused``, or ``! ...`` for what must never be."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, _said(data).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        return f"! {signal.Signals(-status).name}"
    return said or f"! exit code {status}"


def _said(data: bytes) -> str:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(300)
    try:
        before = resident_now()
        result = _read(data)
        said = "refused" if isinstance(result, str) else "rows"
        if isinstance(result, str) and "\n" in result:
            return f"! more than one line: {result!r}"
    except PipelineError as error:
        said = f"! {error!r}"
    except BaseException as error:
        return f"! {type(error).__name__}: {error}"[:500]
    if (more := most_resident() - before) > MOST:
        return f"! {more} MB more"
    return said


# -- files of odd types, and the oracle ------------------------------------------------------------


def _typed(chance: random.Random) -> tuple[bytes, Any, str]:
    """A file, its rows and rejects as plain Python has them or ``REFUSED``, and what is odd in it."""
    dataset = datasets.get("green")
    rows = chance.randint(1, 8)
    columns = [column for column in dataset.columns if column.name in dataset.required or chance.random() < 0.3]
    odd = chance.sample(columns, chance.choice([0, 1, 1, 2]))
    names: list[str] = []
    arrays: list[pa.Array] = []
    cells: list[tuple[Column, list[Any]]] = []
    title = []
    is_refused = False
    for column in columns:
        array, raw, means = _odd(chance, rows) if column in odd else _usual(chance, column, rows)
        values = [means(value, column) for value in raw]
        if any(value is SKIP for value in values):
            array, raw, means = _usual(chance, column, rows)
            values = [means(value, column) for value in raw]
        if column in odd:
            title.append(f"{column.name} {array.type}")
        is_refused |= any(value is REFUSED for value in values)
        names.append(chance.choice([column.name, column.name, column.name.upper()]))
        arrays.append(array)
        cells.append((column, values))
    for _ in range(chance.choice([0, 0, 1, 2])):
        array, _, _ = _odd(chance, rows)
        names.append(chance.choice(["new", "VendorID", "__index_level_0__", "trip_distance", "new.er", "n" * 300]))
        arrays.append(array)
        title.append(f"{names[-1][:30]} {array.type}")
    sink = io.BytesIO()
    options: dict[str, Any] = {
        "compression": chance.choice(["none", "snappy", "zstd", "gzip"]),
        "use_dictionary": chance.choice([True, False]),
        "data_page_version": chance.choice(["1.0", "2.0"]),
        "row_group_size": chance.choice([1, 3, 100]),
        "data_page_size": chance.choice([1, 100, 1 << 20]),
        "write_page_checksum": chance.choice([True, False]),
    }
    pq.write_table(pa.Table.from_arrays(arrays, names), sink, **options)
    if is_refused:
        return sink.getvalue(), REFUSED, ", ".join(title)
    good: list[dict[str, Any]] = []
    rejects = []
    for row in range(rows):
        bad = next((column for column, values in cells if values[row] is BAD), None)
        if bad is not None:
            rejects.append(("unknown_code" if bad.codes else "bad_value", bad.name, row + 1))
            continue
        found = {column.name: values[row] for column, values in cells}
        good.append({column.name: found.get(column.name) for column in dataset.columns})
    return sink.getvalue(), (good, rejects), ", ".join(title)


Kind = tuple[pa.Array, list[Any], Meaning]


def _usual(chance: random.Random, column: Column, rows: int) -> Kind:
    if column.type == "timestamp":
        raw: list[Any] = [int(dt.datetime(2020, 4, 1).timestamp()) * 1_000_000 + chance.randrange(10**12)] * rows
        return pa.array(raw, pa.int64()).view(pa.timestamp("us")), raw, _time_of("us")
    if column.type == "string":
        raw = [chance.choice([b"Y", b"N", None]) for _ in range(rows)]
        return pa.array(raw, pa.binary()).cast(pa.string()), raw, _text
    raw = [chance.choice([1, 2, None]) for _ in range(rows)]
    return pa.array(raw, pa.float64() if column.type == "float64" else pa.int64()), raw, _integer


def _odd(chance: random.Random, rows: int) -> Kind:
    return chance.choice([_integers, _floats, _decimals, _texts, _texts, _times, _dates, _booleans, _others])(
        chance, rows
    )


def _integers(chance: random.Random, rows: int) -> Kind:
    kind = chance.choice(
        [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
    )
    most = 2**kind.bit_width - 1 if "u" in str(kind) else 2 ** (kind.bit_width - 1) - 1
    least = 0 if "u" in str(kind) else -most - 1
    raw = [chance.choice([None, 0, 1, most, least, chance.randint(least, most)]) for _ in range(rows)]
    return pa.array(raw, kind), raw, _integer


def _integer(value: Any, column: Column) -> Any:
    if column.type == "timestamp":
        return REFUSED
    if value is None:
        return None
    if column.type == "int64":
        return value if -(2**63) <= value < 2**63 else BAD
    return float(value) if column.type == "float64" else _meaning(str(value), column)


def _floats(chance: random.Random, rows: int) -> Kind:
    kind, plain = chance.choice([(pa.float16(), np.float16), (pa.float32(), np.float32), (pa.float64(), np.float64)])
    several = [0.0, 1.0, 1.5, -2.0, 1e300, 2.0**63, -(2.0**63), 2.0**53, math.nan, math.inf, -math.inf, 0.1, -0.0, None]
    with np.errstate(over="ignore"):
        raw = [None if value is None else float(plain(value)) for value in chance.choices(several, k=rows)]
        return pa.array([None if value is None else plain(value) for value in raw], kind), raw, _float


def _float(value: Any, column: Column) -> Any:
    if column.type == "timestamp":
        return REFUSED
    if value is None or math.isnan(value):
        return None
    if column.type == "string":
        return _meaning(str(int(value)) if value.is_integer() else repr(value), column)
    if math.isinf(value):
        return BAD
    if column.type == "float64":
        return value
    return int(value) if value.is_integer() and -(2**63) <= value < 2**63 else BAD


def _decimals(chance: random.Random, rows: int) -> Kind:
    scale = chance.choice([0, 2, 9, 18])
    kind = chance.choice([pa.decimal128(38, scale), pa.decimal256(60, scale)])
    digits = ["0", "1", "265", "9007199254740993", "-9007199254740993", "9223372036854775808", "0.5", "-3.25"]
    raw = [Decimal(text) for text in digits if len(text.partition(".")[2]) <= scale]
    chosen: list[Any] = chance.choices([*raw, None], k=rows)
    return pa.array(chosen, kind), chosen, _decimal


def _decimal(value: Any, column: Column) -> Any:
    if column.type == "timestamp":
        return None if value is None else BAD  # as a text, which is no time
    if value is None:
        return None
    if column.type == "float64":
        return float(value)
    if column.type == "string":
        return SKIP
    return int(value) if value == int(value) and -(2**63) <= value < 2**63 else BAD


def _texts(chance: random.Random, rows: int) -> Kind:
    raw: list[Any] = [chance.choice([None, *ODD]) for _ in range(rows)]
    array = pa.array(raw, pa.binary())
    shape = chance.choice(["string", "large", "bytes", "large bytes", "dictionary", "string"])
    if shape == "large":
        array = array.cast(pa.large_binary()).view(pa.large_string())
    elif shape == "large bytes":
        array = array.cast(pa.large_binary())
    elif shape != "bytes":
        array = array.view(pa.string())
    if shape == "dictionary":
        array = array.dictionary_encode()
    return array, raw, _text


def _text(value: Any, column: Column) -> Any:
    return None if value is None else _meaning(decoded(value), column)


def _meaning(text: str, column: Column) -> Any:
    try:
        return meaning(text, column)
    except ValueError:
        return BAD


def _times(chance: random.Random, rows: int) -> Kind:
    unit = chance.choice(["s", "ms", "us"])
    first, last = (
        (time - EPOCH) // dt.timedelta(seconds=1) * PER_SECOND[unit] for time in (dt.datetime.min, dt.datetime.max)
    )
    several = [0, 1, -1, first, first - 1, last, last + PER_SECOND[unit], 1_585_699_200 * PER_SECOND[unit], None]
    raw = chance.choices([*several, 2**62 if unit == "us" else 2**52], k=rows)
    return pa.array(raw, pa.int64()).view(pa.timestamp(unit, chance.choice([None, "UTC"]))), raw, _time_of(unit)


def _time_of(unit: str) -> Meaning:
    def means(value: Any, column: Column) -> Any:
        if column.type != "timestamp":
            return SKIP if column.type == "string" else REFUSED
        if value is None:
            return None
        try:
            return EPOCH + dt.timedelta(microseconds=value * 1_000_000 // PER_SECOND[unit])
        except OverflowError:
            return BAD

    return means


def _dates(chance: random.Random, rows: int) -> Kind:
    raw = chance.choices([0, 18_353, -719_162, 2_932_896, 2_932_897, -719_163, 2**31 - 1, None], k=rows)
    return (
        pa.array(raw, pa.int32()).view(pa.date32()),
        raw,
        lambda value, column: _time_of("s")(None if value is None else value * 86_400, column),
    )


def _booleans(chance: random.Random, rows: int) -> Kind:
    raw = chance.choices([True, False, None], k=rows)
    return pa.array(raw, pa.bool_()), raw, _boolean


def _boolean(value: Any, column: Column) -> Any:
    if column.type == "timestamp":
        return REFUSED
    if value is None:
        return None
    if column.texts.keys() >= {"TRUE", "FALSE", "T", "F"} or column.type == "string":
        return _meaning(str(value).lower(), column)
    return float(value) if column.type == "float64" else int(value)


def _others(chance: random.Random, rows: int) -> Kind:
    """Types that no column can have, and the one that every column can."""
    if chance.random() < 0.2:
        return pa.nulls(rows), [None] * rows, lambda value, column: None
    makers: list[Callable[[], pa.Array]] = [
        lambda: pa.array([{"a": 1, "VendorID": "x"}] * rows),
        lambda: pa.array([[1, 2]] * rows),
        lambda: pa.array([[dt.datetime(2020, 1, 1)], *[None] * (rows - 1)], pa.list_(pa.timestamp("us"))),
        lambda: pa.array([[("a", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
        lambda: pa.StructArray.from_arrays([pa.array(["x"] * rows).dictionary_encode()], ["a"]),
    ]
    return chance.choice(makers)(), [1] * rows, lambda value, column: REFUSED
