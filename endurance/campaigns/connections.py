"""PostgreSQL while sessions of loads are terminated, cancelled, stopped or kept from their locks at any statement."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import psycopg2

from pipeline import datasets
from pipeline.errors import PipelineError
from pipeline.partition import ZONES, Partition
from pipeline.warehouse import LedgerRow, Options, open_warehouse
from pipeline.warehouse.postgresql.session import Session, Statement
from pipeline.warehouse.postgresql.warehouse import PostgreSQL
from tests.contract.loads import file_of, ledger_row
from tests.servers.postgres import start_postgres

from ..campaign import Campaign, Difference

PARTITIONS = (Partition("green", dt.date(2021, 1, 1)), Partition("green", dt.date(2021, 2, 1)), ZONES)
VERSIONS = ("A", "B", "C")
FAULTS = ("terminated", "terminated", "cancelled", "stopped", "locked")
TABLES = ("etl_loads", "green_trips", "green_trips_2021_01", "green_trips_2021_02", "taxi_zones", "trips")
MODES = ("ACCESS SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE", "ACCESS EXCLUSIVE")

#: Seconds that a load waits for a lock, and after which a session that stays counts as left behind.
LOCK_TIMEOUT, PATIENCE = 0.3, 120.0

#: Seconds by which a fault without a delay is ahead of its statement; that may as well come first.
HEAD_START = 0.01


@dataclass(frozen=True)
class Fault:
    """``kind`` befalls the session at its statement ``at``, after ``delay`` seconds, and is over after ``lasts``."""

    kind: str
    at: int
    delay: float
    lasts: float
    table: str
    mode: str


def some_fault(chance: random.Random) -> Fault:
    return Fault(
        chance.choice(FAULTS),
        chance.randint(1, 30),
        chance.choice([0.0, 0.0, chance.uniform(0, 0.02)]),
        chance.choice([chance.uniform(0, 0.2), chance.uniform(0.4, 0.8)]),
        chance.choice(TABLES),
        chance.choice(MODES),
    )


class Connections(Campaign):
    name = "connections"
    what = (
        "PostgreSQL sessions terminated, cancelled, stopped, locked out; ledger and tables as undisturbed, nothing left"
    )
    slice = 3

    def __enter__(self) -> Self:
        self._numbers = itertools.count()
        (self.folder / "files").mkdir()
        with contextlib.ExitStack() as stack:
            self._server = stack.enter_context(start_postgres(deadlock_timeout="100ms"))
            self._database = stack.enter_context(self._server.database())
            undisturbed = self._warehouse("undisturbed")
            self._expected = {}
            for partition, version in itertools.product(PARTITIONS, VERSIONS):
                self._load(undisturbed, partition, version)
                self._expected[partition, version] = self._content("undisturbed", partition)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def attempt(self, chance: random.Random, folder: Path) -> str:
        schema = f"attempt_{next(self._numbers)}"
        failed = 0
        for _ in range(chance.randint(1, 4)):
            partition, version = chance.choice(PARTITIONS), chance.choice((*VERSIONS, "forgotten"))
            faults = [some_fault(chance) for _ in range(chance.choice([1, 1, 2, 3]))]
            before = self._warehouse(schema).history()
            if version == "forgotten" and not any(row.partition == partition for row in before):
                version = "A"
            warehouse = self._warehouse(schema)
            try:
                with self._disturbed(faults, schema):
                    self._do(warehouse, partition, version)
            except PipelineError as error:
                failed += 1
                if "\n" in str(error):
                    raise Difference(f"more than one line: {error}") from error
                self._compare(schema, before, partition, None)
                self._do(self._warehouse(schema), partition, version)
            self._compare(schema, before, partition, version)
        self._run(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        return "failed, then same" if failed else "came through"

    # -- what is done --------------------------------------------------------------------------

    def _do(self, warehouse: PostgreSQL, partition: Partition, version: str) -> None:
        if version == "forgotten":
            warehouse.append(replace(warehouse.ledger()[partition], status="forgotten"))
        else:
            self._load(warehouse, partition, version)

    def _load(self, warehouse: PostgreSQL, partition: Partition, version: str) -> None:
        dataset, month = datasets.get(partition.dataset), partition.month
        rows = 40_000 if version == "B" and month else 100 + 10 * VERSIONS.index(version)
        file = file_of(self.folder / "files", version, month, rows, dataset)
        warehouse.load(dataset, file, ledger_row(version, month, rows, dataset))

    def _warehouse(self, schema: str) -> PostgreSQL:
        url = f"{self._server.url(self._database)}?options=-csearch_path%3D{schema}"
        opened = open_warehouse(url, Options(lock_timeout=LOCK_TIMEOUT))
        assert isinstance(opened, PostgreSQL)
        return opened

    # -- what happens to it ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _disturbed(self, faults: list[Fault], schema: str) -> Iterator[None]:
        """Within this context the faults befall the sessions of the warehouse."""
        undisturbed, count, threads = Session.statement, itertools.count(1), list[threading.Thread]()

        @contextlib.contextmanager
        def disturbed(session: Session) -> Iterator[Statement]:
            number, pid = next(count), session.connection.info.backend_pid
            for fault in faults:
                if fault.at == number:
                    thread = threading.Thread(target=self._befall, args=(fault, pid, schema))
                    thread.start()
                    threads.append(thread)
                    if not fault.delay:
                        thread.join(HEAD_START)
            with undisturbed(session) as statement:
                yield statement

        with mock.patch.object(Session, "statement", disturbed):
            try:
                yield
            finally:
                for thread in threads:
                    thread.join()

    def _befall(self, fault: Fault, pid: int, schema: str) -> None:
        time.sleep(fault.delay)
        if fault.kind == "terminated":
            self._run(f"SELECT pg_terminate_backend({pid})")
        elif fault.kind == "cancelled":
            self._run(f"SELECT pg_cancel_backend({pid})")
        elif fault.kind == "stopped":
            if not pid:  # of a connection that is gone; to the kernel it would be all of us
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(fault.lasts)
                os.kill(pid, signal.SIGCONT)
        else:
            with contextlib.closing(self._server.connect(self._database)) as connection:
                connection.autocommit = False
                with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
                    cursor.execute("SET lock_timeout = '300ms'")
                    cursor.execute(f"LOCK TABLE {schema}.{fault.table} IN {fault.mode} MODE")
                    time.sleep(fault.lasts)

    # -- what must hold ----------------------------------------------------------------------------

    def _compare(self, schema: str, before: list[LedgerRow], partition: Partition, version: str | None) -> None:
        """Difference unless tables and ledger agree, nothing is left, and only ``partition`` has changed.

        ``version`` is what it must have now; None if that may also be what it had before.
        """
        self._wait(lambda: not self._run("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pipeline%'"))
        left = self._run(
            f"SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('{schema}') AND relkind = 'r' "
            "AND NOT relispartition AND relname NOT IN ('taxi_zones', 'etl_loads')"
        )
        history = self._warehouse(schema).history()
        added = history[len(before) :]
        if left or history[: len(before)] != before or len(added) > (1 if version is None else 2):
            raise Difference(f"left {left}; the ledger had {before} and has {history}")
        if any(row.partition != partition for row in added):
            raise Difference(f"another partition than {partition}: {added}")
        if version is not None and (not added or version not in (added[-1].sha256, added[-1].status)):
            raise Difference(f"{partition} should be {version}: {history}")
        for each in PARTITIONS:
            loaded = [row for row in history if row.partition == each and row.status == "loaded"]
            content = self._content(schema, each)
            expected = self._expected[each, loaded[-1].sha256] if loaded else None
            if content != expected:
                raise Difference(f"{each} has {content} and should have {expected}: {loaded}")
            if loaded and [row.replaces for row in loaded[1:]] != [row.sha256 for row in loaded[:-1]]:
                raise Difference(f"{each}: what replaced what is not told: {history}")

    def _content(self, schema: str, partition: Partition) -> tuple[int, str] | None:
        """Number and digest of the rows; None if there are none."""
        table = f"{schema}.{datasets.get(partition.dataset).table}"
        if self._run(f"SELECT to_regclass('{table}')") == [(None,)]:
            return None
        where = f"WHERE file_month = '{partition.month}'" if partition.month else ""
        rows, digest = self._run(
            f"SELECT count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {table} AS t {where}"
        )[0]
        return (rows, digest) if rows else None

    def _run(self, statement: str) -> list[tuple[Any, ...]]:
        return self._server.run(statement, self._database)

    def _wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > until:
                raise Difference("a session of a load stays")
            time.sleep(0.01)
