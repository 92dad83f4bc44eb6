"""A run that waits for a lock holder names it in one line, and waits as long as the settings say."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.job import Job
from pipeline.partition import Partition
from pipeline.planning.scratch import Scratch

from ..patience import PATIENCE
from .conftest import Project

SAMPLE = {"PIPELINE_PUBLISHER_NAME": "sample", "PIPELINE_PUBLISHER_URL": "sample:?rows=500&seed=1"}
MONTH = ("--dataset", "green", "--month", "2020-02")
SHELL = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reader")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def loaded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project that has loaded a month."""
    folder = tmp_path_factory.mktemp("loaded") / "project"
    folder.mkdir()
    done = Project(folder, dict(SAMPLE)).luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def loaded(loaded_once: Path, tmp_path: Path) -> Project:
    """A project whose database exists, so that a shell can be opened on it."""
    shutil.copytree(loaded_once, tmp_path / "project")
    return Project(tmp_path / "project", dict(SAMPLE))


@contextlib.contextmanager
def shell(project: Project, kind: str = "writer") -> Iterator[subprocess.Popen[str]]:
    """Somebody's open shell on the database; it closes with its stdin."""
    command = [sys.executable, "-c", SHELL, str(project.folder / "warehouse.duckdb"), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The lines of a command up to the first with this text."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


def waits(project: Project) -> list[str]:
    """What the journal of the newest run says its stages waited for."""
    journals = (project.folder / "workspace" / "runs").glob("*.jsonl")
    newest = max(journals, key=lambda journal: journal.stat().st_mtime_ns)  # two runs may have begun within a second
    events = [json.loads(line) for line in newest.read_text().splitlines()]
    return [event["note"] for event in events if event["event"] == "stage" and event["state"] == "waiting"]


@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_an_open_shell_is_waited_for_up_to_the_limit_and_named(loaded: Project, kind: str) -> None:
    loaded.environment["PIPELINE_WAREHOUSE_LOCK_TIMEOUT"] = "6"
    gate = loaded.gate("Download", "started")  # after planning, which needs the database too
    with loaded.start(loaded.luigi_command("MonthlyTrips", *MONTH)) as run:
        gate.wait(run)
        with shell(loaded, kind) as holder:
            gate.open()
            output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 30, output
    title = "Load green 2020-02 into warehouse.duckdb"
    who = f"(PID {holder.pid})"
    said = [line.split(" ", 1)[1] for line in output.splitlines() if " WARNING " in line or " ERROR " in line]
    assert len(said) == 2, output
    assert said[0].startswith(f"WARNING {title} waits for ") and said[0].endswith(
        f" {who}, which holds it, for at most 6 s"
    )
    assert said[1].startswith(f"ERROR {title}: held by ") and f"{who} for more than 6 s; close it there" in said[1]
    assert "failed: WarehouseBusy" in output and output.count(who) == 3  # once below the table
    assert [bool(text) for text in waits(loaded)] == [True, False]


def test_a_shell_that_closes_after_the_limit_fails_no_run(loaded: Project) -> None:
    loaded.environment["PIPELINE_WAREHOUSE_LOCK_TIMEOUT"] = "0.5"
    command = loaded.luigi_command("MonthlyTrips", *MONTH, "--scheduler-retry-count", "999")
    gate = loaded.gate("Download", "started")
    with loaded.start(command) as run, contextlib.ExitStack() as stack:
        gate.wait(run)
        holder = stack.enter_context(shell(loaded))
        gate.open()
        read_until(run, f"(PID {holder.pid}) for more than 0.5 s")
        holder.kill()
        holder.wait(PATIENCE)
        rest, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0 and "failed" not in rest, rest
    assert loaded.query("SELECT count(*) FROM etl_current WHERE dataset = 'green'") == [(2,)]


def test_a_database_that_is_held_while_a_run_is_planned_is_one_line(loaded: Project) -> None:
    loaded.environment["PIPELINE_WAREHOUSE_LOCK_TIMEOUT"] = "6"
    span = ("--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03")
    with shell(loaded) as holder:
        refused = loaded.luigi("RangeMonthly", *span)
        shown = loaded.pipeline("status", "--dataset", "green", "--start", "2020-01")
    for done, who in ((refused, "this run"), (shown, "this command")):
        assert done.returncode == 35, done.stdout
        said = done.stdout.splitlines()
        assert f"WARNING {who} waits for " in said[0] and f"(PID {holder.pid})" in said[0]
        assert said[1].startswith("error: duckdb:///") and f"(PID {holder.pid}) for more than 6 s" in said[1]
        assert len(said) == 2


def test_another_run_of_the_same_month_is_named_and_waited_for(project: Project) -> None:
    assert project.luigi("Download", *MONTH).returncode == 0
    url = project.environment["PIPELINE_PUBLISHER_URL"]
    place = f"file:{project.folder}"
    job = Job(f"sample={url}", "none", f"{place}/lake", f"{place}/workspace")
    command = project.luigi_command("Clean", *MONTH, "--publisher", job.publisher_label, "--rules", "none")
    with Scratch(job, Partition("green", dt.date(2020, 2, 1))).lock():
        run = project.start(command)
        said = read_until(run, " waits for ")
    with run:
        rest, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, said + rest
    assert "WARNING Download green 2020-02 waits for another run of the pipeline (PID " in said
    assert said.rstrip().endswith(", which holds it, for at most 3600 s")


def test_a_month_that_is_forgotten_while_its_load_waits_is_made_again_at_once(project: Project) -> None:
    assert project.luigi("Upload", *MONTH).returncode == 0
    place = f"file:{project.folder}"
    rules = "zero_passengers@1,pickup_outside_month@1"
    job = Job(f"sample={project.environment['PIPELINE_PUBLISHER_URL']}", rules, f"{place}/lake", f"{place}/workspace")
    with Scratch(job, Partition("green", dt.date(2020, 2, 1))).lock(f"duckdb:///{project.folder}/warehouse.duckdb"):
        run = project.start(project.luigi_command("Load", *MONTH))
        said = read_until(run, " waits for ")
        assert project.pipeline("forget", *MONTH).returncode == 0
    with run:
        rest, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, said + rest
    assert " needs Upload green 2020-02, which is not there though it counts as done; done again" in rest
    assert " ERROR " not in rest and "Traceback" not in rest, rest
    assert project.query("SELECT count(*) FROM etl_current WHERE dataset = 'green' AND status = 'loaded'") == [(1,)]
