"""What all warehouses share: types, missing columns, counts per month, ledger rows. Pure functions, no queries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..datasets import DATASETS
from ..datasets.schema import FILE_MONTH, Column, Dataset
from ..errors import WarehouseError
from .base import LEDGER_COLUMNS, LEDGER_TABLE, LedgerRow


@dataclass(frozen=True)
class Dialect:
    """How one warehouse writes SQL. ``quote`` takes an identifier, ``table`` the bare name of a table or view and
    gives its full quoted name, ``types`` maps each type of the declarations to the warehouse's own."""

    quote: Callable[[str], str]
    table: Callable[[str], str]
    types: Mapping[str, str]

    def definition(self, column: Column) -> str:
        """``"name" TYPE``, as in CREATE TABLE and ADD COLUMN."""
        return f"{self.quote(column.name)} {self.types[column.type]}"


def declared(dataset: Dataset | None) -> list[Dataset]:
    """All datasets that are declared, and one that may not be, as in tests."""
    return list({each.table: each for each in (*DATASETS.values(), *([dataset] if dataset else ()))}.values())


def ensure_month(dataset: Dataset, row: LedgerRow) -> None:
    """Raise WarehouseError unless the row has a month exactly if the dataset has months."""
    if dataset.is_monthly != (row.file_month is not None):
        raise WarehouseError(f"{dataset.name}: a month is given exactly for datasets that have months")


def quote(name: str) -> str:
    """A name as an identifier of DuckDB and PostgreSQL; with values, psycopg2 needs its percent signs doubled."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL string of DuckDB and PostgreSQL (with standard_conforming_strings)."""
    return "'" + text.replace("'", "''") + "'"


#: What the queries below are run by: it gives the rows of one.
Run = Callable[[str], Iterable[Sequence[Any]]]


def counts(dialect: Dialect, dataset: Dataset, run: Run) -> dict[dt.date | None, int]:
    """The rows of a table that exists, per partition."""
    return {month: count for month, count in run(_by_month(dialect, dataset, ["COUNT(*)"]))}


def texts(
    dialect: Dialect, dataset: Dataset, existing: Iterable[str], run: Run
) -> dict[dt.date | None, dict[str, int]]:
    """The characters in each text column that a table has, per partition."""
    names = {name.lower() for name in existing}
    columns = [c.name for c in dataset.table_columns if c.type == "string" and c.name.lower() in names]
    sums = [f"COALESCE(SUM(LENGTH({dialect.quote(name)})), 0)" for name in columns]
    return {
        month: {name: int(count) for name, count in zip(columns, counts, strict=True)}
        for month, *counts in run(_by_month(dialect, dataset, sums))
    }


def _by_month(dialect: Dialect, dataset: Dataset, aggregates: Iterable[str]) -> str:
    month = dialect.quote(FILE_MONTH.name) if dataset.is_monthly else "CAST(NULL AS DATE)"
    return f"SELECT {', '.join([month, *aggregates])} FROM {dialect.table(dataset.table)} GROUP BY 1 ORDER BY 1"


def missing_columns(
    table: str, columns: Iterable[Column], existing: Mapping[str, str], types: Mapping[str, str]
) -> list[Column]:
    """The declared columns that an existing table lacks, in order of the declaration.

    ``existing`` maps the table's column names to its types, spelled as ``types`` spells them. Names are compared
    without regard to case, as BigQuery and DuckDB do. Columns that only the table has are its owner's and do not
    matter. Raises WarehouseError if the type of a column differs: a type is never changed in silence.
    """
    found = {name.lower(): type_ for name, type_ in existing.items()}
    missing = []
    for column in columns:
        actual = found.get(column.name.lower())
        if actual is None:
            missing.append(column)
        elif actual.upper() != types[column.type].upper():
            raise WarehouseError(
                f"table {table}: column {column.name} is {actual} and should be {types[column.type]}; "
                f"change its type or rename the table, then run again"
            )
    return missing


def insert_ledger(table: str, mark: str) -> str:
    """The statement of DuckDB and PostgreSQL that appends a ledger row, with a ``mark`` for each of its values."""
    names = ", ".join(quote(column.name) for column in LEDGER_COLUMNS)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join([mark] * len(LEDGER_COLUMNS))})"


def next_row(row: LedgerRow, newest: LedgerRow | None, now: dt.datetime | None = None) -> LedgerRow:
    """``row`` with ``replaces`` and ``loaded_at`` (naive UTC) filled in.

    ``newest`` is the partition's newest row of any status. ``loaded_at`` is later than its by at least a microsecond,
    even where a clock was set back, because the newest row is found by it. ``replaces`` is the sha256 of the rows that
    the table held until now; a forgotten month's rows are still there, so the ``forgotten`` row names the same one.
    """
    now = now or dt.datetime.now(dt.UTC).replace(tzinfo=None)
    if newest is None:
        return replace(row, replaces=None, loaded_at=now)
    if newest.loaded_at is not None:
        if newest.loaded_at == dt.datetime.max:
            raise WarehouseError(
                f"{LEDGER_TABLE} has a row of {row.dataset} that no run wrote: its loaded_at is the last moment "
                f"there is; correct that row, then run again"
            )
        now = max(now, newest.loaded_at + dt.timedelta(microseconds=1))
    return replace(row, replaces=newest.sha256 if row.status == "loaded" else None, loaded_at=now)
