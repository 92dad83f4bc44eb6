"""Every value that Clean lets through arrives in every warehouse as it is; what one would refuse is a reject.

The limits are in ``pipeline/cleaning/values.py``.
"""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cleaning.cleaner import clean
from pipeline.cleaning.rules import Rules
from pipeline.datasets.schema import Dataset

from .loads import GREEN, ZONES, ledger_row
from .warehouses import Backend

MONTH = dt.date(2021, 1, 1)
DAY = 86_400_000_000
#: The first microsecond of the year 1, and the last of the year 9999, since 1970.
FIRST, LAST = -719_162 * DAY, 2_932_897 * DAY - 1

#: Of each column: values of a file, and what becomes of them. ``...`` is a reject.
TEXTS: list[tuple[Any, Any]] = [
    ("plain", "plain"),
    ("a\0b", ...),
    ("\0", None),
    ("tab\tline\nreturn\rquote'\"back\\slash\\N\\.", "tab\tline\nreturn\rquote'\"back\\slash\\N\\."),
    ("\x01\x02 inside \x03 \x7f", "inside"),
    ("inside\x01\x1b\x7fit", "inside\x01\x1b\x7fit"),
    ("\ufffe\uffff\U0010ffff", "\ufffe\uffff\U0010ffff"),
    ("e\u0301 \u202e \U0001f468\u200d\U0001f469", "e\u0301 \u202e \U0001f468\u200d\U0001f469"),
    ("x" * 1000, "x" * 1000),
    ("€" * 1000, "€" * 1000),
    (b"\xed\xa0\x80 lone surrogate", "í\xa0€ lone surrogate"),
    (b"Caf\xe9 \xff", "Café ÿ"),
]
NUMBERS: list[tuple[Any, Any]] = [
    (Decimal(2**63 - 1), 2**63 - 1),
    (Decimal(-(2**63)), -(2**63)),
    (Decimal(2**63), ...),
    (Decimal(10**37), ...),
    (Decimal(0), 0),
]
FLOATS: list[tuple[Any, Any]] = [
    (1.7976931348623157e308, 1.7976931348623157e308),
    (-1.7976931348623157e308, -1.7976931348623157e308),
    (5e-324, 5e-324),
    (0.1 + 0.2, 0.1 + 0.2),
    (float("inf"), ...),
    (float("-inf"), ...),
    (float("nan"), None),
]
TIMES: list[tuple[Any, Any]] = [
    (FIRST, dt.datetime.min),
    (LAST, dt.datetime.max),
    (FIRST - 1, ...),
    (LAST + 1, ...),
    (-(2**63) + 1, ...),
    (2**63 - 1, ...),
    (-1, dt.datetime(1969, 12, 31, 23, 59, 59, 999999)),
]


def parquet(dataset: Dataset, name: str, values: list[Any], kind: pa.DataType) -> io.BytesIO:
    """A file with these values in one column, and a number or time in those that every file must have."""
    required = {"LocationID": list(range(len(values))), "lpep_pickup_datetime": [dt.datetime(2021, 1, 2)] * len(values)}
    arrays = {
        column.name: pa.array(required.get(column.name, [None] * len(values)), column.arrow_type)
        for column in dataset.columns
    }
    arrays[name] = pa.array(values, kind)
    file = io.BytesIO()
    pq.write_table(pa.table(arrays), file)
    file.seek(0)
    return file


def cleaned(dataset: Dataset, name: str, values: list[Any], kind: pa.DataType) -> pa.Table:
    """The rows that get into the lake."""
    month = MONTH if dataset.is_monthly else None
    pieces = clean(parquet(dataset, name, values, kind), "parquet", dataset, month, Rules.parse("none"), "file")
    table = pa.Table.from_batches([piece.rows for piece in pieces], dataset.schema)
    if month:
        table = table.append_column("file_month", pa.array([month] * len(table), pa.date32()))
    return table


@pytest.mark.parametrize(
    "dataset, name, table, kind",
    [
        (ZONES, "Zone", TEXTS, pa.binary()),
        (ZONES, "LocationID", NUMBERS, pa.decimal128(38)),
        (GREEN, "passenger_count", NUMBERS, pa.decimal128(38)),
        (GREEN, "fare_amount", FLOATS, pa.float64()),
        (GREEN, "lpep_pickup_datetime", TIMES, pa.timestamp("us")),
        (GREEN, "lpep_dropoff_datetime", TIMES, pa.timestamp("us")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_gets_into_the_lake_arrives_everywhere(
    backend: Backend, dataset: Dataset, name: str, table: list[tuple[Any, Any]], kind: pa.DataType, tmp_path: Path
) -> None:
    values = [value.encode() if isinstance(value, str) and pa.types.is_binary(kind) else value for value, _ in table]
    rows = cleaned(dataset, name, values, kind)
    kept = [becomes for _, becomes in table if becomes is not ...]
    assert rows.column(name).to_pylist() == kept
    path = backend.files / f"{tmp_path.name}.parquet"
    pq.write_table(rows, path)
    month = MONTH if dataset.is_monthly else None
    backend.open().load(dataset, backend.lake_file(path), ledger_row("A", month, len(rows), dataset))
    arrived = [value for (value,) in backend.run(f'SELECT "{name}" FROM {{{dataset.table}}}')]
    assert sorted(map(repr, arrived)) == sorted(map(repr, kept))
