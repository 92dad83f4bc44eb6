"""What all warehouses do alike with declarations, tables and ledger rows. Pure functions; no database is asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..datasets.schema import FILE_MONTH, Column, Dataset
from ..errors import WarehouseError
from .base import LEDGER_TABLE, LedgerRow


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


def ensure_month(dataset: Dataset, row: LedgerRow) -> None:
    """Raise WarehouseError unless the row has a month exactly if the dataset has months."""
    if dataset.is_monthly != (row.file_month is not None):
        raise WarehouseError(f"{dataset.name}: a month is given exactly for datasets that have months")


def literal(text: str) -> str:
    """A text as an SQL string of DuckDB and PostgreSQL (with standard_conforming_strings)."""
    return "'" + text.replace("'", "''") + "'"


def texts_query(dialect: Dialect, dataset: Dataset, existing: Iterable[str]) -> tuple[list[str], str]:
    """The text columns that a table has, and the query for the month and the characters in each, per partition."""
    names = {name.lower() for name in existing}
    columns = [
        column.name for column in dataset.table_columns if column.type == "string" and column.name.lower() in names
    ]
    month = dialect.quote(FILE_MONTH.name) if dataset.is_monthly else "CAST(NULL AS DATE)"
    sums = "".join(f", COALESCE(SUM(LENGTH({dialect.quote(name)})), 0)" for name in columns)
    return columns, f"SELECT {month}{sums} FROM {dialect.table(dataset.table)} GROUP BY 1"


def texts_found(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> dict[dt.date | None, dict[str, int]]:
    """The answer to ``texts_query``, by partition and column."""
    return {row[0]: {name: int(count) for name, count in zip(columns, row[1:], strict=True)} for row in rows}


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
