"""Load a Parquet file into PostgreSQL: replaces the partition, in one transaction with its ledger row."""

from __future__ import annotations

import datetime as dt
import logging

import psycopg2
import pyarrow.parquet as pq

from ...datasets.schema import FILE_MONTH, Dataset
from ...errors import PipelineError, WarehouseError
from ...partition import format_month
from ...storage.base import Progress
from ..base import LEDGER_TABLE
from ..tables import quote
from .copy import copy
from .errors import MONTH_CHECK
from .session import Session, text_of
from .tables import index_of

LOGGER = logging.getLogger("pipeline")


class PartitionLoad:
    """The table that the rows of a partition are copied to, within the transaction of a load."""

    def __init__(self, session: Session, dataset: Dataset, month: dt.date | None, rows: int) -> None:
        self.session, self.dataset, self.month, self.rows = session, dataset, month, rows
        self.parent = session.table(dataset.table)
        #: The table whose rows are replaced; None if the month is new.
        self.occupied = session.partition(dataset.table, month) if month else self.parent
        name = f"{dataset.table}_{format_month(month).replace('-', '_')}" if month else dataset.table
        self.table = session.table(f"etl_staging_{name}" if self.occupied else name)
        for kind, name, table in session.rules_on({self.parent, self.occupied or self.parent}):
            raise WarehouseError(
                f"{table} has the {kind} {name} of your own, which would change, skip or miss rows of a load; "
                f"drop or disable it, then run again (a trigger on {LEDGER_TABLE} sees every load)"
            )

    def fill(self, file: pq.ParquetFile, progress: Progress) -> None:
        """Create the table and copy the file into it; WarehouseError unless it brings exactly ``rows`` rows."""
        own = [column.name for column in self.dataset.table_columns]
        self.names = ", ".join(map(quote, own))
        table = self.session.relations([self.dataset.table])[self.dataset.table]
        # A table that only carries rows over to another one needs no write-ahead log, and no columns but ours: the
        # other one makes the values of its owner's. A new month makes them as the parent would.
        kind = "UNLOGGED TABLE" if self.occupied else "TABLE"
        definition = [
            f"{quote(name)} {type_}" + ("" if name in own else table.values.get(name, ""))
            for name, type_ in table.columns.items()
            if name in own or not self.occupied
        ]
        if self.month:
            definition.append(f"CONSTRAINT {MONTH_CHECK} CHECK ({quote(FILE_MONTH.name)} = DATE '{self.month}')")
        if not self.occupied:
            definition += self.session.checks(self.parent)
        # Spelled out and not LIKE, which would keep a lock on the parent while the file is copied.
        self.session.run(f"CREATE {kind} {self.table} ({', '.join(definition)})")
        names = ", ".join(quote(name) for name in file.schema_arrow.names)
        self._ensure_all(copy(self.session, f"{self.table} ({names})", file, progress))
        if not self.occupied:
            if index := index_of(self.dataset, self.table):
                self.session.run(index)
            self.session.run(f"ANALYZE {self.table}")

    def replace(self) -> None:
        """Last step before the commit, because only from here on the parent is locked against other loads."""
        if self.occupied:
            self.session.run(f"DELETE FROM {self.occupied}")
            self._ensure_all(
                self.session.change(f"INSERT INTO {self.occupied} ({self.names}) SELECT {self.names} FROM {self.table}")
            )
            self.session.run(f"DROP TABLE {self.table}")
        else:
            self.session.run(f"ALTER TABLE {self.parent} ATTACH PARTITION {self.table} FOR VALUES IN ('{self.month}')")

    def _ensure_all(self, arrived: int) -> None:
        if arrived != self.rows:
            raise WarehouseError(f"{self.table}: {arrived} rows of {self.rows} arrived; load the month again")

    def vacuum(self) -> None:
        """After the commit: make the room of replaced rows usable again. Autovacuum does it where this fails."""
        if not self.occupied:
            return
        try:
            self.session.begin_alone(self.rows)
            self.session.run(f"VACUUM (ANALYZE, SKIP_LOCKED) {self.occupied}")
        except (psycopg2.Error, PipelineError) as error:
            LOGGER.warning("%s is loaded, but was not vacuumed: %s", self.occupied, text_of(error))
