"""``kill -9`` anywhere, then the same command again: the same tables, the same lake, the same ledger.

A run is killed at every boundary between two stages, at random moments and in the middle of long work; after each kill
nothing half written may be visible. Kills follow one another on the same folders, so that each run starts from what
the one before left behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.storage import open_store

from ..patience import PATIENCE, wait_for
from ..warm import WARM
from .conftest import Project
from .gate import Gate

STAGES = ("Download", "Clean", "WriteParquet", "Upload", "Load")
BOUNDARIES = [(stage, state) for stage in STAGES for state in ("started", "done")]
#: What a manifest says of a run rather than of the month.
OF_THE_RUN = ("run_id", "created_at")

linux = pytest.mark.skipif(sys.platform != "linux", reason="the processes of a group are found in /proc")

Event = dict[str, Any]

RANGE = (
    *("RangeMonthly", "--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}'),
    *("--start", "2020-01", "--stop", "2020-04"),
)
MONTHS = 3
#: Rows of a month of several batches and row groups.
BIG = 300_000
BIG_MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-02")


class Run:
    """A command in a process group of its own, and the journal that it writes."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.journals = project.folder / "workspace" / "runs"
        self.before = set(self.journals.glob("*.jsonl"))
        self.output = project.folder / "output.txt"
        with self.output.open("w") as output:
            command = project.luigi_command(*arguments)
            self.process = WARM.start(command, project.folder, project.env, output, is_leader=True)

    def events(self) -> Iterator[Event]:
        for journal in set(self.journals.glob("*.jsonl")) - self.before:
            for line in journal.read_text().splitlines():
                yield json.loads(line)

    def lines(self) -> int:
        """How many lines its journal has."""
        return sum(journal.read_bytes().count(b"\n") for journal in set(self.journals.glob("*.jsonl")) - self.before)

    def wait_at(self, gate: Gate) -> None:
        gate.wait(self.process, self.output.read_text)

    def kill_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        wait_for(lambda: not self._alive(), told=lambda: f"killed, but alive: {self._alive()}")  # they hold files open

    def kill_main(self) -> None:
        """Kill the main process alone, and see all its children end."""
        self.process.kill()
        self.process.wait(PATIENCE)
        try:
            wait_for(lambda: not self._alive(), told=lambda: f"still alive after their parent: {self._alive()}")
        except AssertionError:
            self.kill_group()
            raise

    def _alive(self) -> dict[int, str]:
        """The processes of the group that still run, with their command lines."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:  # ended while we looked
                continue
        return found


def is_at(stage: str, state: str) -> Callable[[Event], bool]:
    return lambda event: (event.get("stage"), event.get("state"), event.get("dataset")) == (stage, state, "green")


def result(project: Project) -> dict[str, Any]:
    """The bytes of the lake, what its manifests say of the months, all tables, and the number of loads."""
    lake = project.folder / "lake"
    manifests = {}
    for path in sorted(lake.glob("manifests/*/*.json")):
        manifest = json.loads(path.read_text())
        manifest["source"].pop("fetched_at")
        manifests[path.name] = {name: value for name, value in manifest.items() if name not in OF_THE_RUN}
    return {
        "lake": {
            str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(lake.glob("*/*/*.parquet"))
        },
        "manifests": manifests,
        "tables": project.tables("green_trips", "taxi_zones"),
        "loads": project.query("SELECT dataset, count(*) FROM etl_loads GROUP BY 1 ORDER BY 1"),
    }


def assert_nothing_half_written(project: Project) -> None:
    """Every file that can be seen is whole, and the tables hold exactly what the ledger says."""
    lake = project.folder / "lake"
    for path in open_store(f"file:{lake}").list():
        assert re.fullmatch(r"(data|rejects)/\w+/\w+(-\d\d)?\.parquet|manifests/\w+/\w+(-\d\d)?\.json", path), path
        if path.endswith(".parquet"):
            pq.read_table(lake / path)
        else:
            manifest = json.loads((lake / path).read_text())
            for digest in (manifest["parquet"], manifest["rejects"]):
                data = (lake / digest["path"]).read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (digest["bytes"], digest["sha256"]), path
    if not (project.folder / "warehouse.duckdb").exists():
        return
    tables = {name for (name,) in project.query("SELECT table_name FROM duckdb_tables()")}
    if "green_trips" in tables:
        assert project.query("SELECT file_month, count(*) FROM green_trips GROUP BY 1 ORDER BY 1") == project.query(
            "SELECT file_month, row_count FROM etl_current WHERE dataset = 'green' ORDER BY 1"
        )


def assert_ends_like(project: Project, expected: dict[str, Any], *arguments: str) -> None:
    """The same command, undisturbed now, ends with the expected result; and once more, with nothing to do."""
    again = project.luigi(*arguments)
    assert again.returncode == 0, again.stdout
    assert result(project) == expected
    assert "Nothing to do" in project.luigi(*arguments).stdout
    assert result(project) == expected
    assert not [path for path in project.folder.glob("workspace/scratch/**/*") if path.is_file()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``RANGE`` leaves behind if nobody kills it."""
    project = sample_project(tmp_path_factory.mktemp("undisturbed"), 2_000)
    assert project.luigi(*RANGE).returncode == 0
    assert_nothing_half_written(project)
    expected = result(project)
    assert expected["loads"] == [("green", MONTHS), ("zones", 1)]
    return expected


def sample_project(folder: Path, rows: int) -> Project:
    return Project(
        folder, {"PIPELINE_PUBLISHER_NAME": "sample", "PIPELINE_PUBLISHER_URL": f"sample:?rows={rows}&seed=1"}
    )


def test_all_processes_killed_at_every_boundary(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    project = sample_project(tmp_path, 2_000)
    for boundary in BOUNDARIES:
        gate = project.gate(*boundary)
        run = Run(project, *RANGE)
        run.wait_at(gate)
        run.kill_group()
        assert_nothing_half_written(project)
    gate.open()
    assert_ends_like(project, undisturbed, *RANGE)


@linux
def test_main_process_killed_in_every_stage_leaves_no_orphan(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    project = sample_project(tmp_path, 2_000)
    arguments = (*RANGE, "--workers", "2")
    for stage in STAGES:
        gate = project.gate(stage, "started")
        run = Run(project, *arguments)
        run.wait_at(gate)
        run.kill_main()
        assert_nothing_half_written(project)
    gate.open()
    assert_ends_like(project, undisturbed, *arguments)


@linux
@pytest.mark.parametrize("method", ["forkserver", "fork", "spawn"])
def test_orphan_does_not_finish_its_work(tmp_path: Path, method: str) -> None:
    project = sample_project(tmp_path, BIG // 2)
    gate = project.gate("Clean", "running", share=0.3)
    run = Run(project, *BIG_MONTH, "--workers", "2", "--process-start-method", method)
    run.wait_at(gate)
    run.kill_main()
    gate.open()
    assert not any(is_at("Clean", "done")(event) for event in run.events())


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(tmp_path: Path, undisturbed: dict[str, Any], seed: int) -> None:
    """Soon after some line of the journal: so the moments are spread over the work, however fast the machine is."""
    project = sample_project(tmp_path, 2_000)
    moments = random.Random(seed)
    arguments = (*RANGE, "--workers", str(seed))
    for _ in range(4):
        lines = moments.randrange(30)
        run = Run(project, *arguments)
        wait_for(lambda run=run, lines=lines: run.lines() >= lines or run.process.poll() is not None)
        try:
            run.process.wait(moments.uniform(0, 0.2))  # whatever comes next: what follows holds at any moment
        except subprocess.TimeoutExpired:
            run.kill_group()
        assert_nothing_half_written(project)
    assert_ends_like(project, undisturbed, *arguments)


def test_killed_in_the_middle_of_a_big_month(tmp_path: Path) -> None:
    quiet, project = (sample_project(tmp_path / name, BIG) for name in ("quiet", "killed"))
    for each in (quiet, project):
        each.folder.mkdir()
    assert quiet.luigi(*BIG_MONTH).returncode == 0
    for stage, share in (("Clean", 0.3), ("WriteParquet", 0.3), ("Load", 0.0), ("Load", 0.5)):
        gate = project.gate(stage, "running", share=share)
        run = Run(project, *BIG_MONTH)
        run.wait_at(gate)
        run.kill_group()
        assert not any(is_at(stage, "done")(event) for event in run.events())
        assert_nothing_half_written(project)
    gate.open()
    assert_ends_like(project, result(quiet), *BIG_MONTH)


@pytest.mark.parametrize("state", ["started", "telling"])
def test_killed_worker_process_is_replaced_by_its_run(tmp_path: Path, undisturbed: dict[str, Any], state: str) -> None:
    """As by the kernel when memory runs out: the others go on, and the same run does the month again.

    Also in the middle of what it tells the main process, which all others tell theirs.
    """
    project = sample_project(tmp_path, 2_000)
    arguments = (*RANGE, "--workers", "2")
    gate = project.gate("Clean", state)
    run = Run(project, *arguments)
    run.wait_at(gate)
    (pid, *_) = gate.stopped
    victim = next(event for event in run.events() if is_at("Clean", "started")(event) and event["pid"] == pid)
    os.kill(pid, signal.SIGKILL)
    gate.open()
    assert run.process.wait(PATIENCE) == 0, run.output.read_text()
    assert_nothing_half_written(project)
    assert victim["month"] in {event["month"] for event in run.events() if is_at("Load", "done")(event)}
    assert_ends_like(project, undisturbed, *arguments)
