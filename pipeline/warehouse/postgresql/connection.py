"""The server of a PostgreSQL URL: opens sessions, creates the database, and decides when the server counts as gone."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import psycopg2
import psycopg2.errors
import sqlalchemy

from ...errors import WarehouseBusy, WarehouseError, WarehouseUnavailable
from ...remote import capped, for_server
from ...time_limits import answer_of
from ...waiting import SAID_AFTER, Wait, gave_up, remaining
from ..base import Options, named
from ..tables import quote
from .errors import USE_UTF8, translate, translate_refusal
from .session import ALL_TABLES, BLOCKERS, Session, Statement, sessions_text

#: Seconds for a connection to one address, and those of silence after which a server counts as gone, if new connections
#: get no answer either.
CONNECT_TIMEOUT, SILENCE = 10.0, 60.0

#: Rows a second that the slowest server gets through.
ROWS_PER_SECOND = 5_000


class Server:
    """The database that a URL names. No connection is kept."""

    def __init__(self, url: str, label: str, options: Options) -> None:
        self._text, self.label, self.options = url, label, options

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A connection that is closed at the end; errors in the words of the pipeline."""
        try:
            with contextlib.closing(self._connect(self.url)) as connection:
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
                    raise self.busy("a table", holders) from error
        except psycopg2.Error as error:
            raise translate(error, self.label, self.url) from error
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
            with contextlib.closing(self._open(self.url)) as connection, connection.cursor() as cursor:
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
    def url(self) -> sqlalchemy.URL:
        # Without a driver in the URL, SQLAlchemy would take another one.
        return sqlalchemy.make_url(self._text).set(drivername="postgresql+psycopg2")

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
            raise translate_refusal(error, self.label, self.url) from error

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
        options = self.url.query.get("options", "")
        text = options if isinstance(options, str) else " ".join(options)
        # As libpq reads it: a backslash takes the meaning from what follows, which is how a name gets a blank.
        match = re.search(r'search_path=(?:"((?:[^"]|"")+)"|([^\s,"$]+))', re.sub(r"\\(.)", r"\1", text))
        return match and (match[1].replace('""', '"') if match[1] else match[2].lower())

    def busy(self, what: str, holders: str) -> WarehouseBusy:
        return WarehouseBusy(
            f"{self.label}: {what} is held by {holders}; gave up after "
            f"{capped(self.options.lock_timeout):g} s; run again when it is done",
            is_repeated=gave_up(self.label, holders),
        )

    def create_database(self) -> None:
        """Create the database if connecting says that it is missing. Needs a role with CREATEDB."""
        url = self.url
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
                raise translate(refused, self.label, self.url) from refused
