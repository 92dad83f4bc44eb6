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

import contextlib
import datetime as dt
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from ... import remote, time_limits, waiting
from ...checks import Check
from ...datasets import DATASETS
from ...datasets.schema import FILE_MONTH, Column, Dataset
from ...errors import PipelineError, WarehouseBusy, WarehouseError, WarehouseUnavailable
from ...partition import Partition, format_month
from ...retry import REQUESTS, pause
from ..base import (
    LEDGER_COLUMNS,
    LEDGER_TABLE,
    LedgerRow,
    Options,
    ParquetFile,
    Progress,
    Warehouse,
    named,
    nearby,
    no_progress,
)
from ..tables import Dialect, ensure_month, missing_columns, next_row
from ..views import not_made, views
from .errors import EMULATOR, ROLES, address, is_passing, is_retried, job_failure, text_of, translate, what

LOGGER = logging.getLogger("pipeline")

#: Types of the declarations in SQL. Times are New York wall-clock, hence DATETIME and never TIMESTAMP.
TYPES = {"int64": "INT64", "float64": "FLOAT64", "string": "STRING", "timestamp": "DATETIME", "date": "DATE"}

#: The names by which the API calls the same types; it answers with these whatever it was told.
_API_NAMES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_SQL_NAMES = {api: sql for sql, api in _API_NAMES.items()}

MARK_TABLE = "etl_replacing"
MARK_COLUMNS: tuple[Column, ...] = (
    Column("dataset", "string", "Dataset of the load"),
    Column("file_month", "date", "Month of the file; null for a table without months"),
    Column("replaced_at", "timestamp", "loaded_at of the ledger row whose rows are about to be replaced, UTC"),
    Column("sha256", "string", "SHA-256 of the raw file that is about to be loaded"),
    Column("run_id", "string", "Run that does it"),
    Column("marked_at", "timestamp", "When, UTC"),
)

#: Status that ``ledger()`` gives a load whose replacement began and did not reach the ledger.
INTERRUPTED = "interrupted"

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

_REQUEST_SECONDS = 60.0
_UPLOAD_SECONDS = (10.0, 300.0)  # to connect, and between two signs of life
_QUERY_SECONDS = 600.0
_JOB_SECONDS = 6 * 3600.0  # BigQuery's own limit of a load job
_FAILURES = 3
_ROUNDS = 4
_ATTEMPTS = 500

#: The explicit schema of a load job, and those of its columns that the table does not have yet.
_Schema = tuple[list[bigquery.SchemaField], list[Column]]


class BigQuery(Warehouse):
    """A dataset of BigQuery: ``bigquery://project/dataset``, with ``?location=EU`` where it has to be made elsewhere.

    Credentials are the platform's (application default credentials). With ``BIGQUERY_EMULATOR_HOST`` in the
    environment that server is used, without credentials.
    """

    has_place = True

    def __init__(self, url: str, options: Options | None = None) -> None:
        super().__init__(url, options)
        remote.emulator(EMULATOR)  # refused here, not in the middle of a run
        parts = urlsplit(url)
        self.project = parts.netloc
        self.dataset = parts.path.strip("/")
        self.location = dict(parse_qsl(parts.query)).get("location")
        self._reference = bigquery.DatasetReference(self.project, self.dataset)
        self._client: tuple[int, bigquery.Client] | None = None
        self._is_told = False  # of the wait for an answer

    # -- reading ---------------------------------------------------------------------------------

    def ledger(self) -> dict[Partition, LedgerRow]:
        with time_limits.for_answer(self.label):
            newest = super().ledger()
        if not newest:
            return {}
        with self._errors("reading the ledger"):
            marks = self._marks()
        return {
            partition: replace(row, status=INTERRUPTED) if (*partition, _moment(row)) in marks else row
            for partition, row in newest.items()
        }

    def history(self) -> list[LedgerRow]:
        # tabledata.list is free, a query is billed for at least 10 MB; the ledger has a few thousand rows at most.
        with self._errors("reading the ledger"):
            rows = [LedgerRow.from_mapping(row) for row in self._list(LEDGER_TABLE, LEDGER_COLUMNS)]
        return sorted(rows, key=_moment)

    def counts(self, dataset: Dataset) -> dict[dt.date | None, int]:
        month = _quote(FILE_MONTH.name) if dataset.is_monthly else "CAST(NULL AS DATE)"
        sql = f"SELECT {month} AS file_month, COUNT(*) AS row_count FROM {self._sql_name(dataset.table)}"
        with self._errors(f"counting the rows of {dataset.table}"):
            try:  # before the query, because not every emulator says of a query why it fails
                table = self._connect().get_table(self._table(dataset.table), retry=self._retry, timeout=_timeout())
            except exceptions.NotFound:
                return {}
            # The filter takes all months, and tables whose owner demands one.
            all_months = f" WHERE {month} >= '0001-01-01' GROUP BY 1"
            rows = self._query(sql + (all_months if dataset.is_monthly else ""), table.location)
        return {row["file_month"]: row["row_count"] for row in rows}

    def _marks(self) -> set[tuple[str, dt.date | None, dt.datetime]]:
        rows = self._list(MARK_TABLE, MARK_COLUMNS)
        return {(row["dataset"], row["file_month"], row["replaced_at"]) for row in rows}

    def _list(self, name: str, columns: Iterable[Column]) -> list[dict[str, Any]]:
        """All rows of a small table; [] where there is none."""
        client = self._connect()
        try:
            table = client.get_table(self._table(name), retry=self._retry, timeout=_timeout())
            rows = list(client.list_rows(table, retry=self._retry, timeout=_timeout()))
        except exceptions.NotFound:
            return []
        return [{column.name: row.get(column.name) for column in columns} for row in rows]

    def _query(
        self, sql: str, location: str | None, parameters: Iterable[bigquery.ScalarQueryParameter] = ()
    ) -> list[Mapping[str, Any]]:
        # The location is named, because after a lost reply the client asks for the job where it was told to run it.
        client = self._connect()
        config = bigquery.QueryJobConfig(
            query_parameters=list(parameters), maximum_bytes_billed=self.options.maximum_bytes_billed
        )
        job = client.query(
            sql, job_config=config, location=location, retry=self._retry, job_retry=None, timeout=_timeout()
        )
        return list(job.result(retry=self._retry, job_retry=None, timeout=_QUERY_SECONDS))

    # -- writing ---------------------------------------------------------------------------------

    def load(
        self, dataset: Dataset, parquet: ParquetFile, row: LedgerRow, progress: Progress = no_progress
    ) -> LedgerRow:
        with self._errors(f"loading {row.partition}"):
            ensure_month(dataset, row)
            _check_footer(parquet, row)
            location = self._prepare(parquet, dataset)
            table = self._connect().get_table(self._table(dataset.table), retry=self._retry, timeout=_timeout())
            schema = _schema(table, dataset)
            progress(0, row.row_count)
            for _ in range(_ROUNDS):
                newest = self._newest(row.partition)
                if newest and _same(newest, row) and self._holds(dataset, newest, location):
                    return newest
                stored = self._load_once(dataset, table, schema, location, parquet, row, newest)
                if stored:
                    progress(row.row_count, row.row_count)
                    return stored
            raise self._overtaken(row)

    def append(self, row: LedgerRow) -> LedgerRow:
        with self._errors(f"writing the ledger row of {row.partition}"):
            location = self._prepare()
            for _ in range(_ROUNDS):
                newest = self._newest(row.partition)
                if newest and _same(newest, row):
                    return newest
                stored = self._append_ledger(location, row, newest)
                if stored:
                    return stored
            raise self._overtaken(row)

    def _load_once(
        self,
        dataset: Dataset,
        table: bigquery.Table,
        schema: _Schema,
        location: str | None,
        parquet: ParquetFile,
        row: LedgerRow,
        newest: LedgerRow | None,
    ) -> LedgerRow | None:
        """Load on top of ``newest`` and append the row; None if another load reached the ledger first."""
        if newest and newest.status == "loaded":
            self._mark(location, row, newest)
        generation = parquet.generation
        job = self._load_job(dataset, table, schema, location, parquet, generation, row, newest)
        if parquet.generation != generation:
            # Which of the two the job has read cannot be known. The next try has another generation in its job id, and
            # so loads again.
            raise WarehouseUnavailable(
                f"{self.label}: {parquet.uri} was replaced while {row.partition} was loaded from it, "
                f"so the load does not count; run again"
            )
        rows = job.output_rows
        if rows is None:  # not every server tells
            rows = self._count(dataset, row.file_month, location)
        if rows != row.row_count:
            raise WarehouseError(
                f"{self.label}: {parquet.uri} brought {rows:,} rows into {table.table_id} and should bring "
                f"{row.row_count:,}, so {row.partition} is not marked as loaded; upload the month again"
            )
        return self._append_ledger(location, row, newest)

    def _load_job(
        self,
        dataset: Dataset,
        table: bigquery.Table,
        schema: _Schema,
        location: str | None,
        parquet: ParquetFile,
        generation: str | None,
        row: LedgerRow,
        newest: LedgerRow | None,
    ) -> bigquery.LoadJob:
        month = row.file_month
        fields, additions = schema
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=fields,
            labels={"dataset": dataset.name},
        )
        if additions and month:  # a whole table that is replaced takes the new schema anyhow, and refuses the option
            config.schema_update_options = [bigquery.SchemaUpdateOption.ALLOW_FIELD_ADDITION]
        partition = format_month(month).replace("-", "") if month else None
        name = f"{dataset.table}${partition}" if partition else dataset.table
        target = self._table(name)
        client = self._connect()

        def submit(job_id: str) -> bigquery.LoadJob:
            common: dict[str, Any] = {"job_id": job_id, "location": location, "job_config": config}
            if not parquet.uri.startswith("file:"):
                return client.load_table_from_uri(parquet.uri, target, retry=self._retry, timeout=_timeout(), **common)
            with parquet.local() as path, path.open("rb") as file:
                return self._retry(client.load_table_from_file)(
                    file, target, rewind=True, num_retries=3, timeout=_UPLOAD_SECONDS, **common
                )

        digest = _digest(
            self.dataset,
            name,
            [getattr(row, field) for field in _IDENTITY],
            generation,
            _stamp(newest),
            # A table that was dropped and made again is empty, whatever jobs of the same name did to the old one.
            table.created,
        )
        return self._run_once(
            f"load-{name.replace('$', '-')}-{digest}",
            location,
            submit,
            is_still_so=lambda: self._count(dataset, month, location) == row.row_count,
        )

    def _append_ledger(self, location: str | None, row: LedgerRow, newest: LedgerRow | None) -> LedgerRow | None:
        """Append ``row`` if ``newest`` is still the partition's newest; None if it is not."""
        filled = next_row(row, newest)
        values = {column.name: getattr(filled, column.name) for column in LEDGER_COLUMNS}
        identity = [getattr(row, field) for field in _IDENTITY]
        since = _moment(newest) if newest else None

        self._insert(
            LEDGER_TABLE,
            LEDGER_COLUMNS,
            values,
            unless=("loaded_at", ">", since),
            location=location,
            identity=[identity, _stamp(newest)],
            is_still_so=lambda: _stamp(self._newest(row.partition)) != _stamp(newest),
        )
        stored = self._newest(row.partition)
        return stored if stored and _stamp(stored) != _stamp(newest) and _same(stored, row) else None

    def _mark(self, location: str | None, row: LedgerRow, replaced: LedgerRow) -> None:
        values = {
            "dataset": row.dataset,
            "file_month": row.file_month,
            "replaced_at": _moment(replaced),
            "sha256": row.sha256,
            "run_id": row.run_id,
            "marked_at": _now(),
        }

        def is_marked() -> bool:
            return (*row.partition, _moment(replaced)) in self._marks()

        if not is_marked():
            self._insert(
                MARK_TABLE,
                MARK_COLUMNS,
                values,
                unless=("replaced_at", "=", _moment(replaced)),
                location=location,
                identity=[row.partition, _stamp(replaced)],
                is_still_so=is_marked,
            )

    def _insert(
        self,
        name: str,
        columns: tuple[Column, ...],
        values: Mapping[str, Any],
        *,
        unless: tuple[str, str, Any],
        location: str | None,
        identity: object,
        is_still_so: Callable[[], bool],
    ) -> None:
        """One row into a small table, unless the partition has one that ``unless`` describes (column, operator, value).

        A query rather than a load job: load jobs are limited to a few per table and ten seconds, and many workers
        share this table; inserts do not disturb each other.
        """
        types = {column.name: TYPES[column.type] for column in columns}
        given = {key: value for key, value in values.items() if value is not None}
        parameters = [bigquery.ScalarQueryParameter(key, types[key], value) for key, value in given.items()]
        items = [f"@{key}" if key in given else f"CAST(NULL AS {types[key]})" for key in types]
        conditions = ["dataset = @dataset", f"file_month {'= @file_month' if 'file_month' in given else 'IS NULL'}"]
        column, operator, limit = unless
        if limit is not None:
            conditions.append(f"{column} {operator} @seen")
            parameters.append(bigquery.ScalarQueryParameter("seen", types[column], limit))
        sql = (
            f"INSERT INTO {self._sql_name(name)} ({', '.join(map(_quote, types))}) "
            f"SELECT {', '.join(items)} FROM (SELECT 1 AS one) AS source WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self._sql_name(name)} WHERE {' AND '.join(conditions)})"
        )
        client = self._connect()

        def submit(job_id: str) -> bigquery.QueryJob:
            config = bigquery.QueryJobConfig(
                query_parameters=parameters, maximum_bytes_billed=self.options.maximum_bytes_billed
            )
            return client.query(
                sql,
                job_config=config,
                job_id=job_id,
                location=location,
                retry=self._retry,
                job_retry=None,  # a job with an id of its own is repeated here, never by the client under another id
                timeout=_timeout(),
            )

        created = client.get_table(self._table(name), retry=self._retry, timeout=_timeout()).created
        digest = _digest(self.dataset, name, values["dataset"], values["file_month"], identity, created)
        self._run_once(f"insert-{name}-{digest}", location, submit, is_still_so)

    def _run_once(
        self,
        name: str,
        location: str | None,
        submit: Callable[[str], Any],
        is_still_so: Callable[[], bool],
    ) -> Any:
        """Run a job at most once for all callers of the same ``name`` and return it when it has succeeded.

        The job may be there already: running, it is waited for; done, its result is taken if ``is_still_so`` (someone
        may have emptied the table since); failed before this call, the cause may be gone, so the next id is tried.
        """
        failures = 0
        for attempt in range(_ATTEMPTS):
            job_id = f"{name}-{attempt}"
            try:
                job = submit(job_id)
                was_done = False
            except exceptions.Conflict:
                try:
                    job = self._known_job(job_id, location)
                except exceptions.NotFound:
                    continue  # BigQuery forgets jobs after half a year, but never their ids
                was_done = job.state == "DONE"
            self._wait(job)
            if job.error_result is None:
                if was_done and not is_still_so():
                    continue
                return job
            if was_done:
                continue
            error = job_failure(job)
            if not is_passing(error):
                raise error
            failures += 1
            if failures == _FAILURES:
                raise error
            pause(REQUESTS.within(self._patience), failures + 1)
        raise WarehouseError(
            f"{self.label}: job {name} failed {_ATTEMPTS} times; see it in the job history of BigQuery"
        )

    def _known_job(self, job_id: str, location: str | None) -> Any:
        """A job that exists; for a moment after its creation BigQuery may answer 404 all the same."""
        retry = Retry(
            predicate=lambda error: isinstance(error, exceptions.NotFound) or is_passing(error),
            initial=REQUESTS.backoff,
            timeout=min(20.0, self._patience),
        )
        try:
            return self._connect().get_job(job_id, location=location, retry=retry, timeout=_timeout())
        except exceptions.RetryError as error:
            raise error.cause or error from None

    def _wait(self, job: Any) -> None:
        if job.job_type == "load":
            self.on_job(
                f"https://console.cloud.google.com/bigquery?project={job.project}"
                f"&j=bq:{job.location or self.options.location}:{job.job_id}&page=queryresults"
            )
        deadline = time.monotonic() + _JOB_SECONDS
        delay = 0.1
        while not job.done(retry=self._retry, timeout=_timeout()):
            if time.monotonic() > deadline:
                raise WarehouseUnavailable(
                    f"{self.label}: job {job.job_id} is still running; the next run waits for it"
                )
            time.sleep(delay)
            delay = min(delay * 1.5, 5.0)

    def _newest(self, partition: Partition) -> LedgerRow | None:
        rows = [row for row in self.history() if row.partition == partition]
        return rows[-1] if rows else None

    def _holds(self, dataset: Dataset, newest: LedgerRow, location: str | None) -> bool:
        """Whether the table has what the ledger says: no load stopped halfway since, no one emptied the table."""
        if (*newest.partition, _moment(newest)) in self._marks():
            return False
        return self._count(dataset, newest.file_month, location) == newest.row_count

    def _count(self, dataset: Dataset, month: dt.date | None, location: str | None) -> int:
        sql = f"SELECT COUNT(*) AS row_count FROM {self._sql_name(dataset.table)}"
        if month is None:
            return int(self._query(sql, location)[0]["row_count"])
        parameter = bigquery.ScalarQueryParameter("file_month", "DATE", month)
        return int(self._query(f"{sql} WHERE file_month = @file_month", location, [parameter])[0]["row_count"])

    def _overtaken(self, row: LedgerRow) -> WarehouseBusy:
        return WarehouseBusy(f"{self.label}: others keep loading {row.partition} with another file; run again later")

    # -- dataset, tables, views ------------------------------------------------------------------

    def _prepare(self, lake: ParquetFile | None = None, dataset: Dataset | None = None) -> str | None:
        """Make what is missing, the table of ``dataset`` among it; returns the location of the BigQuery dataset."""
        client = self._connect()
        location = self._dataset(lake).location or None
        declared = {each.table: each for each in (*DATASETS.values(), *([dataset] if dataset else ()))}
        tables = client.list_tables(self._reference, retry=self._retry, timeout=_timeout())
        existing = {table.table_id: table.labels for table in tables}
        for name, declaration in declared.items():
            if name not in existing:
                self._create(self._declared_table(declaration))
        for name, columns in ((LEDGER_TABLE, LEDGER_COLUMNS), (MARK_TABLE, MARK_COLUMNS)):
            if name not in existing:
                self._create(bigquery.Table(self._table(name), schema=[_field(column) for column in columns]))
        self._add_columns(LEDGER_TABLE, LEDGER_COLUMNS)
        self._prepare_views(existing)
        return location

    def _dataset(self, lake: ParquetFile | None) -> bigquery.Dataset:
        """The dataset, which is made if missing: on the lake's continent, because BigQuery loads from nowhere else."""
        try:
            return self._connect().get_dataset(self._reference, retry=self._retry, timeout=_timeout())
        except exceptions.NotFound:
            bucket = lake.location if lake and not self.location else None
            return self._create_dataset(self.location or nearby(bucket, self.options.location))

    def _create_dataset(self, location: str) -> bigquery.Dataset:
        dataset = bigquery.Dataset(self._reference)
        dataset.location = location
        dataset.description = "Trip records of the NYC Taxi & Limousine Commission, one table per dataset"
        return self._connect().create_dataset(dataset, exists_ok=True, retry=self._retry, timeout=_timeout())

    def _declared_table(self, dataset: Dataset) -> bigquery.Table:
        table = bigquery.Table(self._table(dataset.table), schema=[_field(column) for column in dataset.table_columns])
        table.description = dataset.title
        table.labels = {"dataset": dataset.name}
        if dataset.is_monthly:
            table.time_partitioning = bigquery.TimePartitioning(
                type_=bigquery.TimePartitioningType.MONTH, field=FILE_MONTH.name
            )
            zone = dataset.column_for("PULocationID")
            table.clustering_fields = [name for name in (dataset.pickup, zone.name if zone else None) if name] or None
        return table

    def _add_columns(self, name: str, columns: tuple[Column, ...]) -> None:
        """Add the columns that a table of an older version lacks."""
        table = self._connect().get_table(self._table(name), retry=self._retry, timeout=_timeout())
        if missing := missing_columns(name, columns, _types(table), TYPES):
            table.schema = [*table.schema, *map(_field, missing)]
            self._connect().update_table(table, ["schema"], retry=self._retry, timeout=_timeout())

    def _prepare_views(self, existing: Mapping[str, Mapping[str, str]]) -> None:
        """Make the views, and again when their SQL changed: its digest is a label of the view, seen in the listing."""
        client = self._connect()
        dialect = Dialect(quote=_quote, table=self._sql_name, types=TYPES)
        for name, sql in views(dialect, DATASETS.values()).items():
            digest = _digest(sql)
            if name in existing and "sql" not in existing[name]:
                LOGGER.warning("%s", not_made(self.label, name))
                continue
            if name in existing and existing[name]["sql"] == digest:
                continue
            view = bigquery.Table(self._table(name))
            view.view_query = sql
            view.labels = {"sql": digest}
            try:
                if name in existing:
                    client.update_table(view, ["view_query", "labels"], retry=self._retry, timeout=_timeout())
                else:
                    self._create(view)
            except exceptions.GoogleAPICallError as error:
                # The months are worth more than the view over them.
                LOGGER.warning("%s: the view %s could not be made: %s", self.label, name, text_of(error))

    def _create(self, table: bigquery.Table) -> None:
        self._connect().create_table(table, exists_ok=True, retry=self._retry, timeout=_timeout())

    def _table(self, name: str) -> bigquery.TableReference:
        return self._reference.table(name)

    def _sql_name(self, name: str) -> str:
        return _quote(f"{self.project}.{self.dataset}.{name}")

    # -- doctor ----------------------------------------------------------------------------------

    def place(self) -> str | None:
        with self._errors("looking for the dataset"):
            found = self._connect().get_dataset(self._reference, retry=self._retry, timeout=_timeout())
        return found.location or None

    def check(self, create: bool = False) -> Iterator[Check]:
        subject = self.label
        try:
            with self._errors("using credentials"):
                self._connect()
            yield Check(f"{subject} credentials", True, remote.emulator(EMULATOR) or "application default credentials")
            with self._errors("looking for the dataset"):
                try:
                    found = self._connect().get_dataset(self._reference, retry=self._retry, timeout=_timeout())
                except exceptions.NotFound:
                    if not create:
                        yield Check(
                            f"{subject} dataset",
                            False,
                            f"there is no dataset {self.dataset} in project {self.project}",
                            "python -m pipeline doctor --create makes it",
                        )
                        return
                    found = self._create_dataset(self.location or self.options.location)
            yield Check(f"{subject} dataset", True, f"in {found.location or 'an unknown place'}")
            with self._errors("trying a query"):
                config = bigquery.QueryJobConfig(
                    dry_run=True, use_query_cache=False, maximum_bytes_billed=self.options.maximum_bytes_billed
                )
                self._connect().query(
                    "SELECT 1 AS one", job_config=config, retry=self._retry, job_retry=None, timeout=_timeout()
                )
            yield Check(f"{subject} jobs", True, "queries and load jobs may be started")
        except PipelineError as error:
            # The text begins with the label.
            yield Check.failed("", error, f"see that the service account can do it: {ROLES}")

    # -- connection and errors -------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        return remote.for_server(self.options.patience)

    @property
    def _retry(self) -> Retry:
        patience = self._patience

        def tell(error: Exception) -> None:
            whom = f"BigQuery at {address(error)} ({what(error)})"
            self._is_told = self._is_told or waiting.say(f"waits for {whom}, for at most {patience:g} s")

        return _Retry(
            predicate=is_retried,
            initial=REQUESTS.backoff,
            maximum=REQUESTS.max_backoff,
            timeout=patience,
            on_error=tell,
        )

    def _connect(self) -> bigquery.Client:
        """The client of this process: made at the first use, so that none crosses a fork."""
        if self._client is None or self._client[0] != os.getpid():
            emulator = remote.emulator(EMULATOR)
            if emulator:
                client = bigquery.Client(
                    self.project, credentials=AnonymousCredentials(), client_options={"api_endpoint": emulator}
                )
            else:
                try:
                    client = bigquery.Client(self.project)
                except remote.NO_KEY_FILE as error:
                    raise WarehouseError(remote.unusable_key_file(error)) from None
            self._client = os.getpid(), client
        return self._client[1]

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Everything that Google's libraries raise becomes one line of ours, cut loose from their tracebacks."""
        try:
            yield
        except WarehouseError as error:
            raise named(error, self.label) from None
        except PipelineError:
            raise
        except Exception as error:
            translated = translate(error, f"{self.label}: {doing}")
            if translated is None:
                raise
            raise translated from None
        finally:
            if self._is_told:
                self._is_told = False
                waiting.say("")


class _Retry(Retry):
    """Google's, for answers that may drip: while somebody waits, each is given up in time, however many bytes come."""

    def __call__(self, func: Any, on_error: Any = None) -> Any:
        return super().__call__(time_limits.within(remote.for_server(float("inf")), func), on_error)


# -- small things --------------------------------------------------------------------------------


def _timeout() -> float:
    """Seconds to connect, and to wait for the answer to a request."""
    return remote.for_server(_REQUEST_SECONDS)


def _quote(name: str) -> str:
    return f"`{name}`"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def _same(stored: LedgerRow, row: LedgerRow) -> bool:
    return all(getattr(stored, field) == getattr(row, field) for field in _IDENTITY)


def _moment(row: LedgerRow) -> dt.datetime:
    """``loaded_at``, which grows strictly in a partition and so names a row of it; a row without one is the oldest."""
    return row.loaded_at or _NO_TIME


def _stamp(row: LedgerRow | None) -> str | None:
    return _moment(row).isoformat() if row else None


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:24]


def _field(column: Column) -> bigquery.SchemaField:
    type_ = TYPES[column.type]
    return bigquery.SchemaField(column.name, _API_NAMES.get(type_, type_), description=column.description[:1024])


def _types(table: bigquery.Table) -> dict[str, str]:
    """Column -> type of a table, spelled as in SQL."""
    return {
        field.name: _SQL_NAMES.get(field.field_type.upper(), field.field_type.upper())
        if field.mode != "REPEATED"
        else f"ARRAY<{field.field_type}>"
        for field in table.schema
    }


def _schema(table: bigquery.Table, dataset: Dataset) -> _Schema:
    """The explicit schema of a load job (the table's fields, then the new ones) and the new columns.

    Raises WarehouseError if the table is not what the declaration says.
    """
    additions = missing_columns(table.table_id, dataset.table_columns, _types(table), TYPES)
    declared = {column.name.lower() for column in dataset.table_columns}
    for field in table.schema:
        if field.mode == "REQUIRED" and field.name.lower() not in declared and not field.default_value_expression:
            raise WarehouseError(
                f"table {table.table_id}: column {field.name} of your own is REQUIRED, and no file has it; "
                f"ALTER COLUMN {field.name} DROP NOT NULL or give it a default, then run again"
            )
    partitioning = table.time_partitioning
    if dataset.is_monthly and partitioning and (partitioning.type_, partitioning.field) != ("MONTH", FILE_MONTH.name):
        raise WarehouseError(
            f"table {table.table_id} is partitioned by {partitioning.type_} of {partitioning.field or 'arrival'} and "
            f"should be by MONTH of {FILE_MONTH.name}; rename it, then run again"
        )
    return [*table.schema, *map(_field, additions)], additions


def _check_footer(parquet: ParquetFile, row: LedgerRow) -> None:
    """Refuse a local file with another number of rows before it is sent, while the table is as it was."""
    if not parquet.uri.startswith("file:"):
        return
    import pyarrow.parquet as pq

    with parquet.local() as path:
        rows = pq.read_metadata(path).num_rows
    if rows != row.row_count:
        raise WarehouseError(
            f"{parquet.uri} has {rows:,} rows and should have {row.row_count:,}; upload {row.partition} again"
        )
