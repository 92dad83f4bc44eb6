"""One open session of PostgreSQL: its statements and transactions, and its reads of catalog and ledger."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from itertools import islice
from typing import Any, TypeVar

import psycopg2
import psycopg2.errors
import psycopg2.extras

from ... import time_limits
from ...errors import PipelineError, WarehouseError
from ...partition import Partition
from ..base import LEDGER_COLUMNS, LEDGER_TABLE, LedgerRow
from ..tables import Dialect, insert_ledger, quote

T = TypeVar("T")

#: Who has what a server process waits for; to be asked in another session.
BLOCKERS = (
    "SELECT pid, usename, application_name FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(%s)) ORDER BY 1"
)

#: The key of the lock on the shape of all tables; no dataset has this name.
ALL_TABLES = Partition("tables", None)

#: As ``format_type`` of the server spells them.
TYPES = {
    "int64": "bigint",
    "float64": "double precision",
    "string": "text",
    "timestamp": "timestamp without time zone",
    "date": "date",
}
#: The same as the numbers that a result names them by.
_OIDS = {"int64": 20, "float64": 701, "string": 25, "timestamp": 1114, "date": 1082}

#: Settings of every connection, whatever the role, the database, PGOPTIONS or a service file say.
SETTINGS = {
    # Functions and operators are the server's own: whoever may create some in a schema could put theirs in their place.
    "search_path": "pg_catalog, pg_temp",
    "row_security": "off",  # rows that a policy would hide are an error, not missing
    "standard_conforming_strings": "on",
    # A server that hears nothing from a vanished client would hold its locks for hours.
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

#: Settings that only newer servers have, or only those on Linux: how often a server that works on a long statement
#: looks whether we are still there, and a limit of whole transactions.
NEWER_SETTINGS = {"client_connection_check_interval": "5000", "transaction_timeout": "0"}

#: Seconds by which a statement may take longer than the wait for a lock, and by which we are more patient than the
#: server: who has the lock is a better answer than that it took too long, and that better than no answer.
GRACE = 2.0


class Relation:
    """A table or view of the catalog: its kind (``pg_class.relkind``), comment and columns."""

    def __init__(self, kind: str, comment: str | None) -> None:
        self.kind, self.comment = kind, comment
        #: Name of a column -> its definition, bare type and comment.
        self.columns: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.comments: dict[str, str | None] = {}
        #: Generated and identity columns, and what CREATE TABLE says of defaults and generated values.
        self.computed: dict[str, str] = {}
        self.values: dict[str, str] = {}


class Statement:
    """What the server works on: given up ``limit`` seconds after it began, or after it was last heard to go on."""

    def __init__(self, connection: psycopg2.extensions.connection, limit: float) -> None:
        self._connection, self.limit = connection, limit
        self.pid = connection.info.backend_pid
        #: Seconds without an answer after which it was given up.
        self.given_up_after: float | None = None
        self.goes_on()

    def goes_on(self) -> None:
        """The server has taken the next piece of what we send."""
        self.heard = time.monotonic()

    def left(self) -> float:
        return self.heard + self.limit - time.monotonic()

    def give_up(self, seconds: float) -> None:
        """Cut the line. libpq, which waits for the server without a limit, then ends at once; called by a thread."""
        self.given_up_after = seconds
        with (
            contextlib.suppress(OSError, psycopg2.Error),
            socket.socket(fileno=os.dup(self._connection.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)


def _rows(cursor: Any) -> list[Any]:
    """What a statement answered. Raises WarehouseError for a date or time that Python does not have."""
    try:
        return list(cursor.fetchall())
    except (ValueError, OverflowError) as error:
        raise WarehouseError(
            f"a table of the pipeline has a date or time that no run wrote: {error}; correct that row, then run again"
        ) from None


class Session:
    """An open connection: statements, transactions and what the pipeline asks the catalog.

    ``lock_limit`` gives the seconds that a lock may be waited for, ``limit`` those that a statement may take which
    goes through so many rows. ``watched`` is a context around each statement, which gives it up in time.
    """

    def __init__(
        self,
        connection: psycopg2.extensions.connection,
        schema: str | None,
        lock_limit: Callable[[], float],
        limit: Callable[[int], float],
        watched: Callable[[Statement], contextlib.AbstractContextManager[None]],
    ) -> None:
        self.connection = connection
        self._lock_limit, self._limit, self._watched = lock_limit, limit, watched
        self.server_version = connection.server_version // 10_000
        lock = lock_limit()
        self._seconds = max(limit(0), lock + GRACE)
        settings = {
            **SETTINGS,
            "lock_timeout": _milliseconds(lock),
            "statement_timeout": _milliseconds(self._seconds),
            # Of us only a process that was stopped leaves a transaction open without a statement.
            "idle_in_transaction_session_timeout": _milliseconds(max(60.0, self._seconds)),
        }
        # Names are spelled out in full here, because the search_path is still the role's.
        newer = (
            "CASE WHEN pg_catalog.current_setting(%s, true) IS NOT NULL AND pg_catalog.version() "
            "OPERATOR(pg_catalog.~~) '%%linux%%' THEN pg_catalog.set_config(%s, %s, false) END"
        )
        calls = ["pg_catalog.set_config(%s, %s, false)"] * len(settings) + [newer] * len(NEWER_SETTINGS)
        found = self.run(
            f"SELECT pg_catalog.current_schema(), {', '.join(calls)}",
            *(part for pair in settings.items() for part in pair),
            *(part for name, value in NEWER_SETTINGS.items() for part in (name, name, value)),
        )
        self.schema: str = schema or found[0][0]
        self.call(connection.commit)
        self.dialect = Dialect(quote=quote, table=self.table, types=TYPES)

    def table(self, name: str) -> str:
        return f"{quote(self.schema)}.{quote(name)}"

    @contextlib.contextmanager
    def statement(self) -> Iterator[Statement]:
        """The context of each call that waits for the server."""
        statement = Statement(self.connection, self._seconds + GRACE)
        with self._watched(statement):
            yield statement

    def call(self, function: Callable[[], T]) -> T:
        """What a function returns that waits for the server. A thread runs it: libpq would not let Ctrl-C through."""
        with self.statement() as statement:
            answer = time_limits.begun(function, "statement")
            try:
                futures.wait([answer])
            except BaseException:
                statement.give_up(0)
                raise
            return answer.result()

    def run(self, statement: str, *values: object) -> list[tuple]:
        """The rows of a statement, in the transaction that is open or begins with it."""

        def execute() -> list[tuple]:
            with self.connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return _rows(cursor) if cursor.description else []

        return self.call(execute)

    def change(self, statement: str) -> int:
        """The number of rows that a statement has changed."""

        def execute() -> int:
            with self.connection.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.rowcount)

        return self.call(execute)

    @contextlib.contextmanager
    def transaction(self, at_most: float = math.inf, rows: int = 0) -> Iterator[None]:
        """Commit at the end, roll back on any error.

        ``at_most``: seconds for which a lock is waited for, if fewer than usual. ``rows``: how many a statement goes
        through at most.
        """
        before = self._seconds
        try:
            self.call(self.connection.rollback)
            lock = min(at_most, self._lock_limit())
            self._bound(lock, max(self._limit(rows), lock + GRACE), is_local=True)
            yield
            self.call(self.connection.commit)
        except BaseException:
            with contextlib.suppress(psycopg2.Error, PipelineError):
                self.call(self.connection.rollback)
            raise
        finally:
            self._seconds = before

    def begin_alone(self, rows: int) -> None:
        """Each statement commits by itself from now on, and goes through so many rows at most."""
        self.connection.autocommit = True
        self._bound(self._lock_limit(), self._limit(rows), is_local=False)

    def _bound(self, lock: float, seconds: float, is_local: bool) -> None:
        self.run(
            "SELECT set_config('lock_timeout', %s, %s), set_config('statement_timeout', %s, %s)",
            *(_milliseconds(lock), is_local, _milliseconds(seconds), is_local),
        )
        self._seconds = seconds

    def create_schema(self) -> None:
        if not self.run("SELECT 1 FROM pg_namespace WHERE nspname = %s", self.schema):
            self.run(f"CREATE SCHEMA {quote(self.schema)}")

    def relations(self, names: Iterable[str]) -> dict[str, Relation]:
        """Those of the named tables and views that exist in the schema."""
        found: dict[str, Relation] = {}
        for name, kind, comment, column, type_, column_comment, required, collation, value, computed in self.run(
            "SELECT c.relname, c.relkind::text, obj_description(c.oid, 'pg_class'), a.attname, "
            "format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum), a.attnotnull, "
            "(SELECT format(' COLLATE %%I.%%I', s.nspname, o.collname) FROM pg_collation o "
            "JOIN pg_namespace s ON s.oid = o.collnamespace JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE o.oid = a.attcollation AND a.attcollation <> t.typcollation), "
            "(SELECT pg_get_expr(d.adbin, c.oid) FROM pg_attrdef d WHERE d.adrelid = c.oid AND d.adnum = a.attnum), "
            "CASE WHEN a.attidentity <> '' THEN 'an identity' WHEN a.attgenerated <> '' THEN 'a generated' END "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE n.nspname = %s AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped "
            "ORDER BY c.relname, a.attnum",
            self.schema,
            list(names),
        ):
            relation = found.setdefault(name, Relation(kind, comment))
            relation.columns[column] = type_ + (collation or "") + (" NOT NULL" if required else "")
            relation.types[column] = type_
            relation.comments[column] = column_comment
            if computed:
                relation.computed[column] = computed
            if value:
                relation.values[column] = f" GENERATED ALWAYS AS ({value}) STORED" if computed else f" DEFAULT {value}"
        return found

    def rules_on(self, tables: Iterable[str]) -> list[tuple[str, str, str]]:
        """Kind, name and table of what changes, skips or misses rows that are put into these tables or deleted."""
        return [
            (row[0], row[1], row[2])
            for row in self.run(
                "WITH ours AS (SELECT unnest(%s::regclass[]) AS oid) "
                "SELECT 'trigger', tgname, tgrelid::regclass::text FROM pg_trigger "
                "WHERE tgrelid IN (SELECT oid FROM ours) AND NOT tgisinternal AND tgenabled IN ('O', 'A') "
                "AND tgtype & 12 <> 0 "  # 4: INSERT, 8: DELETE
                "UNION ALL SELECT 'rule', rulename, ev_class::regclass::text FROM pg_rewrite "
                "WHERE ev_class IN (SELECT oid FROM ours) AND ev_type IN ('3', '4') AND ev_enabled IN ('O', 'A') "
                "UNION ALL SELECT 'foreign key', conname, conrelid::regclass::text FROM pg_constraint "
                "WHERE contype = 'f' AND confrelid IN (SELECT oid FROM ours) AND confdeltype IN ('c', 'n', 'd')",
                list(tables),
            )
        ]

    def checks(self, table: str) -> list[str]:
        """The CHECKs of a table that its partitions need too, as CREATE TABLE takes them."""
        return [
            f"CONSTRAINT {quote(name)} {definition.removesuffix(' NOT VALID')}"
            for name, definition in self.run(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE conrelid = %s::regclass AND contype = 'c' AND NOT connoinherit",
                table,
            )
        ]

    def partition(self, table: str, month: dt.date) -> str | None:
        """Full name of the partition that holds a month."""
        rows = self.run(
            "SELECT n.nspname, c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE i.inhparent = %s::regclass AND pg_get_expr(c.relpartbound, c.oid) = %s",
            self.table(table),
            f"FOR VALUES IN ('{month}')",
        )
        return f"{quote(rows[0][0])}.{quote(rows[0][1])}" if rows else None

    def ledger_rows(self, newest: bool = False) -> list[LedgerRow]:
        """All ledger rows, oldest first, or the newest of each partition; [] where there is no ledger."""
        table = self.table(LEDGER_TABLE)
        try:
            if newest:
                return self._ledger_rows(
                    f"SELECT DISTINCT ON (dataset, file_month) * FROM {table} "
                    "ORDER BY dataset, file_month, loaded_at DESC NULLS LAST"
                )
            return self._ledger_rows(f"SELECT * FROM {table} ORDER BY loaded_at NULLS FIRST")
        except psycopg2.errors.UndefinedTable:
            return []

    @property
    def _ledger_table(self) -> str:
        """The table's name for statements with values."""
        return self.table(LEDGER_TABLE).replace("%", "%%")

    def newest(self, partition: Partition) -> LedgerRow | None:
        """The newest ledger row of a partition, of any status."""
        rows = self._ledger_rows(
            f"SELECT * FROM {self._ledger_table} WHERE dataset = %s AND "
            "file_month IS NOT DISTINCT FROM %s::date ORDER BY loaded_at DESC NULLS LAST LIMIT 1",
            *partition,
        )
        return rows[0] if rows else None

    def _ledger_rows(self, query: str, *values: object) -> list[LedgerRow]:
        def execute() -> list[LedgerRow]:
            with self.connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                cursor.execute(query, values or None)
                found = {column.name: column.type_code for column in cursor.description or ()}
                for column in LEDGER_COLUMNS:
                    if found.get(column.name, _OIDS[column.type]) != _OIDS[column.type]:
                        raise WarehouseError(
                            f"{LEDGER_TABLE}: column {column.name} is not {TYPES[column.type]}; change its type or "
                            f"rename the table, then run again"
                        )
                return [LedgerRow.from_mapping(row) for row in _rows(cursor)]

        return self.call(execute)

    def insert_ledger(self, row: LedgerRow) -> None:
        self.run(insert_ledger(self._ledger_table, "%s"), *row.values())
        if (found := self.newest(row.partition)) != row:
            raise WarehouseError(
                f"{LEDGER_TABLE} has {'another row' if found else 'no row'} in place of the one that was put there; "
                f"drop the triggers and rules of that table, then run again"
            )

    def lock_key(self, partition: Partition) -> int:
        """Number of the advisory lock on a partition of this schema; 63 bits of a digest."""
        digest = hashlib.sha256(f"nyc-trips {self.schema} {partition.dataset} {partition.month}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def rows_of(self, table: str) -> int:
        """About how many rows a table has, with its partitions; 1 at least."""
        rows = self.run(
            "SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class WHERE oid = %s::regclass "
            "OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass)",
            *[self.table(table)] * 2,
        )
        return max(1, rows[0][0])

    def holders(self, key: int) -> str:
        """Who holds the advisory lock ``key``, else who holds tables of the schema: at most three sessions."""
        rows = self.run(
            "SELECT DISTINCT l.locktype <> 'advisory', a.pid, a.usename, a.application_name "
            "FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.granted AND a.pid <> pg_backend_pid() AND "
            "a.datname = current_database() AND (l.locktype = 'advisory' AND l.objsubid = 1 AND "
            "(l.classid::bigint << 32 | l.objid::bigint) = %s OR l.locktype = 'relation' AND l.relation IN "
            "(SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace(%s))) ORDER BY 1, 2",
            key,
            quote(self.schema),
        )
        return sessions_text([row[1:] for row in rows if row[0] == rows[0][0]]) or "another session"


def sessions_text(sessions: Iterable[tuple[int, str | None, str | None]]) -> str:
    """The first three sessions by pid, role and application."""
    return ", ".join(
        f"pid {pid} of {f'role {role}' if role else 'the server'} ({name or 'no name'})"
        for pid, role, name in islice(sessions, 3)
    )


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))


def text_of(error: BaseException | None) -> str:
    """The message in one line, with table, line and column of a COPY."""
    if isinstance(error, psycopg2.Error) and error.diag.message_primary:
        context = error.diag.context or ""
        text = error.diag.message_primary + (f" ({context.splitlines()[0]})" if context.startswith("COPY") else "")
        return " ".join(text.split())
    return " ".join(str(error).split())
