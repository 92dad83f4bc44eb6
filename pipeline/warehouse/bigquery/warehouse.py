"""BigQuery on google-cloud-bigquery: a month is one free load job into its partition, then a row in the ledger.

BigQuery has no transaction around a load job, so exactly-once rests on three things instead:

* **Job ids are idempotency keys**: a digest of the inputs and of the load they replace. BigQuery runs a job id once for
  ever, so a repeated call (after a lost reply, after a crash, by a second worker) attaches to the first job. The
  attempt at the end of the id grows only when that job is known to be void.
* **The mark.** Between the job that replaces a month and its ledger row, the newest ledger row describes rows that are
  gone. So a row in ``etl_replacing`` is written first, and ``ledger()`` gives a marked load as ``interrupted``, which
  does not count as complete. A newer ledger row makes the mark void. The first load of a month needs none.
* **The ledger row last,** and only if the partition's newest row is still the one that was replaced. If another
  worker was quicker with another file, the month is loaded again on top of that.

Marks are a table of their own and not ledger rows with a status, for two reasons: ``etl_loads`` has one row per load in
every warehouse, and queries of users count them; and workers with the same file must find the same newest ledger row,
because it is part of the job id, whether or not one of them has written its mark.

What costs money: the small queries, each limited by ``maximum_bytes_billed``. Load jobs and reading the ledger
(``tabledata.list``) are free.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace

from google.api_core import exceptions

from ... import remote, time_limits
from ...datasets.schema import FILE_MONTH, Dataset
from ...doctor_check import Check
from ...errors import PipelineError, WarehouseBusy
from ...partition import Partition
from ...storage.base import Progress, StoredFile, no_progress
from ..base import LedgerRow, Options, Warehouse
from ..tables import ensure_month
from .errors import EMULATOR, ROLES
from .ledger import LedgerTable, is_same
from .load import Load, check_footer
from .session import Session, quote
from .tables import create_dataset, prepare

#: Status that ``ledger()`` gives a load whose replacement began and did not reach the ledger.
INTERRUPTED = "interrupted"

#: How often a load begins again because another one reached the ledger first.
_ROUNDS = 4


class BigQuery(Warehouse):
    """A dataset of BigQuery: ``bigquery://project/dataset``, with ``?location=EU`` where it has to be made elsewhere.

    Credentials are the platform's (application default credentials). With ``BIGQUERY_EMULATOR_HOST`` in the
    environment that server is used, without credentials.
    """

    has_location = True

    def __init__(self, url: str, options: Options | None = None) -> None:
        super().__init__(url, options)
        self.session = Session(url, self.label, self.options)
        self.ledger_table = LedgerTable(self.session)

    def ledger(self) -> dict[Partition, LedgerRow]:
        with time_limits.for_answer(self.label):
            newest = super().ledger()
        if not newest:
            return {}
        with self.session.errors("reading the ledger"):
            marked = self.ledger_table.marked(list(newest.values()))
        return newest | {row.partition: replace(row, status=INTERRUPTED) for row in marked}

    def history(self) -> list[LedgerRow]:
        with self.session.errors("reading the ledger"):
            return self.ledger_table.history()

    def counts(self, dataset: Dataset) -> dict[dt.date | None, int]:
        month = quote(FILE_MONTH.name) if dataset.is_monthly else "CAST(NULL AS DATE)"
        sql = f"SELECT {month} AS file_month, COUNT(*) AS row_count FROM {self.session.sql_name(dataset.table)}"
        with self.session.errors(f"counting the rows of {dataset.table}"):
            try:  # before the query, because not every emulator says of a query why it fails
                self.session.location = self.session.table(dataset.table).location
            except exceptions.NotFound:
                return {}
            # The filter takes all months, and tables whose owner demands one.
            all_months = f" WHERE {month} >= '0001-01-01' GROUP BY 1"
            rows = self.session.query(sql + (all_months if dataset.is_monthly else ""))
        return {row["file_month"]: row["row_count"] for row in rows}

    def load(
        self, dataset: Dataset, parquet: StoredFile, row: LedgerRow, progress: Progress = no_progress
    ) -> LedgerRow:
        with self.session.errors(f"loading {row.partition}"):
            ensure_month(dataset, row)
            check_footer(parquet, row)
            prepare(self.session, parquet, dataset)
            load = Load(self.session, self.ledger_table, dataset, parquet, row, self.on_job)
            progress(0, row.row_count)
            stored = self._on_top(row, load.on_top_of)
            progress(row.row_count, row.row_count)
            return stored

    def append(self, row: LedgerRow) -> LedgerRow:
        def append_to(newest: LedgerRow | None) -> LedgerRow | None:
            return newest if newest and is_same(newest, row) else self.ledger_table.append(row, newest)

        with self.session.errors(f"writing the ledger row of {row.partition}"):
            prepare(self.session)
            return self._on_top(row, append_to)

    def _on_top(self, row: LedgerRow, write: Callable[[LedgerRow | None], LedgerRow | None]) -> LedgerRow:
        """What is written on top of the newest ledger row, and again where another load was quicker."""
        for _ in range(_ROUNDS):
            if stored := write(self.ledger_table.newest(row.partition)):
                return stored
        raise WarehouseBusy(f"{self.label}: others keep loading {row.partition} with another file; run again later")

    def location(self) -> str | None:
        with self.session.errors("looking for the dataset"):
            return self.session.call(self.session.client.get_dataset, self.session.reference).location or None

    def check(self, create: bool = False) -> Iterator[Check]:
        session, subject = self.session, self.label
        try:
            with session.errors("using credentials"):
                client = session.client
            yield Check(f"{subject} credentials", True, remote.emulator(EMULATOR) or "application default credentials")
            with session.errors("looking for the dataset"):
                try:
                    found = session.call(client.get_dataset, session.reference)
                except exceptions.NotFound:
                    if not create:
                        yield Check(
                            f"{subject} dataset",
                            False,
                            f"there is no dataset {session.dataset} in project {session.project}",
                            "python -m pipeline doctor --create makes it",
                        )
                        return
                    found = create_dataset(session, self.options.location)
            yield Check(f"{subject} dataset", True, f"in {found.location or 'an unknown location'}")
            with session.errors("trying a query"):
                session.submit_query("SELECT 1 AS one", dry_run=True, use_query_cache=False)
            yield Check(f"{subject} jobs", True, "queries and load jobs may be started")
        except PipelineError as error:
            # The text begins with the label.
            yield Check.failed("", error, f"check that the service account can do it: {ROLES}")
