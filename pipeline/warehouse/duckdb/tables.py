"""Tables and views of a DuckDB file, made as declared; reads ledger rows and appends one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

from ...datasets import DATASETS
from ...datasets.schema import Column, Dataset
from ..base import LEDGER_COLUMNS, LEDGER_TABLE, LedgerRow
from ..tables import Dialect, declared, insert_ledger, literal, missing_columns, next_row, quote
from ..views import COMMENTS, comment, not_made, views

LOGGER = logging.getLogger("pipeline")

TYPES = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR", "timestamp": "TIMESTAMP", "date": "DATE"}

DIALECT = Dialect(quote=quote, table=quote, types=TYPES)


def set_up(connection: duckdb.DuckDBPyConnection, label: str, dataset: Dataset | None = None) -> None:
    """Make what is missing: the tables of all declarations and of ``dataset``, new columns, comments, views."""
    _set_up_table(connection, LEDGER_TABLE, "Loads of the pipeline, append-only", LEDGER_COLUMNS)
    for each in declared(dataset):
        _set_up_table(connection, each.table, each.title, each.table_columns)
    found = connection.execute("SELECT lower(view_name), comment FROM duckdb_views() WHERE NOT internal").fetchall()
    comments = dict(found)
    for name, query in views(DIALECT, DATASETS.values()).items():
        text, there = comment(name, query), columns_of(connection, name)
        if there and not _is_ours(connection, name, query, there, comments):
            LOGGER.warning("%s", not_made(label, name))
        elif comments.get(name) != text:
            connection.execute(f"CREATE OR REPLACE VIEW {quote(name)} AS {query}")
            connection.execute(f"COMMENT ON VIEW {quote(name)} IS {literal(text)}")


def _is_ours(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    query: str,
    columns: Iterable[str],
    comments: Mapping[str, str | None],
) -> bool:
    """Whether what has the name of a view is one that the pipeline made; it made some without a comment once."""
    if comments.get(name) is None:
        described = connection.execute(f"DESCRIBE {query}").fetchall()
        return name in comments and list(columns) == [row[0] for row in described]
    return str(comments[name]).startswith(COMMENTS[name])


def _set_up_table(connection: duckdb.DuckDBPyConnection, table: str, title: str, columns: Iterable[Column]) -> None:
    columns = tuple(columns)
    existing = columns_of(connection, table)
    if not existing:
        definitions = ", ".join(DIALECT.definition(column) for column in columns)
        connection.execute(f"CREATE TABLE {quote(table)} ({definitions})")
        connection.execute(f"COMMENT ON TABLE {quote(table)} IS {literal(title)}")
        added = list(columns)
    else:
        added = missing_columns(table, columns, existing, TYPES)
        for column in added:
            connection.execute(f"ALTER TABLE {quote(table)} ADD COLUMN {DIALECT.definition(column)}")
    for column in added:
        name = f"{quote(table)}.{quote(column.name)}"
        connection.execute(f"COMMENT ON COLUMN {name} IS {literal(column.description)}")


def columns_of(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Column -> type of a table as it was committed, in order; {} if there is none.

    ``duckdb_columns()`` would make DuckDB's own hundred views first, which takes as long as to open the file. The error
    of a table that is not there would end the connection's transaction; so a cursor of its own asks.
    """
    with connection.cursor() as cursor:
        try:
            return {row[1]: row[2] for row in cursor.execute(f"PRAGMA table_info({literal(table)})").fetchall()}
        except duckdb.CatalogException:
            return {}


def ledger_rows(connection: duckdb.DuckDBPyConnection) -> list[LedgerRow]:
    """All rows, oldest first; [] where there is no ledger."""
    if not columns_of(connection, LEDGER_TABLE):
        return []
    cursor = connection.execute(f"SELECT * FROM {quote(LEDGER_TABLE)} ORDER BY {quote('loaded_at')} NULLS FIRST")
    names = [item[0] for item in cursor.description or ()]
    return [LedgerRow.from_mapping(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def append(connection: duckdb.DuckDBPyConnection, row: LedgerRow) -> LedgerRow:
    newest = {old.partition: old for old in ledger_rows(connection)}
    stored = next_row(row, newest.get(row.partition))
    connection.execute(insert_ledger(quote(LEDGER_TABLE), "?"), stored.values())
    return stored


def rows_of(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()
