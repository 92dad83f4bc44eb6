"""The cron line as cron runs it: twice at once, over a month that fails, killed, and beside another host."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.partition import Partition
from pipeline.publishers.sample import generator

from ..patience import PATIENCE, has_ended, wait_for
from ..servers.inbox import Inbox
from .conftest import Project

RANGE = ("RangeMonthly", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03")


def cron(project: Project, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", "cron", *arguments]


def log(project: Project) -> str:
    return (project.folder / "workspace" / "runs" / "cron.log").read_text()


def recent_project(tmp_path: Path, this: dt.date) -> Project:
    """A publisher whose green months end two months before this one, as TLC's do."""
    published = tmp_path / "published"
    months = [_back(this, count) for count in (6, 5, 4, 3)]
    generator.publish(published, "green", months, rows=200, seed=1, layout="tlc")
    (published / "SYNTHETIC.txt").unlink()  # stands for TLC's own files here
    return Project(
        tmp_path,
        {
            "PIPELINE_PUBLISHER_NAME": "tlc",
            "PIPELINE_PUBLISHER_URL": "file:published",
            "PIPELINE_CLEAN_RULES": "none",
            "PIPELINE_RANGE_DATASETS": "green",
        },
    )


@contextmanager
def one_month() -> Iterator[dt.date]:
    """The first day of this month; what meets the beginning of the next one in its midst is skipped."""
    this = dt.date.today().replace(day=1)
    try:
        yield this
    finally:
        if dt.date.today().replace(day=1) != this:
            pytest.skip("a month began while the test ran")


def _back(month: dt.date, count: int) -> dt.date:
    for _ in range(count):
        month = (month - dt.timedelta(days=1)).replace(day=1)
    return month


def test_months_not_yet_published_are_no_failure_and_a_good_run_is_quiet(tmp_path: Path) -> None:
    with one_month() as this:
        project = recent_project(tmp_path, this)
        first = project.pipeline("cron", "--last", "6")
        assert (first.returncode, first.stdout) == (0, "")
        assert log(project).count("not yet published") == 2
        assert project.query("SELECT count(DISTINCT file_month) FROM green_trips") == [(4,)]
        again = project.pipeline("cron", "--last", "6")
        assert (again.returncode, again.stdout) == (0, "")
        ranges = re.findall(r"--start (\S+) --stop (\S+)", log(project))
        assert ranges == [(f"{_back(this, count):%Y-%m}", f"{this:%Y-%m}") for count in (6, 2)]


def test_twice_at_once(project: Project) -> None:
    gate = project.gate("Download", "started")
    first = project.start(cron(project, *RANGE))
    gate.wait(first)
    second = project.pipeline("cron", *RANGE)
    assert second.returncode == 10
    assert second.stdout.count("\n") == 1 and f"process {first.pid} on" in second.stdout
    assert second.stdout.endswith("is running already; nothing was started\n")
    gate.open()
    output, _ = first.communicate(timeout=PATIENCE)
    assert (first.returncode, output) == (0, "")
    assert project.query("SELECT count(*) FROM etl_loads WHERE dataset = 'green'") == [(2,)], "loaded once"


def test_month_that_fails_is_one_line_one_message_and_the_exit_code(folder_project: Project) -> None:
    broken = folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    broken.write_bytes(b"<html>Access Denied</html>")
    with Inbox() as inbox:
        folder_project.environment["PIPELINE_NOTIFY_URLS"] = inbox.url
        failed = folder_project.pipeline("cron", *RANGE)
        assert failed.returncode == 30
        (line,) = failed.stdout.splitlines()
        assert line.startswith("error: NYC trips: 1 month failed, 1 month and zones loaded: green 2020-02: ")
        assert ": Download: WrongFormat: " in line and "; run 20" in line
        path = str(folder_project.folder / "workspace" / "runs" / "cron.log")
        assert line.endswith(f"log {path}")
        (message,) = inbox.messages
        assert "green 2020-02" in message["message"] and path in message["message"]
        assert "failed: WrongFormat" in log(folder_project)


def test_mistake_and_trouble_are_told_too(folder_project: Project) -> None:
    with Inbox() as inbox:
        folder_project.environment["PIPELINE_NOTIFY_URLS"] = inbox.url
        mistake = folder_project.pipeline("cron", *RANGE[:-1], "2020-13")
        assert mistake.returncode == 2 and "'2020-13' is not a month" in mistake.stdout
        for words in (
            ["--scheduler-url", "http://127.0.0.1:9", *RANGE],
            [*RANGE, "--scheduler-url", "http://127.0.0.1:9"],
        ):
            no_luigid = folder_project.pipeline("cron", *words)
            assert no_luigid.returncode == 2 and "no luigid answers at http://127.0.0.1:9" in no_luigid.stdout
        gap = folder_project.pipeline("cron", *RANGE[:-1], "2020-05")
        assert gap.returncode == 20 and "1 month missing at the publisher" in gap.stdout
        assert [message["title"] for message in inbox.messages] == [
            *["NYC trips: the run failed"] * 3,
            "NYC trips: 1 month missing at the publisher, 3 months and zones loaded",
        ]
        assert "'2020-13' is not a month" in inbox.messages[0]["message"]


def test_judged_by_the_root_task_and_not_by_the_exit_code(folder_project: Project, tmp_path: Path) -> None:
    """The month fails here, but by the time the root task is asked again another host has done it."""
    broken = folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    good = broken.read_bytes()
    broken.write_bytes(b"<html>Access Denied</html>")
    # A site-packages hook in the child luigi: when it has failed, the other host's work is there.
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import atexit, os, subprocess, sys
if "luigi" in sys.orig_argv and "--module" in sys.orig_argv and "OTHER_HOST" not in os.environ:
    def other_host():
        open({str(broken)!r}, "wb").write({good!r})
        words = [word for word in sys.orig_argv[1:]]
        done = {{"OTHER_HOST": "1", "PIPELINE_RUN_ID": "other", "PIPELINE_RUN_BEGUN": "other"}}
        subprocess.run([sys.executable, *words], env={{**os.environ, **done}}, check=True)
    if os.environ.get("PIPELINE_RUN_BEGUN") and "multiprocessing" not in " ".join(sys.orig_argv):
        atexit.register(other_host)
"""
    )
    with Inbox() as inbox:
        folder_project.environment |= {"PIPELINE_NOTIFY_URLS": inbox.url, "PYTHONPATH": str(tmp_path)}
        done = folder_project.pipeline("cron", *RANGE)
        assert "failed: WrongFormat" in log(folder_project), "it failed here"
        assert (done.returncode, done.stdout) == (0, "")
        assert [message["title"] for message in inbox.messages] == ["NYC trips: 1 month and zones loaded"]


def test_wrapper_and_run_that_are_killed_are_told_of_by_the_next(project: Project) -> None:
    month = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
    with Inbox() as inbox:
        project.environment["PIPELINE_NOTIFY_URLS"] = inbox.url
        gate = project.gate("Download", "started")
        wrapper = project.start(cron(project, *month))
        gate.wait(wrapper)
        (luigi,) = psutil.Process(wrapper.pid).children()
        wrapper.kill()
        wrapper.wait()
        busy = project.pipeline("cron", *month)
        assert busy.returncode == 10, "what the wrapper began still keeps others out"
        everything = [luigi, *luigi.children(recursive=True)]
        luigi.kill()
        wait_for(lambda: all(has_ended(process.pid) for process in everything))
        wrapper.communicate(timeout=PATIENCE)

        gate.open()
        assert project.pipeline("cron", *month).returncode == 0
        titles = [message["title"] for message in inbox.messages]
        assert len(titles) == 2 and "a run was killed" in titles[0] and titles[1] == "NYC trips: 1 month loaded"


def test_luigi_that_is_killed_and_wrapper_that_is_stopped(project: Project) -> None:
    month = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
    with Inbox() as inbox:
        project.environment |= {"PIPELINE_NOTIFY_URLS": inbox.url, "PIPELINE_NOTIFY_ON": "crashed"}
        gate = project.gate("Download", "started")
        wrapper = project.start(cron(project, *month))
        gate.wait(wrapper)
        (luigi,) = psutil.Process(wrapper.pid).children()
        luigi.kill()
        output, _ = wrapper.communicate(timeout=PATIENCE)
        assert wrapper.returncode == 137 and "luigi was ended by SIGKILL" in output
        (message,) = inbox.messages
        assert "luigi was ended by SIGKILL" in message["message"]

        gate = project.gate("Download", "started")
        wrapper = project.start(cron(project, *month))
        gate.wait(wrapper)
        (luigi,) = psutil.Process(wrapper.pid).children()
        wrapper.send_signal(signal.SIGTERM)
        wait_for(lambda: gate.is_told_to_stop, wrapper)
        gate.open()
        wrapper.communicate(timeout=PATIENCE)
        assert wrapper.returncode == 143 and has_ended(luigi.pid)


def test_ctrl_c_is_one_line(project: Project) -> None:
    """As a terminal sends it, to the wrapper and to its luigi."""
    gate = project.gate("Download", "started")
    wrapper = project.start(cron(project, *RANGE), group=True)
    gate.wait(wrapper)
    os.killpg(wrapper.pid, signal.SIGINT)
    output, _ = wrapper.communicate(timeout=PATIENCE)
    assert (wrapper.returncode, output) == (130, "stopped\n")
    assert "stopped; the same command goes on from here" in log(project)


def test_output_goes_where_it_is_wanted(folder_project: Project) -> None:
    done = folder_project.pipeline("cron", "--log", "-", *RANGE)
    assert done.returncode == 0
    assert (
        "run 20" in done.stdout and "Load green 2020-01" in done.stdout and "2 months and zones loaded" in done.stdout
    )
    refused = folder_project.pipeline("cron", "--log", "nowhere/cron.log", *RANGE)
    assert refused.returncode == 2 and refused.stdout.startswith("error: --log nowhere/cron.log")


def test_log_on_a_full_disk_is_one_line(folder_project: Project) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = folder_project.pipeline("cron", "--log", "/dev/full", "TaxiZones")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("warning: the log /dev/full cannot be written: "), done.stdout
    assert done.stdout.count("\n") == 1, done.stdout


def test_nightly_refresh(folder_project: Project) -> None:
    assert folder_project.pipeline("cron", *RANGE).returncode == 0
    quiet = folder_project.pipeline("cron", "Refresh", "--since", "2020-01", "--dataset", "green")
    assert (quiet.returncode, quiet.stdout) == (0, "")
    month = folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    generator.make_file(Partition("green", dt.date(2020, 2, 1)), month, rows=310, seed=2, layout="tlc")
    with Inbox() as inbox:
        folder_project.environment["PIPELINE_NOTIFY_URLS"] = inbox.url
        assert folder_project.pipeline("cron", "Refresh", "--since", "2020-01", "--dataset", "green").returncode == 0
        (message,) = inbox.messages
    assert "republished" in message["title"] and "green 2020-02" in message["message"]
