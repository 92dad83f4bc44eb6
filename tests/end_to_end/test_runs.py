"""The list of all runs, however they were started, and ``runs cancel``; through the real commands."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..patience import PATIENCE, wait_for
from ..servers.gcs import GcsServer, gcs_server
from .conftest import Project
from .gate import Gate

__all__ = ["gcs_server"]

MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")


def runs(project: Project, *arguments: str) -> list[dict[str, Any]]:
    done = project.pipeline("runs", "--json", *arguments)
    assert done.returncode == 0, done.stdout
    return list(json.loads(done.stdout))


def journals(project: Project) -> Path:
    return project.folder / "workspace" / "runs"


class Started(NamedTuple):
    """A run whose first stage is at work until the gate is opened."""

    process: subprocess.Popen[str]
    gate: Gate


Start = Callable[..., Started]


@pytest.fixture
def start(project: Project) -> Iterator[Start]:
    """Starts a run under an id, by hand or by cron, and waits until a stage is at work."""
    started = []

    def begin(name: str, how: str = "by hand") -> Started:
        cron = [sys.executable, "-m", "pipeline", "cron", *MONTH]
        gate = project.gate("Clean", "started")
        project.environment["PIPELINE_RUN_ID"] = name
        process = project.start(cron if how == "cron" else project.luigi_command(*MONTH))
        started.append(Started(process, gate))
        del project.environment["PIPELINE_RUN_ID"]
        gate.wait(process)
        return started[-1]

    yield begin
    for process, gate in started:
        gate.open()
        process.kill()
        process.communicate()


def test_runs_by_hand_and_by_cron_are_listed_with_what_came_of_them(folder_project: Project) -> None:
    folder_project.luigi(*MONTH)
    folder_project.pipeline("cron", *MONTH)
    broken = folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    broken.write_bytes(b"<html>no</html>")
    folder_project.pipeline("cron", *MONTH[:-1], "2020-02")
    first, second, third = runs(folder_project)
    assert [run["how"] for run in (first, second, third)] == ["by hand", "cron", "cron"]
    assert [run["state"] for run in (first, second, third)] == ["complete", "complete", "failed"]
    assert (first["rows"], second["rows"], third["rows"]) == (300, 0, 0)
    assert first["loaded"] == ["green 2020-01"] and second["loaded"] == []
    assert list(third["failed"]) == ["green 2020-02"] and third["log"].endswith(f"{third['id']}.log")
    for run in (first, second, third):
        assert run["started_at"] <= run["ended_at"] and run["started_at"].endswith("+00:00") and run["seconds"] >= 0
    assert runs(folder_project, "--failed") == [third] and runs(folder_project, "--last", "2") == [second, third]
    text = folder_project.pipeline("runs", "--last", "1").stdout
    assert f"{third['id']}  20" in text and "  failed     cron\n    1 failed\n    python -m pipeline cron" in text
    assert "1 of 3 runs; --last N shows more" in text and "green 2020-02: Download: " in text
    assert f"log {third['log']}" in text


def test_run_of_a_program_is_listed(project: Project) -> None:
    script = project.folder / "mine.py"
    script.write_text("import luigi, pipeline\nluigi.build([pipeline.TaxiZones()], local_scheduler=True)\n")
    project.run(sys.executable, str(script))
    (run,) = runs(project)
    assert (run["how"], run["state"], run["summary"]) == ("luigi.build", "complete", "zones loaded, 265 rows")


def test_run_under_way_is_stopped_gently(project: Project, start: Start) -> None:
    process, gate = start("long")
    (run,) = runs(project)
    assert (run["state"], run["ended_at"]) == ("running", None)
    cancelled = project.pipeline("runs", "cancel", "lo")
    assert cancelled.returncode == 0
    assert cancelled.stdout == f"run long is cancelled; process {process.pid} ends after the stages that are running\n"
    wait_for(lambda: gate.is_told_to_stop, process)
    assert "has told it to stop" in project.pipeline("runs").stdout
    gate.open()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 25, output
    (run,) = runs(project)
    assert run["state"] == "cancelled" and run["cancelled_by"].endswith(f"@{socket.gethostname()}")
    again = project.pipeline("runs", "cancel", "long")
    assert (again.returncode, again.stdout) == (1, "error: run long has ended\n")
    assert runs(project, "--failed") == []


def test_run_that_is_cancelled_twice_ends_at_once(project: Project, start: Start) -> None:
    process, gate = start("long")
    project.pipeline("runs", "cancel", "long")
    wait_for(lambda: gate.is_told_to_stop, process)
    cancelled = project.pipeline("runs", "cancel", "long")
    assert cancelled.stdout == f"run long is cancelled; process {process.pid} ends at once\n"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM
    wait_for(lambda: runs(project)[0]["state"] == "cancelled")


def test_run_of_cron_is_stopped_too(project: Project, start: Start) -> None:
    process, gate = start("nightly", "cron")
    assert project.pipeline("runs", "cancel", "nightly").returncode == 0
    wait_for(lambda: gate.is_told_to_stop or process.poll() is not None)
    gate.open()
    process.communicate(timeout=PATIENCE)
    assert process.returncode not in (0, 1, 2)
    wait_for(lambda: runs(project)[0]["state"] != "running")
    (run,) = runs(project)
    assert (run["how"], run["state"]) == ("cron", "cancelled")


def test_run_that_was_killed_says_so(project: Project, start: Start) -> None:
    process, _ = start("long")
    process.kill()
    process.wait(PATIENCE)
    wait_for(lambda: runs(project, "--failed") != [])
    assert [run["state"] for run in runs(project)] == ["killed"]
    text = project.pipeline("runs").stdout
    assert "  killed     by hand\n" in text and "    last heard of 20" in text


def test_id_of_a_run_under_way_is_refused(project: Project, start: Start) -> None:
    start("long")
    project.environment["PIPELINE_RUN_ID"] = "long"
    for refused in (project.luigi(*MONTH), project.pipeline("cron", *MONTH)):
        assert refused.returncode == 2, refused.stdout
        assert (
            refused.stdout.count("\n") == 1 and "error: run long is under way; PIPELINE_RUN_ID must" in refused.stdout
        )
    assert [run["state"] for run in runs(project)] == ["running"]


@pytest.mark.parametrize(
    ("begun", "says"),
    [
        ({"host": "moon", "pid": 1}, "run odd is under way on moon; there: python -m pipeline runs cancel odd"),
        ({"host": socket.gethostname(), "pid": os.getppid()}, f"but not in process {os.getppid()}, which began it"),
        ({"host": socket.gethostname(), "pid": "x"}, "but not in process x, which began it"),
        ({"host": socket.gethostname()}, "but not in process None, which began it"),
    ],
)
def test_what_cannot_be_stopped_from_here_is_one_line(project: Project, begun: dict[str, Any], says: str) -> None:
    path = journals(project) / "odd.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps({"event": "begun", "at": time.time(), "run": "odd", "command": ["luigi"], **begun}) + "\n"
    )
    with path.open() as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)  # as a run does that is under way
        refused = project.pipeline("runs", "cancel", "odd")
    assert refused.returncode == 1 and refused.stdout.count("\n") == 1 and says in refused.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cancel",), "runs cancel takes the id of a run"),
        (("cancel", "nothing"), "there is no run nothing; `python -m pipeline runs` lists them"),
        (("cancel", "../x"), "there is no run ../x"),
        (("cancel", "a"), "a may be any of a1, a2; write more of the id"),
        (("kill", "a1"), "invalid choice: 'kill'"),
        (("--last", "0"), "--last"),
    ],
)
def test_mistakes_are_one_line(project: Project, arguments: tuple[str, ...], says: str) -> None:
    journals(project).mkdir(parents=True)
    for name in ("a1", "a2"):
        begun = {"event": "begun", "at": 1.0, "run": name, "command": ["luigi"], "host": "moon"}
        (journals(project) / f"{name}.jsonl").write_text(json.dumps(begun) + "\n")
    refused = project.pipeline("runs", *arguments)
    assert refused.returncode == 2, refused.stdout
    assert refused.stdout.count("\n") == 1 and says in refused.stdout


def test_journals_that_make_no_sense_break_no_list(project: Project) -> None:
    project.luigi("TaxiZones")
    (good,) = runs(project)
    odd = {
        "empty": b"",
        "binary": bytes(range(256)) * 100,
        "text": b"hello\n",
        "list": b"[1]\n",
        "deep": b"[" * 100_000 + b"\n",
        "utf16": '{"event": "begun"}\n'.encode("utf-16"),
        "begun-only": b'{"event": "begun"}\n',
        "odd-begun": b'{"event": "begun", "at": "x", "command": 5, "host": [], "run": {}}\n',
        "far": b'{"event": "begun", "at": 1e300, "command": ["luigi"]}\n{"event": "ended", "at": -1e300}\n',
        "odd-events": b'{"event": "begun", "at": 1, "command": []}\n{"event": "stage"}\n{"event": "plan"}\n',
    }
    for name, content in odd.items():
        (journals(project) / f"{name}.jsonl").write_bytes(content)
    (journals(project) / "folder.jsonl").mkdir()
    (journals(project) / "link.jsonl").symlink_to("nowhere")
    for arguments in ((), ("--json",), ("--failed",)):
        done = project.pipeline("runs", *arguments)
        assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
        assert (good["id"] in done.stdout) == (arguments != ("--failed",))


def test_workspace_in_a_bucket(tmp_path: Path, gcs_server: GcsServer) -> None:
    """Journals lie on the host, what was submitted lies in the bucket."""
    bucket = gcs_server.make_bucket()
    # What TMPDIR does too, but that a fork, see warm.py, may have read already.
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(f"import tempfile\ntempfile.tempdir = {str(tmp_path)!r}\n")
    project = Project(
        tmp_path,
        {
            "PIPELINE_PUBLISHER_NAME": "sample",
            "PIPELINE_PUBLISHER_URL": "sample:?rows=500&seed=1",
            "PIPELINE_WORKSPACE_URL": f"gs://{bucket}/workspace",
            "PIPELINE_LAKE_URL": f"file:{tmp_path}/lake",
            "STORAGE_EMULATOR_HOST": gcs_server.url,
            "PYTHONPATH": str(tmp_path / "hooks"),
        },
    )
    first = project.pipeline("submit", *MONTH).stdout.split()[0]
    second = project.pipeline("submit", "TaxiZones").stdout.split()[0]
    assert project.pipeline("runs", "cancel", first).returncode == 0
    agent = project.pipeline("agent", "--drain", "--poll", "0.2")
    assert agent.returncode == 0, agent.stdout
    project.luigi("TaxiZones")
    found = runs(project)
    assert {(run["id"], run["how"], run["state"]) for run in found[:2]} == {
        (first, "queue default", "cancelled"),
        (second, "queue default", "complete"),
    }
    assert (found[2]["how"], found[2]["state"]) == ("by hand", "complete")
    shutil.rmtree(tmp_path / f"nyc-trips-runs-{os.getuid()}")  # another host
    left = {run["id"]: run for run in runs(project)}
    assert left.keys() == {first, second}
    cancelled, done = left[first], left[second]
    assert (cancelled["state"], done["state"]) == ("cancelled", "complete")
    assert done["summary"] == "zones loaded, 265 rows" and done["seconds"] is not None and done["started_at"]
    text = project.pipeline("runs").stdout
    assert f"2 runs; of this host ({socket.gethostname()}) and submitted ones" in text
    assert project.pipeline("queue", "list").stdout.startswith("default: 0 waiting, 0 running")


@pytest.mark.parametrize("name", ["x" * 300, "../../../a b/ü"])
def test_id_that_cannot_name_a_file_is_refused_by_every_command(project: Project, name: str) -> None:
    project.environment["PIPELINE_RUN_ID"] = name
    for done in (
        project.luigi(*MONTH),
        project.pipeline("cron", *MONTH),
        project.pipeline("submit", *MONTH),
        project.pipeline("runs"),
    ):
        assert done.returncode == 2, done.stdout
        assert done.stdout.count("\n") == 1 and "error: environment variable PIPELINE_RUN_ID: " in done.stdout
    code = 'import luigi, pipeline; luigi.build([pipeline.MonthlyTrips(month="2020-01")], local_scheduler=True)'
    built = project.run(sys.executable, "-c", code)
    assert built.returncode and "environment variable PIPELINE_RUN_ID: " in built.stdout
    doctor = project.pipeline("doctor")
    assert doctor.returncode == 1 and "FAIL  settings   environment variable PIPELINE_RUN_ID: " in doctor.stdout
    assert not list(project.folder.iterdir()), "nothing was done"
