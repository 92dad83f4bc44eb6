"""Runs are killed again and again, by halves and as a whole; then one runs to its end, and all is as if nothing was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest

from tests.end_to_end.gate import Gate
from tests.servers.bigquery import BigQueryServer
from tests.servers.gcs import GcsServer
from tests.servers.luigid import Luigid
from tests.servers.postgres import PostgresServer, Unavailable, start_postgres

from ..campaign import Campaign, Difference
from ..runs import RANGE, Places, Run, Runs, differences, in_bigquery, in_duckdb, in_postgres, publish, some_gate

RULES = ("none", "zero_passengers,pickup_outside_month", "zero_distance")
TARGETS = (
    "all",
    "all",
    "main process",
    "worker",
    "worker",
    "worker in its last word",
    "fork server",
    "resource tracker",
)


class Kills(Campaign):
    name = "kills"
    what = "SIGKILLs of runs and their processes over DuckDB, PostgreSQL and BigQuery; in the end all as undisturbed"
    slice = 1
    patience = 7200

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._published = {name: publish(self.folder / name, seed, 300) for name, seed in (("a", 1), ("b", 2))}
        self._expected: dict[tuple[str, ...], dict[str, Any]] = {}
        self._seconds = 0.0
        self._postgres: PostgresServer | None = None
        self._gcs: GcsServer | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # -- places ------------------------------------------------------------------------------------

    @contextmanager
    def _places(self, kind: str, folder: Path) -> Iterator[Places]:
        """Empty ones of a kind: the warehouse, and with ``+gs`` the lake, or lake and workspace, in a bucket."""
        warehouse, _, cloud = kind.partition("+")
        where, environment = {name: f"file:{folder}/{name}" for name in ("lake", "workspace")}, {}
        if cloud:
            if self._gcs is None:
                self._gcs = self._stack.enter_context(GcsServer())
                os.environ["STORAGE_EMULATOR_HOST"] = self._gcs.url
                self._stack.callback(os.environ.pop, "STORAGE_EMULATOR_HOST")
            bucket = self._gcs.make_bucket()
            environment["STORAGE_EMULATOR_HOST"] = self._gcs.url
            for name in ("lake", "workspace") if cloud == "all" else ("lake",):
                where[name] = f"gs://{bucket}/{name}"
        if warehouse == "postgresql":
            if self._postgres is None:
                self._postgres = self._stack.enter_context(start_postgres())
            with self._postgres.database() as database:
                yield in_postgres(folder, self._postgres, database, **where, **environment)
        elif warehouse == "bigquery":
            with BigQueryServer() as server:
                yield in_bigquery(folder, server, **where, **environment)
                server.settle()
        else:
            yield in_duckdb(folder, **where, **environment)

    def _undisturbed(self, kind: str, published: str, rules: str) -> dict[str, Any]:
        """What a run leaves that nobody disturbs."""
        key = kind, published, rules
        if key not in self._expected:
            folder = self.folder / "undisturbed"
            folder.mkdir()
            with self._places(kind, folder) as places, Runs() as runs:
                began = time.monotonic()
                runs.start(places, "run", *RANGE, "--local-scheduler", **self._settings(published, rules)).end_well()
                self._seconds = time.monotonic() - began
                self._expected[key] = places.result()
            shutil.rmtree(folder)
        return self._expected[key]

    def _settings(self, published: str, rules: str) -> dict[str, str]:
        return {
            "PIPELINE_PUBLISHER_NAME": "tlc",
            "PIPELINE_PUBLISHER_URL": f"file:{self._published[published]}",
            "PIPELINE_CLEAN_RULES": rules,
            "PIPELINE_PUBLISHER_BACKOFF": "0.2",
        }

    # -- one attempt -------------------------------------------------------------------------------

    def attempt(self, chance: random.Random, folder: Path) -> str:
        kind = chance.choice(
            ["duckdb", "duckdb", "duckdb+all", "postgresql", "postgresql", "bigquery+lake", "bigquery+all"]
        )
        published, rules = chance.choice("ab"), chance.choice(RULES)
        kills, self._is_complete = 0, False
        try:
            self._undisturbed(kind, published, rules)
            with self._places(kind, folder) as places, ExitStack() as stack:
                luigid = stack.enter_context(Luigid(folder / "luigid")) if chance.random() < 0.4 else None
                for number in range(chance.randint(1, 5)):
                    kills += self._disturb(chance, places, number, luigid, **self._settings(published, rules))
                    if chance.random() < 0.5 or self._is_complete:  # else there is nothing left to do
                        published, rules = chance.choice(
                            [("ab".replace(published, ""), rules), (published, other(chance, rules))]
                        )
                expected = self._undisturbed(kind, published, rules)
                with Runs() as runs:
                    for name in ("last", "again") if chance.random() < 0.2 else ("last",):
                        runs.start(
                            places, name, *RANGE, "--local-scheduler", **self._settings(published, rules)
                        ).end_well()
                wrong = differences(places.result(), expected)
        except (Unavailable, pytest.skip.Exception) as reason:
            return f"{kind.partition('+')[0]}: not here: {reason}"
        if wrong:
            raise Difference(f"{kind}, published {published}, {rules}: {wrong}")
        return f"{kind.partition('+')[0]}, {kills} kills, then the same"

    def _disturb(
        self, chance: random.Random, places: Places, number: int, luigid: Luigid | None, **environment: str
    ) -> int:
        """Start a run, or two at once, and kill one of it or of its processes. Returns how many kills there were."""
        target = chance.choice(TARGETS if luigid is None else (*TARGETS, "luigid", "luigid"))
        workers = 1 if target in ("all", "main process", "luigid") and chance.random() < 0.4 else chance.choice([2, 3])
        words = (*RANGE, "--workers", str(workers), *(luigid.flags if luigid else ("--local-scheduler",)))
        is_pair, moment, pause = chance.random() < 0.25, chance.uniform(0.1, 1.0), chance.uniform(0, 3)
        gate: Gate | None = None
        if target == "worker in its last word":
            gate = some_gate(chance, places.folder / f"gate-{number}", ("telling",))
        elif chance.random() < 0.5:
            gate = some_gate(chance, places.folder / f"gate-{number}", ("started", "running", "done", "left"))
        with Runs() as runs:
            run = runs.start(places, f"run-{number}", *words, gate=gate, **environment)
            pair = runs.start(places, f"run-{number}-too", *words, **environment) if is_pair else None
            if gate:
                run.wait_at(gate)
            else:
                run.wait(moment * self._seconds)
            is_killed = not run.is_over and self._kill(target, run, gate, luigid, pause)
            if gate:
                gate.open()
            if not run.is_killed:
                run.end_well()
            if pair:
                pair.end_well()
            self._is_complete = not run.is_killed or pair is not None
        return int(is_killed)

    @staticmethod
    def _kill(target: str, run: Run, gate: Gate | None, luigid: Luigid | None, pause: float) -> bool:
        """Kill what is there of it; else the whole run."""
        if target == "all":
            run.kill()
        elif target == "main process":
            run.kill_main()
        elif target == "luigid":
            assert luigid is not None
            luigid.stop(signal.SIGKILL)
            time.sleep(pause)
            luigid.start()
        elif target.startswith("worker") and gate and gate.stopped:
            if gate.stopped[0] == run.process.pid:
                run.kill()
            else:
                with suppress(ProcessLookupError):
                    os.kill(gate.stopped[0], signal.SIGKILL)
        else:
            child = run.children().get("worker" if target.startswith("worker") else target)
            if child is None:  # not yet, or not any more
                run.kill()
            else:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        return True


def other(chance: random.Random, rules: str) -> str:
    return chance.choice([each for each in RULES if each != rules])
