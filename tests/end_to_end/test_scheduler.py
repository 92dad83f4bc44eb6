"""A scheduler that is wrong about a run's tasks, is away, or has nothing to offer: the run says so and goes on."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ..conftest import CHECKOUT
from ..patience import wait_for
from ..servers.http import ERROR_PAGE, Fault, HttpServer
from ..servers.luigid import PATIENT, Luigid
from .conftest import Project
from .test_hosts import MONTHS, RANGE, Cluster, Host, luigid, publish, undisturbed

__all__ = ["luigid", "undisturbed"]

MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")


def assert_ended_well(host: Host) -> None:
    assert host.end() == 0, host.output.read_text()
    output = host.output.read_text()
    assert "Traceback" not in output and "Unfulfilled" not in output, output


# -- "Mark as done" on luigid's page ---------------------------------------------------------------


def test_failed_task_that_was_marked_as_done(tmp_path: Path, luigid: Luigid) -> None:
    published = publish(tmp_path / "published")
    bad = published / "trip-data" / "green_tripdata_2020-02.parquet"
    whole = bad.read_bytes()
    bad.write_bytes(ERROR_PAGE)
    cluster = Cluster(tmp_path, luigid, PIPELINE_PUBLISHER_NAME="tlc", PIPELINE_PUBLISHER_URL=f"file:{published}")
    host = cluster.start("run-a", *RANGE, "--workers", "2")
    assert host.end() == 30, host.output.read_text()
    bad.write_bytes(whole)
    for task in luigid.tasks("DISABLED"):
        assert luigid.ask("mark_as_done", task_id=task["id"])["status"] == "DONE"
    again = cluster.start("run-b", *RANGE, "--workers", "2")
    assert_ended_well(again)
    assert not again.stages("failed")
    assert cluster.query("SELECT count(*) FROM etl_current WHERE dataset = 'green'") == [(MONTHS,)]


def test_running_task_that_is_marked_as_done(tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]) -> None:
    """What needs it begins at once, finds out, and waits for it. Each stage once, in one run."""
    cluster = Cluster(tmp_path, luigid)
    host = cluster.start("run-a", *RANGE, "--workers", "2")
    marked: set[str] = set()

    def mark() -> bool:
        for task in luigid.tasks("RUNNING"):
            if task["name"] not in marked:
                marked.add(task["name"])
                luigid.ask("mark_as_done", task_id=task["id"])
        return host.process.poll() is not None

    wait_for(mark)
    assert_ended_well(host)
    assert "Download" in marked
    assert cluster.tables() == undisturbed


# -- luigid is killed, or away ---------------------------------------------------------------------


def restart_without_state(luigid: Luigid) -> None:
    luigid.stop(signal.SIGKILL)
    (luigid.folder / "luigid" / "state.pickle").unlink(missing_ok=True)
    luigid.start()


@pytest.mark.parametrize("hosts", [1, 2])
def test_luigid_killed_after_each_stage(tmp_path: Path, hosts: int, undisturbed: dict[str, Any]) -> None:
    def lose_luigid(stage: str) -> None:
        with Luigid(tmp_path / f"luigid-{stage}", disconnect_delay=PATIENT) as luigid:
            cluster = Cluster(tmp_path / stage, luigid)
            gate = cluster.gate(stage, "done")
            names = [f"{stage}-{number}" for number in range(hosts)]
            started = [cluster.start(name, *RANGE, "--workers", "2", gate=gate) for name in names]
            started[0].wait_until(lambda: bool(gate.stopped))
            restart_without_state(luigid)
            gate.open()
            for host in started:
                assert_ended_well(host)
            assert cluster.tables() == undisturbed

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lose_luigid, ("Download", "Clean", "WriteParquet", "Upload")))


def test_run_says_that_luigid_is_away(tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]) -> None:
    cluster = Cluster(tmp_path, luigid)
    gate = cluster.gate("Clean", "started")
    host = cluster.start("run-a", *RANGE, gate=gate)
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
        ("[worker]", "keep_alive = false", "[scheduler]", "retry_count = 0", "[resources]", "load_bigquery = 0"),
        ("[worker]", "count_uniques = true", "[core]", "parallel_scheduling = true", "no_lock = false"),
        ("[worker]", "count_last_scheduled = true", "check_complete_on_run = true", "force_multiprocessing = true"),
        ("[worker]", "cache_task_completion = true", "timeout = 600"),
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
