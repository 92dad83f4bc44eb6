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
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import psycopg2
import psycopg2.errors
import pyarrow.parquet as pq
import sqlalchemy

from ...datasets import DATASETS
from ...datasets.schema import FILE_MONTH, Dataset
from ...errors import PipelineError, WarehouseBusy, WarehouseError, WarehouseUnavailable
from ...partition import Partition, format_month
from ...remote import capped, for_server
from ...time_limits import answer_of
from ...waiting import SAID_AFTER, Wait, gave_up, remaining
from ..base import LEDGER_TABLE, Check, LedgerRow, ParquetFile, Progress, Warehouse, named, no_progress
from ..tables import counts, declared, ensure_month, literal, next_row, quote, texts
from ..views import COMMENTS, comment, not_made, views
from .copy import copy, open_parquet
from .errors import MONTH_CHECK, USE_UTF8, translate, translate_refusal
from .session import ALL_TABLES, BLOCKERS, Session, Statement, sessions_text, text_of
from .tables import changes, index_of

LOGGER = logging.getLogger("pipeline")

#: The first with SHARE UPDATE EXCLUSIVE for ATTACH PARTITION; before that, it waited for every reader.
OLDEST_SERVER = 12

#: Seconds that a change of a table may make new readers wait, and the pause in which they get through.
ALTER_TIMEOUT, ALTER_PAUSE = 0.5, 0.5

#: Seconds for a connection to one address, and those of silence after which a server counts as gone, if new connections
#: get no answer either.
CONNECT_TIMEOUT, SILENCE = 10.0, 60.0

#: Rows a second that the slowest server gets through.
ROWS_PER_SECOND = 5_000


class PostgreSQL(Warehouse):
    """A schema of a PostgreSQL database, by an ordinary role that owns it.

    The schema is the first of the role's ``search_path``, which ``?options=-csearch_path%3Detl`` in the URL sets. The
    password is taken from the URL, PGPASSWORD or the .pgpass file (PGPASSFILE).
    """

    def ledger(self) -> dict[Partition, LedgerRow]:
        with self._session() as session:
            return {row.partition: row for row in session.ledger_rows(newest=True)}

    def history(self) -> list[LedgerRow]:
        with self._session() as session:
            return session.ledger_rows()

    def load(
        self, dataset: Dataset, parquet: ParquetFile, row: LedgerRow, progress: Progress = no_progress
    ) -> LedgerRow:
        ensure_month(dataset, row)
        with parquet.local() as path, open_parquet(path, parquet.uri, dataset, row) as file, self._session() as session:
            self._prepare(session, dataset)
            with self._locked(session, row.partition, session.rows_of(dataset.table) + row.row_count):
                stored = next_row(row, session.newest(row.partition))
                place = _Place(session, dataset, row.file_month, row.row_count)
                place.fill(file, progress)
                session.insert_ledger(stored)
                place.put()
            place.tidy()
        return stored

    def append(self, row: LedgerRow) -> LedgerRow:
        with self._session() as session:
            self._prepare(session, DATASETS.get(row.dataset))
            with self._locked(session, row.partition):
                stored = next_row(row, session.newest(row.partition))
                session.insert_ledger(stored)
        return stored

    def counts(self, dataset: Dataset) -> dict[dt.date | None, int]:
        with self._session() as session:
            if dataset.table not in session.relations([dataset.table]):
                return {}
            with session.transaction(rows=session.rows_of(dataset.table)):
                return counts(session.dialect, dataset, session.run)

    def texts(self, dataset: Dataset) -> dict[dt.date | None, dict[str, int]]:
        with self._session() as session:
            table = session.relations([dataset.table]).get(dataset.table)
            if not table:
                return {}
            with session.transaction(rows=session.rows_of(dataset.table)):
                return texts(session.dialect, dataset, table.columns, session.run)

    def check(self, create: bool = False) -> Iterable[Check]:
        subject = self.label
        try:
            if create:
                self._create_database()
            with self._session() as session:
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

    # -- connections -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """A connection that is closed at the end; errors in the words of the pipeline."""
        try:
            with contextlib.closing(self._connect(self._url)) as connection:
                encoding = connection.get_parameter_status("server_encoding")
                if encoding == "SQL_ASCII":
                    raise WarehouseError(
                        f"{self.label}: the database has the encoding SQL_ASCII, which takes any bytes for text; "
                        f"{USE_UTF8}"
                    )
                session = Session(
                    connection,
                    self._schema_of_url(),
                    lock_limit=partial(remaining, self.options.lock_timeout, self.label),
                    limit=self._limit,
                    watched=self._watched,
                )
                if session.schema is None:
                    raise WarehouseError(
                        f"{self.label}: no schema of the search_path exists; name one in the URL by "
                        f"?options=-csearch_path%3Dname"
                    )
                try:
                    yield session
                except psycopg2.errors.LockNotAvailable as error:
                    session.call(connection.rollback)
                    holders = session.holders(session.lock_key(ALL_TABLES))
                    raise self._busy("a table", holders) from error
        except psycopg2.Error as error:
            raise translate(error, self.label, self._url) from error
        except WarehouseError as error:
            raise named(error, self.label) from error.__cause__

    def _limit(self, rows: int) -> float:
        """Seconds that a statement may take which goes through so many rows."""
        seconds = self.options.statement_timeout
        return seconds + rows / ROWS_PER_SECOND if rows else for_server(seconds)

    @contextlib.contextmanager
    def _watched(self, statement: Statement) -> Iterator[None]:
        """Tell whom a statement waits for that takes long, and give it up in time: WarehouseUnavailable.

        libpq waits for an answer as long as it takes, and a server that was stopped, or a network that lost a
        connection, do not break it off.
        """
        done, changing = threading.Event(), threading.Lock()

        def give_up(seconds: float) -> None:
            with changing:
                if not done.is_set():
                    statement.give_up(seconds)

        def watch() -> None:
            if done.wait(min(SAID_AFTER, statement.limit)):
                return
            asking = partial(self._ask_about, statement, done, wait, give_up)
            threading.Thread(target=asking, name="lock watch", daemon=True).start()
            while not done.wait(max(0.0, statement.left())):
                if statement.left() <= 0:
                    return give_up(statement.limit)

        with Wait(self.options.lock_timeout, self.label) as wait:
            threading.Thread(target=watch, name="statement watch", daemon=True).start()
            try:
                yield
            except psycopg2.Error as error:
                if statement.given_up_after is None:
                    raise
                raise WarehouseUnavailable(
                    f"{self.label}: no answer within {statement.given_up_after:.0f} s; "
                    f"check that the server runs and may be reached"
                ) from error
            finally:
                with changing:
                    done.set()

    def _ask_about(
        self, statement: Statement, done: threading.Event, wait: Wait, give_up: Callable[[float], None]
    ) -> None:
        """Ask again and again, on other connections, whom a statement waits for; give it up if nobody answers."""
        answered = 0.0

        def ask() -> str:
            with contextlib.closing(self._open(self._url)) as connection, connection.cursor() as cursor:
                cursor.execute(BLOCKERS, [statement.pid])
                return sessions_text(cursor.fetchall())

        while not done.is_set():
            try:
                holders = answer_of(ask, for_server(SILENCE), self.label)
                answered = time.monotonic()
                if holders and not done.is_set():
                    wait.left(holders)
            except (psycopg2.Error, TimeoutError) as error:
                if isinstance(error, psycopg2.Error) and "timeout expired" not in str(error):
                    answered = time.monotonic()  # a server that refuses us is there
                silence = time.monotonic() - max(answered, statement.heard)
                if silence >= for_server(SILENCE):
                    return give_up(silence)
            done.wait(SAID_AFTER)

    @cached_property
    def _url(self) -> sqlalchemy.URL:
        return sqlalchemy.make_url(self.url)

    def _connect(self, url: sqlalchemy.URL) -> psycopg2.extensions.connection:
        """A connection, or why there is none. libpq's own time-out counts for each address, and not for names."""
        seconds = for_server(SILENCE)
        try:
            return answer_of(partial(self._open, url), seconds, self.label)
        except TimeoutError:
            raise WarehouseUnavailable(
                f"{self.label}: no answer within {seconds:g} s; check that the server runs and may be reached"
            ) from None
        except psycopg2.Error as error:
            raise translate_refusal(error, self.label, self._url) from error

    def _open(self, url: sqlalchemy.URL) -> psycopg2.extensions.connection:
        """A connection as SQLAlchemy's dialect would open it, without the questions that an engine asks at first."""
        defaults: dict[str, Any] = {
            "connect_timeout": max(2, int(for_server(CONNECT_TIMEOUT))),  # seconds; libpq takes no fewer
            "application_name": f"pipeline {socket.gethostname()[:40]} {os.getpid()}",
            # Notice a peer that vanished within a minute, not after the two hours of the system.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        positional, named = url.get_dialect()().create_connect_args(url)
        connection = psycopg2.connect(*positional, **{**defaults, **named, "client_encoding": "UTF8"})
        connection.set_session(isolation_level="READ COMMITTED")
        # Whatever the URL, the role or the database say: it is UTF-8 that we send.
        connection.set_client_encoding("UTF8")
        return connection

    def _schema_of_url(self) -> str | None:
        """The first schema of the search_path that the URL sets; None if it sets none."""
        options = self._url.query.get("options", "")
        text = options if isinstance(options, str) else " ".join(options)
        # As libpq reads it: a backslash takes the meaning from what follows, which is how a name gets a blank.
        match = re.search(r'search_path=(?:"((?:[^"]|"")+)"|([^\s,"$]+))', re.sub(r"\\(.)", r"\1", text))
        return match and (match[1].replace('""', '"') if match[1] else match[2].lower())

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
            raise self._busy(str(partition), session.holders(key)) from error

    def _busy(self, what: str, holders: str) -> WarehouseBusy:
        return WarehouseBusy(
            f"{self.label}: {what} is held by {holders}; gave up after "
            f"{capped(self.options.lock_timeout):g} s; run again when it is done",
            is_repeated=gave_up(self.label, holders),
        )

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
                left = wait.left(holders)
                if not left:
                    raise self._busy("a table that needs a change", holders) from error
                time.sleep(min(ALTER_PAUSE, left))

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

    def _create_database(self) -> None:
        """Create the database if connecting says that it is missing. Needs a role with CREATEDB."""
        url = self._url
        try:
            self._connect(url).close()
        except WarehouseError as error:
            if f'database "{url.database}" does not exist' not in str(error):
                raise
            try:
                with contextlib.closing(self._connect(url.set(database="postgres", query={}))) as connection:
                    connection.autocommit = True
                    statement = Statement(connection, self.options.statement_timeout)
                    with self._watched(statement), connection.cursor() as cursor:
                        cursor.execute(f"CREATE DATABASE {quote(str(url.database))} ENCODING 'UTF8' TEMPLATE template0")
            except psycopg2.Error as refused:
                raise translate(refused, self.label, self._url) from refused

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
            return replace(Check.failed(self.label, translate(error, self.label, self._url), remedy), subject=subject)
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


class _Place:
    """Where the rows of a partition are copied to within the transaction of a load, and how they get into the table."""

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

    def put(self) -> None:
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

    def tidy(self) -> None:
        """After the commit: make the room of replaced rows usable again. Autovacuum does it where this fails."""
        if not self.occupied:
            return
        try:
            self.session.begin_alone(self.rows)
            self.session.run(f"VACUUM (ANALYZE, SKIP_LOCKED) {self.occupied}")
        except (psycopg2.Error, PipelineError) as error:
            LOGGER.warning("%s is loaded, but was not vacuumed: %s", self.occupied, text_of(error))
