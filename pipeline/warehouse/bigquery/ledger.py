"""The ledger of BigQuery, and the marks of months that are being replaced: a row is appended once, whoever repeats it.

Rows are put in place by a query rather than by a load job: load jobs are limited to a few per table and ten seconds,
and many workers share these tables; inserts do not disturb each other.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from google.cloud import bigquery

from ...datasets.schema import Column
from ...partition import Partition
from ..base import LEDGER_COLUMNS, LEDGER_TABLE, LedgerRow
from ..tables import next_row
from .session import Session, digest, quote
from .tables import MARK_COLUMNS, MARK_TABLE, TYPES

#: What tells two loads of one partition apart.
_IDENTITY = (
    "status",
    "publisher",
    "sha256",
    "rules",
    "schema_version",
    "parquet_sha256",
    "row_count",
    "rejected_count",
)

#: In place of the time of a ledger row that has none: before any that a run wrote.
_NO_TIME = dt.datetime(1900, 1, 1)


class LedgerTable:
    """``etl_loads``, and ``etl_replacing`` with the marks."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def history(self) -> list[LedgerRow]:
        """All rows, oldest first."""
        # tabledata.list is free, a query is billed for at least 10 MB; the ledger has a few thousand rows at most.
        return sorted(map(LedgerRow.from_mapping, self.session.rows(LEDGER_TABLE)), key=_moment)

    def newest(self, partition: Partition) -> LedgerRow | None:
        """The newest row of a partition, of any status."""
        rows = [row for row in self.history() if row.partition == partition]
        return rows[-1] if rows else None

    def marked(self, rows: list[LedgerRow]) -> list[LedgerRow]:
        """Those of the rows whose replacement has begun."""
        marks = {(row["dataset"], row["file_month"], row["replaced_at"]) for row in self.session.rows(MARK_TABLE)}
        return [row for row in rows if (*row.partition, _moment(row)) in marks]

    def append(self, row: LedgerRow, newest: LedgerRow | None) -> LedgerRow | None:
        """Append ``row`` if ``newest`` is still the partition's newest; None if it is not."""
        filled = next_row(row, newest)
        self._insert(
            LEDGER_TABLE,
            LEDGER_COLUMNS,
            {column.name: getattr(filled, column.name) for column in LEDGER_COLUMNS},
            unless=("loaded_at", ">", _moment(newest) if newest else None),
            identity=[identity_of(row), stamp(newest)],
            is_still_so=lambda: stamp(self.newest(row.partition)) != stamp(newest),
        )
        stored = self.newest(row.partition)
        return stored if stored and stamp(stored) != stamp(newest) and is_same(stored, row) else None

    def mark(self, row: LedgerRow, replaced: LedgerRow) -> None:
        """Note that ``row`` is about to take the place of the rows of ``replaced``."""

        def is_marked() -> bool:
            return bool(self.marked([replaced]))

        if not is_marked():
            values = {
                "dataset": row.dataset,
                "file_month": row.file_month,
                "replaced_at": _moment(replaced),
                "sha256": row.sha256,
                "run_id": row.run_id,
                "marked_at": dt.datetime.now(dt.UTC).replace(tzinfo=None),
            }
            self._insert(
                MARK_TABLE,
                MARK_COLUMNS,
                values,
                unless=("replaced_at", "=", _moment(replaced)),
                identity=[row.partition, stamp(replaced)],
                is_still_so=is_marked,
            )

    def _insert(
        self,
        name: str,
        columns: tuple[Column, ...],
        values: Mapping[str, Any],
        *,
        unless: tuple[str, str, Any],
        identity: object,
        is_still_so: Callable[[], bool],
    ) -> None:
        """One row, unless the partition has one that ``unless`` describes (column, operator, value)."""
        types = {column.name: TYPES[column.type] for column in columns}
        given = {key: value for key, value in values.items() if value is not None}
        parameters = [bigquery.ScalarQueryParameter(key, types[key], value) for key, value in given.items()]
        items = [f"@{key}" if key in given else f"CAST(NULL AS {types[key]})" for key in types]
        conditions = ["dataset = @dataset", f"file_month {'= @file_month' if 'file_month' in given else 'IS NULL'}"]
        column, operator, limit = unless
        if limit is not None:
            conditions.append(f"{column} {operator} @seen")
            parameters.append(bigquery.ScalarQueryParameter("seen", types[column], limit))
        table = self.session.sql_name(name)
        sql = (
            f"INSERT INTO {table} ({', '.join(map(quote, types))}) "
            f"SELECT {', '.join(items)} FROM (SELECT 1 AS one) AS source WHERE NOT EXISTS "
            f"(SELECT 1 FROM {table} WHERE {' AND '.join(conditions)})"
        )
        created = self.session.table(name).created
        key = digest(self.session.dataset, name, values["dataset"], values["file_month"], identity, created)
        self.session.run_once(
            f"insert-{name}-{key}",
            lambda job_id: self.session.submit_query(sql, parameters, job_id=job_id),
            is_still_so,
        )


def identity_of(row: LedgerRow) -> list[object]:
    """What tells a load from others of its partition."""
    return [getattr(row, field) for field in _IDENTITY]


def is_same(stored: LedgerRow, row: LedgerRow) -> bool:
    return identity_of(stored) == identity_of(row)


def _moment(row: LedgerRow) -> dt.datetime:
    """``loaded_at``, which grows strictly in a partition and so names a row of it; a row without one is the oldest."""
    return row.loaded_at or _NO_TIME


def stamp(row: LedgerRow | None) -> str | None:
    """The moment of a row as a part of job ids."""
    return _moment(row).isoformat() if row else None
