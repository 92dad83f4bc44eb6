"""Runs are killed again and again, in part or as a whole; the run after that gives the tables of an undisturbed one."""

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
#: Of what a run can lose and go on.
PARTS = ("worker", "worker", "worker", "fork server", "resource tracker")

#: Seconds after which luigid believes a host dead: a run need not wait longer for the tasks of one that was killed.
DISCONNECT_DELAY = 5

#: Lines in the journal of a run of ``RANGE`` that nobody disturbs, or a few less.
EVENTS = 50

#: Seconds to wait for a part of a run that is there for a moment only.
MOMENT = 3.0


class Kills(Campaign):
    name = "kills"
    what = "SIGKILLs of runs and their processes over DuckDB, PostgreSQL and BigQuery; in the end all as undisturbed"
    slice = 1
    patience = 7200

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._published = {name: publish(self.folder / name, seed, 300) for name, seed in (("a", 1), ("b", 2))}
        self._expected: dict[tuple[str, ...], dict[str, Any]] = {}
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
            with (
                self._postgres.database() as database,
                in_postgres(folder, self._postgres, database, **where, **environment) as places,
            ):
                yield places
        elif warehouse == "bigquery":
            with BigQueryServer() as server, in_bigquery(folder, server, **where, **environment) as places:
                yield places
                server.settle()
        else:
            with in_duckdb(folder, **where, **environment) as places:
                yield places

    def _undisturbed(self, kind: str, published: str, rules: str) -> dict[str, Any]:
        """What a run leaves that nobody disturbs. Where lake and workspace lie makes no difference."""
        warehouse = kind.partition("+")[0]
        key = warehouse, published, rules
        if key not in self._expected:
            folder = self.folder / "undisturbed"
            folder.mkdir()
            with self._places(warehouse, folder) as places, Runs() as runs:
                runs.start(places, "run", *RANGE, "--local-scheduler", **self._settings(published, rules)).end_well()
                self._expected[key] = places.result()
            shutil.rmtree(folder)
        return self._expected[key]

    def _settings(self, published: str, rules: str) -> dict[str, str]:
        return {
            "PIPELINE_PUBLISHER_NAME": "tlc",
            "PIPELINE_PUBLISHER_URL": f"file:{self._published[published]}",
            "PIPELINE_CLEAN_RULES": rules,
            "PIPELINE_RETRY_BACKOFF": "0.2",
        }

    # -- one attempt -------------------------------------------------------------------------------

    def attempt(self, chance: random.Random, folder: Path) -> str:
        kind = chance.choice(
            ["duckdb", "duckdb", "duckdb+all", "postgresql", "postgresql", "bigquery+lake", "bigquery+all"]
        )
        published, rules = chance.choice("ab"), chance.choice(RULES)
        kills, self._is_complete = 0, False
        try:
            with self._places(kind, folder) as places, ExitStack() as stack:
                luigid = None
                if chance.random() < 0.3:
                    luigid = stack.enter_context(Luigid(folder / "luigid", disconnect_delay=DISCONNECT_DELAY))
                for number in range(chance.randint(1, 3)):
                    kills += self._disturb(chance, places, number, luigid, **self._settings(published, rules))
                    if chance.random() < 0.5 or self._is_complete:  # else there is nothing left to do
                        published, rules = chance.choice(
                            [("ab".replace(published, ""), rules), (published, other(chance, rules))]
                        )
                expected = self._undisturbed(kind, published, rules)
                with Runs() as runs:
                    for name in ("last", "again") if chance.random() < 0.2 else ("last",):
                        run = runs.start(places, name, *RANGE, "--local-scheduler", **self._settings(published, rules))
                        run.end_well()
                wrong = differences(places.result(), expected)
                left_over = places.left_over(run)
        except (Unavailable, pytest.skip.Exception) as reason:
            return f"{kind.partition('+')[0]}: not here: {reason}"
        if wrong or left_over:
            told = wrong or f"left over: {', '.join(left_over)}"
            raise Difference(f"{kind}, published {published}, {rules}: {told}")
        return f"{kind.partition('+')[0]}, {kills} kills, then the same"

    def _disturb(
        self, chance: random.Random, places: Places, number: int, luigid: Luigid | None, **environment: str
    ) -> int:
        """Start a run, or two at once, kill parts of it, and maybe all of it. Returns how many kills there were.

        No task of it fails so often that the run may give it up.
        """
        parts = [chance.choice(PARTS if luigid is None else (*PARTS, "luigid")) for _ in range(chance.randint(0, 2))]
        end = "" if parts and chance.random() < 0.3 else chance.choice(["all", "all", "main process"])
        targets = [*parts, *filter(None, [end])]
        workers = 1 if not set(parts) - {"luigid"} and chance.random() < 0.4 else chance.choice([2, 3])
        words = (*RANGE, "--workers", str(workers), *(luigid.flags if luigid else ("--local-scheduler",)))
        is_pair, pause = chance.random() < 0.25, chance.uniform(0, 2)
        gate: Gate | None = None
        if workers > 1 and chance.random() < 0.15:
            gate = some_gate(chance, places.folder / f"gate-{number}", ("telling",))
            targets.insert(0, "worker in its last word")
        elif chance.random() < 0.5:
            gate = some_gate(chance, places.folder / f"gate-{number}", ("started", "running", "done", "left"))
        moments = [(chance.uniform(0, 0.3), chance.randint(0, EVENTS // len(targets))) for _ in targets]
        kills = 0
        with Runs() as runs:
            run = runs.start(places, f"run-{number}", *words, gate=gate, **environment)
            pair = runs.start(places, f"run-{number}-too", *words, **environment) if is_pair else None
            for target, moment in zip(targets, moments, strict=True):
                if gate and not gate.is_open:
                    run.wait_at(gate)
                else:
                    run.wait(*moment)
                if run.is_over:
                    break
                kills += self._kill(target, run, gate, luigid, pause)
                if gate:
                    gate.open()
            if not run.is_killed:
                run.end_well()
            if pair:
                pair.end_well()
            self._is_complete = not run.is_killed or pair is not None
        return kills

    @staticmethod
    def _kill(target: str, run: Run, gate: Gate | None, luigid: Luigid | None, pause: float) -> bool:
        """Whether it was there to be killed."""
        if target == "all":
            run.kill()
        elif target == "main process":
            run.kill_main()
        elif target == "luigid":
            assert luigid is not None
            luigid.stop(signal.SIGKILL)
            time.sleep(pause)
            luigid.start()
        elif target.startswith("worker") and gate and gate.stopped and not gate.is_open:
            if gate.stopped[0] == run.process.pid:
                run.kill()
            else:
                with suppress(ProcessLookupError):
                    os.kill(gate.stopped[0], signal.SIGKILL)
        else:
            child = run.child("worker" if target.startswith("worker") else target, MOMENT)
            if child is None:
                return False
            with suppress(psutil.NoSuchProcess):
                child.kill()
        return True


def other(chance: random.Random, rules: str) -> str:
    return chance.choice([each for each in RULES if each != rules])
