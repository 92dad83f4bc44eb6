"""Runs of the real ``luigi`` under attack: where they write, how they are started and killed, and what they leave."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psutil

from pipeline.partition import parse_month
from pipeline.publishers.sample import generator
from pipeline.storage import open_store
from tests.end_to_end.gate import Gate
from tests.patience import has_ended
from tests.servers.bigquery import BigQueryServer
from tests.servers.postgres import PostgresServer

from .campaign import Difference
from .runner import CHECKOUT

MONTHS = ("2020-01", "2020-02")
STAGES = ("Download", "Clean", "WriteParquet", "Upload", "Load")
RANGE = ("RangeMonthly", "--dataset", "green", "--start", MONTHS[0], "--stop", "2020-03")

#: Seconds without a word in output and journals after which a run counts as hanging. What it waits for ends before.
QUIET = 420.0

#: Seconds between two looks.
INTERVAL = 0.02

LEDGER = """
    SELECT dataset, CAST(file_month AS VARCHAR), row_count, rejected_count, sha256, rules FROM (
        SELECT *, row_number() OVER (PARTITION BY dataset, file_month ORDER BY loaded_at DESC) AS age FROM {} ) AS loads
    WHERE age = 1 ORDER BY 1, 2
"""


def publish(folder: Path, seed: int, rows: int) -> Path:
    """The months of ``RANGE`` and the zone table, as TLC publishes them; another seed has other trips."""
    months = [parse_month(month) for month in MONTHS]
    generator.publish(folder, "green", months, rows=rows + seed, seed=seed, layout="tlc")
    (folder / "SYNTHETIC.txt").unlink()  # stands for TLC's own files here
    return folder


@dataclass
class Places:
    """Lake, workspace and warehouse of some runs. ``query`` asks the warehouse, where ``table`` spells a name."""

    folder: Path
    lake: str
    workspace: str
    warehouse: str
    query: Callable[[str], list[tuple[Any, ...]]]
    names: Callable[[], list[str]]
    table: str = "{}"
    row_hash: str = "CAST(bit_xor(hash(t)) AS VARCHAR), CAST(sum(hash(t) % 1000003) AS VARCHAR)"
    environment: dict[str, str] = field(default_factory=dict)
    #: With a short path: sockets lie there.
    temporary: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="runs-")
    )

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *error: object) -> None:
        self.temporary.cleanup()

    def env(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        return {
            **clean,
            "LUIGI_CONFIG_PATH": str(CHECKOUT / "luigi.cfg"),
            "PYTHONPATH": str(CHECKOUT),
            "PIPELINE_LAKE_URL": self.lake,
            "PIPELINE_WORKSPACE_URL": self.workspace,
            "PIPELINE_WAREHOUSE_URL": self.warehouse,
            "TMPDIR": self.temporary.name,
            **self.environment,
            **more,
        }

    def result(self) -> dict[str, Any]:
        """Rows of all tables, what the ledger says is current, the names of all tables, and the files of the lake."""
        found: dict[str, Any] = {"tables": sorted(self.names())}
        for name in ("green_trips", "taxi_zones"):
            table = self.table.format(name)
            found[name] = self.query(f"SELECT count(*), {self.row_hash} FROM {table} t")
        found["ledger"] = [tuple(map(str, row)) for row in self.query(LEDGER.format(self.table.format("etl_loads")))]
        store = open_store(self.lake)
        found["lake"] = {
            path: hashlib.sha256(store.read(path)).hexdigest() if path.endswith(".parquet") else ""
            for path in sorted(store.list())
        }
        return found

    def left_over(self, last: Run) -> list[str]:
        """What lies in the scratch of the workspace after a last run that nobody disturbed, and must not.

        In a bucket, or with the lake in one, a run that has nothing to do leaves what it finds.
        """
        scratch = Path(self.workspace.removeprefix("file:")) / "scratch"
        if all(url.startswith("file:") for url in (self.workspace, self.lake)) or last.has_worked:
            return sorted(open_store(self.workspace).list("scratch")) or sorted(map(str, scratch.glob("*")))
        return []


def in_duckdb(folder: Path, lake: str = "", workspace: str = "", **environment: str) -> Places:
    """With a file, and all else in the same folder unless it is named."""
    path = folder / "warehouse.duckdb"

    def query(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(path), read_only=True) as connection:
            return connection.sql(sql).fetchall()

    def names() -> list[str]:
        return [name for (name,) in query("SELECT table_name FROM duckdb_tables()")]

    lake, workspace = lake or f"file:{folder}/lake", workspace or f"file:{folder}/workspace"
    return Places(folder, lake, workspace, f"duckdb:///{path}", query, names, environment=environment)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In what two results differ, in a line."""
    return "; ".join(
        f"{name}: {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]
    )


class Run:
    """A ``luigi`` command in a process group of its own."""

    def __init__(self, places: Places, name: str, *words: str, gate: Gate | None = None, **environment: str) -> None:
        self.name = name
        folder = places.folder / name
        folder.mkdir()
        self.output = folder / "output.txt"
        variables = places.env(**environment, PIPELINE_RUN_ID=name)
        if gate:
            gated = gate.environment
            variables |= {**gated, "PYTHONPATH": f"{gated['PYTHONPATH']}{os.pathsep}{CHECKOUT}"}
        is_here = places.workspace.startswith("file:")
        self._journals = (
            Path(places.workspace.removeprefix("file:") if is_here else places.temporary.name),
            f"runs/{name}.jsonl" if is_here else f"nyc-trips-runs*/{name}.jsonl",
        )
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "luigi"), "--module", "pipeline", *words],
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.is_killed = False
        self._heard: object = None
        self._heard_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has ended. Raises Difference if it hangs."""
        if self.process.poll() is not None:
            return True
        heard = self._words()
        if heard != self._heard:
            self._heard, self._heard_at = heard, time.monotonic()
        elif time.monotonic() - self._heard_at > QUIET:
            said = self.output.read_text()[-400:]
            self.kill()
            raise Difference(f"{self.name} says nothing for {QUIET:g} s; its last words: {said}")
        return False

    def _journal(self) -> list[bytes]:
        folder, pattern = self._journals
        return [line for path in folder.glob(pattern) for line in path.read_bytes().splitlines()]

    def _words(self) -> tuple[int, int]:
        """How much it has said. That it still waits is nothing new."""
        return self.output.stat().st_size, sum(b'"event": "waiting"' not in line for line in self._journal())

    @property
    def events(self) -> int:
        """How many lines its journal has."""
        return self._words()[1]

    @property
    def has_worked(self) -> bool:
        """Whether it found something to do."""
        return any(b'"state": "done"' in line for line in self._journal())

    def end(self) -> int:
        while not self.is_over:
            time.sleep(INTERVAL)
        return self.process.returncode

    def end_well(self) -> None:
        code = self.end()
        if code == 2 and "no luigid answers" in self.output.read_text():  # killed before the run could begin
            self.is_killed = True
        elif code:
            raise Difference(f"{self.name} ended with {code}: {self.output.read_text()[-800:]}")

    def wait(self, seconds: float, events: int = 0) -> None:
        """Let it work until its journal has so many lines more, and for a while; or to its end."""
        events += self.events
        while self.events < events and not self.is_over:
            time.sleep(INTERVAL)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.is_over:
            time.sleep(INTERVAL)

    def wait_at(self, gate: Gate) -> bool:
        """Whether one of its processes comes to the gate, and does not end before."""
        while not gate.stopped:
            if self.is_over:
                return False
            time.sleep(INTERVAL)
        return True

    def kill(self) -> None:
        """All of it."""
        self.is_killed = True
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_main(self) -> None:
        """The main process, and see its children end."""
        self.is_killed = True
        children = list(self.children().values())
        self.process.kill()
        self.process.wait()
        until = time.monotonic() + QUIET
        while time.monotonic() < until:
            if all(has_ended(child.pid) for child in children):
                return
            time.sleep(INTERVAL)
        self.kill()
        raise Difference(f"{self.name}: processes outlive their main process: {children}")

    def child(self, name: str, seconds: float) -> psutil.Process | None:
        """One of ``children`` as soon as it is there; None if it does not come, or the run ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.is_over:
            if child := self.children().get(name):
                return child
            time.sleep(INTERVAL)
        return None

    def children(self) -> dict[str, psutil.Process]:
        """Its fork server, its resource tracker and one of its workers, as far as they are there."""
        found: dict[str, psutil.Process] = {}
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    words = " ".join(child.cmdline())
                    if "resource_tracker" in words:
                        found["resource tracker"] = child
                    elif child.ppid() == self.process.pid and "forkserver" in words:
                        found["fork server"] = child
                    else:
                        found["worker"] = child
        return found


class Runs:
    """Within this context runs are started; in the end none is left."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *error: object) -> None:
        for run in self.runs:
            run.kill()

    def start(self, *args: Any, **kwargs: Any) -> Run:
        run = Run(*args, **kwargs)
        self.runs.append(run)
        return run


def some_gate(chance: random.Random, folder: Path, states: tuple[str, ...], **where: Any) -> Gate:
    """A gate at one of the places where a stage can be stopped."""
    month = chance.choice([None, *MONTHS])
    return Gate(folder, chance.choice(STAGES), chance.choice(states), month=month, **where)


def in_postgres(
    folder: Path, server: PostgresServer, database: str, lake: str, workspace: str, **environment: str
) -> Places:
    """With a database of a server."""

    def query(sql: str) -> list[tuple[Any, ...]]:
        with closing(server.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def names() -> list[str]:
        tables = query("SELECT tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        return [name for (name,) in tables]

    return Places(
        folder,
        lake,
        workspace,
        server.url(database),
        query,
        names,
        row_hash="md5(string_agg(t::text, ' ' ORDER BY t::text))",
        environment=environment,
    )


def in_bigquery(folder: Path, server: BigQueryServer, lake: str, workspace: str, **environment: str) -> Places:
    """With a project of its own."""

    def names() -> list[str]:
        return [table for _, table in server.tables]

    return Places(
        folder,
        lake,
        workspace,
        "bigquery://my-project/trips",
        server.sql,
        names,
        table='"my-project:trips".{}',
        environment={**environment, "BIGQUERY_EMULATOR_HOST": server.url},
    )
