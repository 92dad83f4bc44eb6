"""PostgreSQL 12 or later: one partition per month, each load one transaction.

Monthly tables are ``PARTITION BY LIST (file_month)``. All of a load happens in one transaction of one connection, under
an advisory lock on its partition: the file is copied into a table that nobody else can see, counted, put in place and
entered in the ledger. So nothing is left behind, whatever kills it: the server takes back the unfinished table
together with the rest.

How a month is put in place decides who has to wait:

* A new month is attached, which passes beside readers. The table has a CHECK of the month, so that attaching
  does not read it again.
* A month that is there already is replaced by DELETE and INSERT inside its partition. Exchanging the partition itself
  would need DETACH or DROP, which wait for every open reader of the parent while new readers queue up
  behind them, and a reader in REPEATABLE READ would then see no rows at all. The dead rows this costs are vacuumed
  right afterwards. The zone table is replaced in the same way.

The index on the pickup time is BRIN: files are nearly in that order, so it skips most blocks for a range of time;
it takes kilobytes and no noticeable time, where a B-tree takes a fifth of the table and would be written again
row by row whenever a month is replaced. A month as a whole needs no index: it is a partition.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import psycopg2
import psycopg2.errors

from ...datasets import DATASETS
from ...datasets.schema import FILE_MONTH, Dataset
from ...doctor_check import Check
from ...errors import PipelineError
from ...partition import Partition
from ...storage.base import Progress, StoredFile, no_progress
from ...waiting import Wait
from ..base import LEDGER_TABLE, LedgerRow, Options, Warehouse
from ..tables import counts, declared, ensure_month, literal, next_row, quote, texts
from ..views import COMMENTS, comment, not_made, views
from .connection import Server
from .copy import open_parquet
from .errors import USE_UTF8, translate
from .load import PartitionLoad
from .session import ALL_TABLES, Session, text_of
from .tables import changes

LOGGER = logging.getLogger("pipeline")

#: The first with SHARE UPDATE EXCLUSIVE for ATTACH PARTITION; before that, it waited for every reader.
OLDEST_SERVER = 12

#: Seconds that a change of a table may make new readers wait, and the pause in which they get through.
ALTER_TIMEOUT, ALTER_PAUSE = 0.5, 0.5


class PostgreSQL(Warehouse):
    """A schema of a PostgreSQL database, by an ordinary role that owns it.

    The schema is the first of the role's ``search_path``, which ``?options=-csearch_path%3Detl`` in the URL sets. The
    password is taken from the URL, PGPASSWORD or the .pgpass file (PGPASSFILE).
    """

    def __init__(self, url: str, options: Options | None = None) -> None:
        super().__init__(url, options)
        self.server = Server(url, self.label, self.options)

    def ledger(self) -> dict[Partition, LedgerRow]:
        with self.server.session() as session:
            return {row.partition: row for row in session.ledger_rows(newest=True)}

    def history(self) -> list[LedgerRow]:
        with self.server.session() as session:
            return session.ledger_rows()

    def load(
        self, dataset: Dataset, parquet: StoredFile, row: LedgerRow, progress: Progress = no_progress
    ) -> LedgerRow:
        ensure_month(dataset, row)
        with (
            parquet.local() as path,
            open_parquet(path, parquet.uri, dataset, row) as file,
            self.server.session() as session,
        ):
            self._prepare(session, dataset)
            with self._locked(session, row.partition, session.rows_of(dataset.table) + row.row_count):
                stored = next_row(row, session.newest(row.partition))
                load = PartitionLoad(session, dataset, row.file_month, row.row_count)
                load.fill(file, progress)
                session.insert_ledger(stored)
                load.replace()
            load.vacuum()
        return stored

    def append(self, row: LedgerRow) -> LedgerRow:
        with self.server.session() as session:
            self._prepare(session, DATASETS.get(row.dataset))
            with self._locked(session, row.partition):
                stored = next_row(row, session.newest(row.partition))
                session.insert_ledger(stored)
        return stored

    def counts(self, dataset: Dataset) -> dict[dt.date | None, int]:
        with self.server.session() as session:
            if dataset.table not in session.relations([dataset.table]):
                return {}
            with session.transaction(rows=session.rows_of(dataset.table)):
                return counts(session.dialect, dataset, session.run)

    def texts(self, dataset: Dataset) -> dict[dt.date | None, dict[str, int]]:
        with self.server.session() as session:
            table = session.relations([dataset.table]).get(dataset.table)
            if not table:
                return {}
            with session.transaction(rows=session.rows_of(dataset.table)):
                return texts(session.dialect, dataset, table.columns, session.run)

    def check(self, create: bool = False) -> Iterable[Check]:
        subject = self.label
        try:
            if create:
                self.server.create_database()
            with self.server.session() as session:
                version = session.server_version
                if version < OLDEST_SERVER:
                    remedy = f"use PostgreSQL {OLDEST_SERVER} or later"
                    yield Check(subject, False, f"PostgreSQL {version} is too old", remedy)
                    return
                yield Check(subject, True, f"PostgreSQL {version} answers")
                encoding = session.connection.get_parameter_status("server_encoding")
                if encoding != "UTF8":
                    yield Check(
                        f"{subject} encoding", False, f"{encoding}, which cannot hold every text", USE_UTF8, True
                    )
                if create:
                    with session.transaction():
                        session.create_schema()
                yield self._check_schema(session)
                yield self._check_connections(session)
        except PipelineError as error:
            yield Check.failed(subject, error)

    # -- locks -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, session: Session, partition: Partition, rows: int = 0) -> Iterator[None]:
        """The transaction that loads a partition, alone with it. WarehouseBusy names who has it for too long.

        ``rows``: how many a statement of it goes through at most.
        """
        key = session.lock_key(partition)
        try:
            with session.transaction(rows=rows):
                session.run("SELECT pg_advisory_xact_lock(%s)", key)
                yield
        except psycopg2.errors.LockNotAvailable as error:
            raise self.server.busy(str(partition), session.holders(key)) from error

    # -- tables ----------------------------------------------------------------------------------

    def _prepare(self, session: Session, dataset: Dataset | None) -> None:
        """Make the tables and views that are missing and the columns that are new; usually one query and no lock.

        A change waits for open readers of its table and makes new ones wait, so it is tried again and again for a
        short time.
        """
        wanted = declared(dataset)
        if changes(session, wanted):
            with Wait(self.options.lock_timeout, self.label) as wait:
                self._change_tables(session, wanted, wait)
        self._prepare_views(session, wanted)

    def _change_tables(self, session: Session, wanted: Sequence[Dataset], wait: Wait) -> None:
        while changes(session, wanted):
            try:
                with session.transaction(ALTER_TIMEOUT):
                    # Of two workers that find a table missing, the second waits here and then finds it.
                    session.run("SELECT pg_advisory_xact_lock(%s)", session.lock_key(ALL_TABLES))
                    session.create_schema()
                    for statement in changes(session, wanted):
                        session.run(statement)
                break
            except psycopg2.errors.LockNotAvailable as error:
                holders = session.holders(session.lock_key(ALL_TABLES))
                if not wait.again(holders, ALTER_PAUSE):
                    raise self.server.busy("a table that needs a change", holders) from error

    def _prepare_views(self, session: Session, wanted: Iterable[Dataset]) -> None:
        """Make or renew the views. Only readers need them: one that cannot be renewed is reported and fails no load."""
        found = session.relations(COMMENTS)
        for name, select in views(session.dialect, wanted).items():
            text, there = comment(name, select), found.get(name)
            if there and not (there.kind == "v" and (there.comment or "").startswith(COMMENTS[name])):
                LOGGER.warning("%s", not_made(self.label, name))
                continue
            if there and there.comment == text:
                continue
            view = session.table(name)
            create = f"CREATE OR REPLACE VIEW {view} AS {select}; COMMENT ON VIEW {view} IS {literal(text)}"
            # REPLACE keeps grants, but takes new columns only at the end.
            for statement in (create, f"DROP VIEW {view}; {create}"):
                try:
                    with session.transaction(ALTER_TIMEOUT):
                        session.run("SELECT pg_advisory_xact_lock(%s)", session.lock_key(ALL_TABLES))
                        session.run(statement)
                    break
                except psycopg2.errors.InvalidTableDefinition:
                    continue
                except (psycopg2.ProgrammingError, psycopg2.NotSupportedError, psycopg2.InternalError) as error:
                    LOGGER.warning("%s: view %s is not renewed: %s", self.label, name, text_of(error))
                    break
                except psycopg2.errors.LockNotAvailable:
                    LOGGER.warning("%s: view %s is in use and is renewed by a later load", self.label, name)
                    break

    # -- doctor ----------------------------------------------------------------------------------

    def _check_schema(self, session: Session) -> Check:
        """Whether the role may do what a load does, by doing it in a transaction that is rolled back."""
        subject, month = f"{self.label} schema {session.schema}", quote(FILE_MONTH.name)
        table, part = session.table("etl_doctor"), session.table("etl_doctor_2021_01")
        try:
            with session.transaction():
                session.run(
                    f"CREATE TABLE {table} ({month} date) PARTITION BY LIST ({month});"
                    f"CREATE TABLE {part} ({month} date);"
                    f"ALTER TABLE {table} ATTACH PARTITION {part} FOR VALUES IN ('2021-01-01')"
                )
                foreign = session.run(
                    "SELECT relname, pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = %s::regnamespace AND "
                    "relname = ANY(%s) AND NOT pg_has_role(relowner, 'USAGE')",
                    quote(session.schema),
                    [LEDGER_TABLE, *(dataset.table for dataset in DATASETS.values())],
                )
                session.call(session.connection.rollback)
        except psycopg2.Error as error:
            session.call(session.connection.rollback)
            remedy = "python -m pipeline doctor --create makes a missing schema"
            return replace(
                Check.failed(self.label, translate(error, self.label, self.server.url), remedy), subject=subject
            )
        if foreign:
            owners = ", ".join(f"{name} of {owner}" for name, owner in foreign)
            return Check(subject, False, f"tables of another owner: {owners}", "make the role of the URL their owner")
        return Check(subject, True, "the role may create and attach tables")

    def _check_connections(self, session: Session) -> Check:
        limit, used = session.run(
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int, "
            "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
        )[0]
        free = limit - used
        subject = f"{self.label} connections"
        if free < 1:
            return Check(subject, False, f"no free connection of {limit}", "raise max_connections or use fewer workers")
        return Check(subject, True, f"{free} of {limit} connections are free")
