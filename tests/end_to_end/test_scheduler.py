"""A scheduler that is wrong about a run's tasks, is away, or has no task to offer: the run reports it and continues."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from ..conftest import CHECKOUT
from ..servers.http import ERROR_PAGE, Fault, HttpServer
from ..servers.luigid import Luigid
from .conftest import Project
from .gate import Gate
from .test_hosts import RANGE, STAGES, Cluster, Host, luigid, publish, undisturbed

__all__ = ["luigid", "undisturbed"]

MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")


def assert_ended_well(host: Host) -> None:
    assert host.end() == 0, host.output.read_text()
    output = host.output.read_text()
    assert "Traceback" not in output and "Unfulfilled" not in output, output


# -- "Mark as done" on luigid's page ---------------------------------------------------------------


def test_failed_tasks_of_which_one_was_marked_as_done(tmp_path: Path, luigid: Luigid) -> None:
    """A terminal failure is not tried again by the run; the next run does its month, whether it was marked or not."""
    asked = (*RANGE[:-1], "2020-04")
    published = publish(tmp_path / "published", (1, 2, 3))
    bad = [published / "trip-data" / f"green_tripdata_2020-{month}.parquet" for month in ("02", "03")]
    whole = [file.read_bytes() for file in bad]
    for file in bad:
        file.write_bytes(ERROR_PAGE)
    cluster = Cluster(tmp_path, luigid, PIPELINE_PUBLISHER_NAME="tlc", PIPELINE_PUBLISHER_URL=f"file:{published}")
    host = cluster.start("run-a", *asked, "--workers", "2")
    assert host.end() == 30, host.output.read_text()
    assert sorted(host.stages("failed")) == [("Download", "2020-02"), ("Download", "2020-03")], "once"
    assert cluster.query("SELECT count(*) FROM etl_current WHERE dataset = 'green'") == [(1,)]
    disabled = {task["params"]["month"]: task["id"] for task in luigid.tasks("DISABLED")}
    assert sorted(disabled) == ["2020-02", "2020-03"]
    for month, task in disabled.items():
        error = json.loads(luigid.ask("fetch_error", task_id=task)["error"])
        assert error.startswith(f"Download green {month}: ") and "\n" not in error

    for file, data in zip(bad, whole, strict=True):
        file.write_bytes(data)
    assert luigid.ask("mark_as_done", task_id=disabled["2020-02"])["status"] == "DONE"
    again = cluster.start("run-b", *asked, "--workers", "2")
    assert_ended_well(again)
    assert not again.stages("failed")
    assert {("Load", "2020-02"), ("Load", "2020-03")} <= set(again.stages("done"))
    assert cluster.query("SELECT count(*) FROM etl_current WHERE dataset = 'green'") == [(3,)]


def test_running_task_that_is_marked_as_done(tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]) -> None:
    """What needs it begins at once, finds out, and waits for it. Each stage once, in one run."""
    cluster = Cluster(tmp_path, luigid)
    gates = [cluster.gate(stage, "started", "2020-01") for stage in STAGES]
    host = cluster.start("run-a", *RANGE, "--workers", "2", gates=gates)

    def running() -> dict[tuple[str, str | None], str]:
        return {(task["name"], task["params"].get("month")): task["id"] for task in luigid.tasks("RUNNING")}

    for gate, needing in zip(gates, [*STAGES[1:], "MonthlyTrips"], strict=True):
        host.wait_at(gate)
        luigid.ask("mark_as_done", task_id=running()[gate.stage, "2020-01"])
        if needing in STAGES:
            found_out = f"needs {gate.stage} green 2020-01, which is not there though it counts as done"
            host.wait_until(lambda text=found_out: text in host.log.read_text())
        else:
            host.wait_until(lambda task=needing: (task, "2020-01") in running())
        gate.open()
    assert_ended_well(host)
    assert cluster.tables() == undisturbed


# -- luigid is killed, or away ---------------------------------------------------------------------


def restart_without_state(luigid: Luigid) -> None:
    luigid.stop(signal.SIGKILL)
    (luigid.folder / "luigid" / "state.pickle").unlink(missing_ok=True)
    luigid.start()


def test_luigid_killed_after_each_stage(tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]) -> None:
    """Luigid, and all that it knew, is lost four times, each time after the same stage of all ranges.

    One is done by one process, one by two, and one by two hosts with two each.
    """
    hosts: dict[Cluster, list[Host]] = {}
    gates: dict[str, list[Gate]] = {stage: [] for stage in STAGES[:-1]}
    for count, workers in ((1, 1), (1, 2), (2, 2)):
        cluster = Cluster(tmp_path / f"{count}-{workers}", luigid)
        stops = [cluster.gate(stage, "done", "2020-01") for stage in gates]
        hosts[cluster] = [
            cluster.start(f"run-{number}", *RANGE, "--workers", str(workers), gates=stops) for number in range(count)
        ]
        for gate in stops:
            gates[gate.stage].append(gate)
    first = next(iter(hosts.values()))[0]
    for of_stage in gates.values():
        first.wait_until(lambda of_stage=of_stage: all(gate.stopped for gate in of_stage))
        restart_without_state(luigid)
        for gate in of_stage:
            gate.open()
    for cluster, started in hosts.items():
        for host in started:
            assert_ended_well(host)
        assert cluster.tables() == undisturbed
        assert any("had forgotten tasks of this run" in host.log.read_text() for host in started)


def test_run_says_that_luigid_is_away(tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]) -> None:
    cluster = Cluster(tmp_path, luigid)
    gate = cluster.gate("Clean", "started")
    host = cluster.start("run-a", *RANGE, gates=[gate])
    host.wait_at(gate)
    luigid.stop()
    gate.open()
    host.wait_until(lambda: "waits for luigid" in host.output.read_text())
    luigid.start()
    assert_ended_well(host)
    assert host.output.read_text().count("waits for luigid") == 1
    texts = [event["text"] for event in host.events() if event["event"] == "waiting"]
    assert "does not answer" in texts[0] and texts[-1] == ""
    assert cluster.tables() == undisturbed


def test_run_says_that_luigid_is_paused(tmp_path: Path, luigid: Luigid) -> None:
    cluster = Cluster(tmp_path, luigid)
    luigid.ask("pause")
    host = cluster.start("run-a", *MONTH)
    host.wait_until(lambda: "luigid is paused" in host.output.read_text())
    luigid.ask("unpause")
    assert_ended_well(host)


def test_what_answers_is_no_luigid(project: Project) -> None:
    with HttpServer(project.folder) as site:
        site.program("/", Fault(status=401, times=1, methods=("HEAD",)), Fault(status=404, times=1, methods=("HEAD",)))
        for expected in ("refuses user and password", "is no luigid (HTTP 404)"):
            done = project.run(
                *(str(Path(sys.executable).parent / "luigi"), "--module", "pipeline", *MONTH),
                *("--scheduler-url", site.url.replace("http://", "http://me:secret@")),
            )
            assert done.returncode == 2 and expected in done.stdout and "secret" not in done.stdout, done.stdout


# -- settings of Luigi with which nothing would run -------------------------------------------------


def configured(project: Project, *lines: str) -> Project:
    """The project with these lines in its luigi.cfg, instead of those of the same name."""
    import configparser

    config = configparser.RawConfigParser()
    config.read(CHECKOUT / "luigi.cfg")
    config.read_string("\n".join(lines))
    with (project.folder / "luigi.cfg").open("w") as file:
        config.write(file)
    project.environment["LUIGI_CONFIG_PATH"] = str(project.folder / "luigi.cfg")
    return project


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("[resources]", "memory = 0"), "[resources] memory = 0"),
        (("[resources]", "download_sample = 0"), "[resources] download_sample = 0"),
        (("[resources]", "load_duckdb = 0"), "[resources] load_duckdb = 0"),
        (("[worker]", "task_limit = 3"), "[worker] task_limit"),
        (("[core]", "assistant = true"), "[core] assistant"),
        (("[core]", "no_lock = false", "lock_size = 0"), "[core] lock_size"),
        (("[worker]", "wait_interval = 0"), "[worker] wait_interval"),
        (("[core]", "rpc_retry_attempts = many"), "[core] rpc_retry_attempts"),
        (("[core]", "rpc_connect_timeout = 0"), "[core] rpc_connect_timeout"),
        (("[worker]", "wait_jitter = -1"), "wait_jitter"),
        (("[worker]", "ping_interval = 60"), "[worker] ping_interval"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_settings_with_which_a_run_would_wait_for_ever(project: Project, lines: tuple[str, ...], expected: str) -> None:
    done = configured(project, *lines).luigi(*MONTH)
    assert done.returncode == 2 and done.stdout.startswith("error: ") and expected in done.stdout, done.stdout
    assert done.stdout.count("\n") == 1 and not (project.folder / "lake").exists()


@pytest.mark.parametrize("flags", [("--worker-task-limit", "3"), ("--assistant",)], ids=lambda flags: flags[0])
def test_flags_with_which_a_run_would_wait_for_ever(project: Project, flags: tuple[str, ...]) -> None:
    done = project.luigi(*MONTH, *flags)
    assert done.returncode == 2 and done.stdout.startswith(f"error: {flags[0]} "), done.stdout


@pytest.mark.parametrize(
    "lines",
    [
        (
            *("[worker]", "keep_alive = false", "cache_task_completion = true", "timeout = 600"),
            *("[scheduler]", "retry_count = 0", "[resources]", "load_bigquery = 0"),
        ),
        ("[worker]", "count_uniques = true", "[core]", "parallel_scheduling = true", "no_lock = false"),
        ("[worker]", "count_last_scheduled = true", "check_complete_on_run = true", "force_multiprocessing = true"),
    ],
    ids=lambda lines: lines[1],
)
def test_settings_of_luigi_that_make_no_difference(project: Project, lines: tuple[str, ...]) -> None:
    done = configured(project, *lines).luigi(*MONTH)
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout


def test_same_command_twice_where_locks_are_wanted(project: Project) -> None:
    configured(project, "[core]", "no_lock = false", f"lock_pid_dir = {project.folder}/locks")
    project.environment["COLD_START"] = "1"  # Luigi's lock compares command lines, and a fork, see warm.py, has another
    gate = project.gate("Download", "started")
    first = project.start(project.luigi_command(*MONTH))
    try:
        gate.wait(first)
        second = project.luigi(*MONTH)
        assert second.returncode == 10 and f"{first.pid}" in second.stdout, second.stdout
    finally:
        first.kill()
        first.communicate()
