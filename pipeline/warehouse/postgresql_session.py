"""A connection to PostgreSQL: its transactions, and what the pipeline asks of catalog and ledger."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import psycopg2
import psycopg2.errors
import psycopg2.extras
from sqlalchemy.dialects.postgresql import dialect

from .base import LEDGER_COLUMNS, LEDGER_TABLE, LedgerRow, Slice
from .tables import Dialect

#: Who has what a server process waits for; to be asked in another session.
BLOCKERS = (
    "SELECT pid, usename, application_name FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(%s)) ORDER BY 1"
)

#: As ``format_type`` of the server spells them.
TYPES = {
    "int64": "bigint",
    "float64": "double precision",
    "string": "text",
    "timestamp": "timestamp without time zone",
    "date": "date",
}


#: A name as an SQL identifier.
quote: Callable[[str], str] = dialect().identifier_preparer.quote_identifier


class Relation:
    """A table or view of the catalog: its kind (``pg_class.relkind``), comment and columns."""

    def __init__(self, kind: str, comment: str | None) -> None:
        self.kind, self.comment = kind, comment
        #: Name of a column -> its definition, bare type and comment.
        self.columns: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.comments: dict[str, str | None] = {}


class Session:
    """An open connection: statements, transactions and what the pipeline asks the catalog.

    ``limit`` gives the seconds that a lock may be waited for. ``watched`` is a context around each statement, which is
    given the PID of the server's process.
    """

    def __init__(
        self,
        connection: psycopg2.extensions.connection,
        schema: str | None,
        limit: Callable[[], float],
        watched: Callable[[int], contextlib.AbstractContextManager[None]],
    ) -> None:
        self.connection = connection
        self._limit, self._watched = limit, watched
        self.server_version = connection.server_version // 10_000
        with connection.cursor() as cursor:
            # A server that hears nothing from a vanished client would hold its locks for hours.
            cursor.execute(
                "SELECT set_config('tcp_keepalives_idle', '60', false), set_config('lock_timeout', %s, false), "
                "current_schema()",
                [_milliseconds(limit())],
            )
            self.schema: str = schema or cursor.fetchone()[2]
        connection.commit()
        self.dialect = Dialect(quote=quote, table=self.table, types=TYPES)

    def table(self, name: str) -> str:
        return f"{quote(self.schema)}.{quote(name)}"

    def run(self, statement: str, *values: object) -> list[tuple]:
        """The rows of a statement, in the transaction that is open or begins with it."""
        with self._watched(self.connection.info.backend_pid), self.connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def transaction(self, at_most: float = math.inf) -> Iterator[None]:
        """Commit at the end, roll back on any error. ``at_most``: seconds for which a lock is waited for, if fewer."""
        self.connection.rollback()
        try:
            self.run("SELECT set_config('lock_timeout', %s, true)", _milliseconds(min(at_most, self._limit())))
            yield
            self.connection.commit()
        except BaseException:
            with contextlib.suppress(psycopg2.Error):
                self.connection.rollback()
            raise

    def create_schema(self) -> None:
        if not self.run("SELECT 1 FROM pg_namespace WHERE nspname = %s", self.schema):
            self.run(f"CREATE SCHEMA {quote(self.schema)}")

    def relations(self, names: Iterable[str]) -> dict[str, Relation]:
        """Those of the named tables and views that exist in the schema."""
        found: dict[str, Relation] = {}
        for name, kind, comment, column, type_, column_comment, required in self.run(
            "SELECT c.relname, c.relkind::text, obj_description(c.oid, 'pg_class'), a.attname, "
            "format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum), a.attnotnull "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE n.nspname = %s AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped "
            "ORDER BY c.relname, a.attnum",
            self.schema,
            list(names),
        ):
            relation = found.setdefault(name, Relation(kind, comment))
            relation.columns[column] = type_ + (" NOT NULL" if required else "")
            relation.types[column] = type_
            relation.comments[column] = column_comment
        return found

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
        """All ledger rows, oldest first, or the newest of each slice; [] where there is no ledger."""
        table = self.table(LEDGER_TABLE)
        try:
            if newest:
                return self._ledger_rows(
                    f"SELECT DISTINCT ON (dataset, file_month) * FROM {table} "
                    "ORDER BY dataset, file_month, loaded_at DESC"
                )
            return self._ledger_rows(f"SELECT * FROM {table} ORDER BY loaded_at")
        except psycopg2.errors.UndefinedTable:
            return []

    def newest(self, slice: Slice) -> LedgerRow | None:
        """The newest ledger row of a slice, of any status."""
        rows = self._ledger_rows(
            f"SELECT * FROM {self.table(LEDGER_TABLE)} WHERE dataset = %s AND "
            "file_month IS NOT DISTINCT FROM %s::date ORDER BY loaded_at DESC LIMIT 1",
            *slice,
        )
        return rows[0] if rows else None

    def _ledger_rows(self, query: str, *values: object) -> list[LedgerRow]:
        """The rows of a query; a column that the ledger of an older version lacks is None."""
        nothing = dict.fromkeys(column.name for column in LEDGER_COLUMNS)
        factory = psycopg2.extras.RealDictCursor
        with (
            self._watched(self.connection.info.backend_pid),
            self.connection.cursor(cursor_factory=factory) as cursor,
        ):
            cursor.execute(query, values or None)
            return [LedgerRow.from_mapping(nothing | row) for row in cursor.fetchall()]

    def insert_ledger(self, row: LedgerRow) -> None:
        names = ", ".join(quote(column.name) for column in LEDGER_COLUMNS)
        marks = ", ".join(["%s"] * len(LEDGER_COLUMNS))
        self.run(f"INSERT INTO {self.table(LEDGER_TABLE)} ({names}) VALUES ({marks})", *row.values())

    def lock_key(self, name: str, month: dt.date | None) -> int:
        """Number of the advisory lock on a slice of this schema; 63 bits of a digest."""
        digest = hashlib.sha256(f"nyc-trips {self.schema} {name} {month}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

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
        return error.diag.message_primary + (f" ({context.splitlines()[0]})" if context.startswith("COPY") else "")
    return " ".join(str(error).split())
