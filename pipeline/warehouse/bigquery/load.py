"""Load a Parquet file into a partition of BigQuery: one free load job, whose id is chosen here, then a ledger row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.cloud import bigquery

from ...datasets.schema import Dataset
from ...errors import WarehouseError, WarehouseUnavailable
from ...storage import is_local
from ...storage.base import StoredFile
from ..base import LedgerRow
from .ledger import LedgerTable, identity_of, is_same, stamp
from .session import Session, digest
from .tables import schema_of

_UPLOAD_SECONDS = (10.0, 300.0)  # to connect, and between two signs of life


class Load:
    """A file on its way into the partition of ``row``, whose table exists."""

    def __init__(
        self,
        session: Session,
        ledger: LedgerTable,
        dataset: Dataset,
        parquet: StoredFile,
        row: LedgerRow,
        on_job: Callable[[str], None],
    ) -> None:
        self.session, self.ledger, self.on_job = session, ledger, on_job
        self.dataset, self.parquet, self.row = dataset, parquet, row
        self.table = session.table(dataset.table)
        self.fields, self.additions = schema_of(self.table, dataset)

    def on_top_of(self, newest: LedgerRow | None) -> LedgerRow | None:
        """Load, and append the row; None if another load reached the ledger first.

        Nothing is done where the ledger has this load and the table what the ledger says: no load stopped halfway
        since, no one emptied the table.
        """
        row = self.row
        if newest and is_same(newest, row) and not self.ledger.marked([newest]) and self._has_all():
            return newest
        if newest and newest.status == "loaded":
            self.ledger.mark(row, newest)
        generation = self.parquet.generation
        job = self._run(newest, generation)
        if self.parquet.generation != generation:
            # Which of the two the job has read cannot be known. The next try has another generation in its job id, and
            # so loads again.
            raise WarehouseUnavailable(
                f"{self.session.label}: {self.parquet.uri} was replaced while {row.partition} was loaded from it, "
                f"so the load does not count; run again"
            )
        rows = self._count() if job.output_rows is None else job.output_rows  # not every server tells
        if rows != row.row_count:
            raise WarehouseError(
                f"{self.session.label}: {self.parquet.uri} brought {rows:,} rows into {self.table.table_id} and should "
                f"bring {row.row_count:,}, so {row.partition} is not marked as loaded; upload the month again"
            )
        return self.ledger.append(row, newest)

    def _run(self, newest: LedgerRow | None, generation: str | None) -> bigquery.LoadJob:
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=self.fields,
            labels={"dataset": self.dataset.name},
        )
        month = self.row.partition.month_text
        if (
            self.additions and month
        ):  # a whole table that is replaced takes the new schema anyhow, and refuses the option
            config.schema_update_options = [bigquery.SchemaUpdateOption.ALLOW_FIELD_ADDITION]
        name = f"{self.dataset.table}${month.replace('-', '')}" if month else self.dataset.table
        target, client, session = self.session.reference_of(name), self.session.client, self.session

        def submit(job_id: str) -> bigquery.LoadJob:
            common: dict[str, Any] = {"job_id": job_id, "location": session.location, "job_config": config}
            if not is_local(self.parquet.uri):
                return session.call(client.load_table_from_uri, self.parquet.uri, target, **common)
            with self.parquet.local() as path, path.open("rb") as file:
                return session.retry(client.load_table_from_file)(
                    file, target, rewind=True, num_retries=3, timeout=_UPLOAD_SECONDS, **common
                )

        # A table that was dropped and made again is empty, whatever jobs of the same name did to the old one.
        inputs = (session.dataset, name, identity_of(self.row), generation, stamp(newest), self.table.created)
        return session.run_once(f"load-{name.replace('$', '-')}-{digest(*inputs)}", submit, self._has_all, self.on_job)

    def _has_all(self) -> bool:
        return self._count() == self.row.row_count

    def _count(self) -> int:
        """The rows of the partition in the table."""
        sql = f"SELECT COUNT(*) AS row_count FROM {self.session.sql_name(self.dataset.table)}"
        if self.row.file_month is None:
            return int(self.session.query(sql)[0]["row_count"])
        parameter = bigquery.ScalarQueryParameter("file_month", "DATE", self.row.file_month)
        return int(self.session.query(f"{sql} WHERE file_month = @file_month", [parameter])[0]["row_count"])


def check_footer(parquet: StoredFile, row: LedgerRow) -> None:
    """Refuse a local file with another number of rows before it is sent, while the table is as it was."""
    if not is_local(parquet.uri):
        return
    import pyarrow.parquet as pq

    with parquet.local() as path:
        rows = pq.read_metadata(path).num_rows
    if rows != row.row_count:
        raise WarehouseError(
            f"{parquet.uri} has {rows:,} rows and should have {row.row_count:,}; upload {row.partition} again"
        )
