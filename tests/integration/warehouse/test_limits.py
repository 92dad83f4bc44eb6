"""What Clean lets through every warehouse takes as it is; what one of them would refuse is a reject.

The limits stand in ``pipeline/cleaning/values.py``. Here each warehouse is asked whether it agrees.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cleaning import Rules, clean
from pipeline.datasets.schema import Dataset
from pipeline.errors import WarehouseError
from pipeline.warehouse import Options, Warehouse, open_warehouse
from tests.contract.loads import GREEN, ZONES, LocalFile, ledger_row
from tests.patience import PATIENCE
from tests.servers.bigquery import BigQueryServer, bigquery_server
from tests.servers.postgres import PostgresServer, postgres_server

__all__ = ["bigquery_server", "postgres_server"]

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


Opened = tuple[Warehouse, Callable[[str], list[tuple[Any, ...]]]]


@pytest.fixture(params=["duckdb", "postgresql", "bigquery"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A warehouse, and how to ask it; ``{}`` in a query stands before the name of a table."""
    options = Options(lock_timeout=PATIENCE, patience=PATIENCE)
    if request.param == "duckdb":
        path = tmp_path / "w.duckdb"

        def ask(query: str) -> list[tuple[Any, ...]]:
            with contextlib.closing(duckdb.connect(str(path), read_only=True)) as connection:
                return connection.execute(query.replace("{}", "")).fetchall()

        yield open_warehouse(f"duckdb:///{path}", options), ask
    elif request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.database() as name:
            yield open_warehouse(server.url(name), options), lambda query: server.run(query.replace("{}", ""), name)
    else:
        double: BigQueryServer = request.getfixturevalue("bigquery_server")
        double.wipe()
        yield (
            open_warehouse("bigquery://my-project/trips", options),
            lambda query: double.sql(query.replace("{}", '"my-project:trips".')),
        )


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
    opened: Opened, dataset: Dataset, name: str, table: list[tuple[Any, Any]], kind: pa.DataType, tmp_path: Path
) -> None:
    warehouse, ask = opened
    values = [value.encode() if isinstance(value, str) and pa.types.is_binary(kind) else value for value, _ in table]
    rows = cleaned(dataset, name, values, kind)
    kept = [becomes for _, becomes in table if becomes is not ...]
    assert rows.column(name).to_pylist() == kept
    path = tmp_path / "lake.parquet"
    pq.write_table(rows, path)
    month = MONTH if dataset.is_monthly else None
    warehouse.load(dataset, LocalFile(path), ledger_row("A", month, len(rows), dataset))
    arrived = [value for (value,) in ask(f'SELECT "{name}" FROM {{}}{dataset.table}')]
    assert sorted(map(repr, arrived)) == sorted(map(repr, kept))


@pytest.mark.parametrize("opened", ["postgresql"], indirect=True)
def test_a_text_with_nul_is_what_one_of_them_refuses(opened: Opened, tmp_path: Path) -> None:
    """Which is why Clean does; a file of the lake that has one all the same is one line."""
    warehouse, _ = opened
    rows = cleaned(ZONES, "Zone", [b"plain"], pa.binary())
    place = rows.schema.get_field_index("Zone")
    path = tmp_path / "lake.parquet"
    pq.write_table(rows.set_column(place, "Zone", pa.array(["a\0b"])), path)
    with pytest.raises(WarehouseError, match="cannot hold this character; clean it out of the column"):
        warehouse.load(ZONES, LocalFile(path), ledger_row("A", None, 1, ZONES))
