"""One outcome per run: table, notification, exit code and return value agree, whatever happened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..patience import PATIENCE, wait_for
from ..servers.inbox import Inbox
from .conftest import Project

GREEN = ("RangeMonthly", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03")
JANUARY = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as inbox:
        yield inbox


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest) -> None:
    """Let the runs of a test that has an inbox tell it."""
    if "inbox" in request.fixturenames:
        name = next(name for name in ("folder_project", "project") if name in request.fixturenames)
        request.getfixturevalue(name).environment["PIPELINE_NOTIFY_URLS"] = request.getfixturevalue("inbox").url


def break_month(project: Project, month: str) -> Callable[[], None]:
    """Put an error page in the place of a published month. Returns what puts the month back."""
    file = project.folder / "published" / "trip-data" / f"green_tripdata_{month}.parquet"
    original = file.read_bytes()
    file.write_bytes(b"<html>Access Denied</html>")
    return lambda: void(file.write_bytes(original))


def void(*_: Any) -> None: ...


def journals(project: Project) -> list[list[dict[str, Any]]]:
    """In the order in which they were begun, which may have been in the same second."""
    files = (project.folder / "workspace" / "runs").glob("*.jsonl")
    found = [[json.loads(line) for line in file.read_text().split("\n")[:-1]] for file in files]
    return sorted((events for events in found if events), key=lambda events: float(events[0]["at"]))


def rows(output: str) -> dict[str, str]:
    """The table: title of the month -> its state."""
    found = re.findall(r"^  (green|zones)\s+(\d{4}-\d\d)?\s.*?(?:\d\.\d)?  (\S.*?) *$", output, re.MULTILINE)
    return {f"{dataset} {month}".strip(): state.rpartition("   ")[2].strip() for dataset, month, state in found}


def test_failed_month_is_all_that_is_told(folder_project: Project, inbox: Inbox) -> None:
    repair = break_month(folder_project, "2020-02")
    failed = folder_project.luigi(*GREEN)
    assert failed.returncode == 30
    (message,) = inbox.messages
    assert message["title"] == "NYC trips: 1 month failed, 1 month and zones loaded"
    why = "green 2020-02: Download: WrongFormat: "
    (reason,) = [line for line in failed.stdout.splitlines() if line.startswith(why)]
    assert f"Failed: {reason}" in message["message"] and message["message"].count("Failed:") == 1
    log = message["message"].rpartition("log: ")[2]
    assert log.endswith(".log") and "failed: WrongFormat" not in log and Path(log).is_file()
    again = failed.stdout.rpartition("Again      ")[2].strip()
    named = set(re.findall(r"(PIPELINE_\w+)=", again.partition("luigi --module")[0]))
    assert named == folder_project.environment.keys() - {"PIPELINE_NOTIFY_URLS"}
    assert 'luigi --module pipeline RangeMonthly --of-params \'{"dataset": "green"}\' --start 2020-01' in again

    repair()
    for name in [name for name in folder_project.environment if name != "PIPELINE_NOTIFY_URLS"]:
        del folder_project.environment[name]
    assert folder_project.run("sh", "-c", again).returncode == 0, "the line has all that it needs"
    assert inbox.messages[1]["title"] == "NYC trips: 1 month loaded"


def test_month_that_fails_and_one_that_is_missing(folder_project: Project, inbox: Inbox) -> None:
    break_month(folder_project, "2020-01")
    done = folder_project.luigi(*GREEN[:-1], "2020-05")
    assert done.returncode == 30
    (message,) = inbox.messages
    assert message["title"].startswith("NYC trips: 1 month failed, 1 month missing at the publisher, ")
    assert rows(done.stdout)["green 2020-03"] == "missing at publisher"


def start_with_a_held_warehouse(project: Project, *arguments: str) -> tuple[subprocess.Popen[str], Callable[[], None]]:
    """A run whose warehouse another program opens once the run is planned; and what closes it there."""
    project.environment |= {"PIPELINE_WAREHOUSE_LOCK_TIMEOUT": "1", "PIPELINE_RETRY_ATTEMPTS": "1"}
    gate = project.gate("Download", "done")
    run = project.start(project.luigi_command(*arguments))
    gate.wait(run)
    code = "import duckdb, sys; held = duckdb.connect('warehouse.duckdb'); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=project.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    gate.open()

    def leave() -> None:
        holder.communicate(timeout=PATIENCE)

    return run, leave


def test_a_stage_that_failed_once_and_was_done_later_has_not_failed(folder_project: Project, inbox: Inbox) -> None:
    run, leave = start_with_a_held_warehouse(folder_project, *JANUARY, "--scheduler-retry-count", "999")
    assert run.stdout is not None
    said = [next(line for line in run.stdout if " ERROR " in line)]
    leave()
    output = "".join(said) + run.communicate(timeout=PATIENCE)[0]
    assert run.returncode == 0, output
    assert rows(output) == {"green 2020-01": "loaded"}
    assert [message["title"] for message in inbox.messages] == ["NYC trips: 1 month loaded"]


def test_what_is_given_up_names_its_last_error(folder_project: Project, inbox: Inbox) -> None:
    run, leave = start_with_a_held_warehouse(folder_project, *JANUARY, "--scheduler-retry-count", "1")
    output, _ = run.communicate(timeout=PATIENCE)
    leave()
    assert run.returncode == 30, output
    assert rows(output) == {"green 2020-01": "failed: WarehouseBusy"}
    (reason,) = [line for line in output.splitlines() if line.startswith("green 2020-01: Load: WarehouseBusy: ")]
    assert "held by" in reason and f"Failed: {reason}" in inbox.messages[-1]["message"]


#: What the interpreter finds at its start when a shell has redirected its streams.
STREAMS = """
import os, sys
for number, target in {targets}.items():
    if target:
        os.dup2(os.open(target, os.O_WRONLY), number)
        continue
    try:
        os.close(number)
    except OSError:
        pass  # the command that started this one has done so
    for name in ("{{}}", "__{{}}__"):
        setattr(sys, name.format(("stdin", "stdout", "stderr")[number]), None)
"""


def run_redirected(project: Project, redirection: str, command: list[str], by_shell: bool) -> int:
    """The exit code. What a shell does is costly: not each case needs one."""
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    if by_shell:
        return project.run("sh", "-c", f'exec "$@" {redirection}', "sh", *command).returncode
    targets = {
        int(number or "<>".index(arrow)): "" if target == "&-" else target
        for number, arrow, target in re.findall(r"(\d?)([<>])(\S+)", redirection)
    }
    hooks = project.folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(STREAMS.format(targets=targets))
    project.environment["PYTHONPATH"] = str(hooks)
    return project.run(*command).returncode


@pytest.mark.parametrize(
    ("redirection", "by_shell"),
    [
        *((">&-", False), ("2>&-", False), (">&- 2>&-", False), ("<&- >&- 2>&-", True)),
        *((">/dev/full", False), (">/dev/full 2>/dev/full", True)),
    ],
)
def test_a_stream_that_takes_nothing_does_not_change_the_outcome(
    folder_project: Project, redirection: str, by_shell: bool
) -> None:
    folder_project.environment["PIPELINE_RANGE_DATASETS"] = "green"
    command = folder_project.luigi_command("TaxiZones")
    assert run_redirected(folder_project, redirection, command, by_shell) == 0
    assert folder_project.query("SELECT count(*) FROM taxi_zones") == [(265,)]
    broken = folder_project.luigi_command(
        "MonthlyTrips", "--dataset", "green", "--month", "2020-01", "--clean-rules", "x"
    )
    assert run_redirected(folder_project, redirection, broken, by_shell) == 2


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize("verb", ["refresh", "cron"])
def test_verbs_that_run_tasks_need_no_stream_either(folder_project: Project, verb: str, redirection: str) -> None:
    words = {"refresh": ["--dataset", "green", "--since", "2020-01"], "cron": ["--log", "-", *JANUARY]}[verb]
    command = [sys.executable, "-m", "pipeline", verb, *words]
    assert (
        run_redirected(folder_project, redirection, command, by_shell=("full" in redirection) == (verb == "cron")) == 0
    )
    assert folder_project.query("SELECT count(*) > 0 FROM green_trips") == [(True,)]


def test_somebody_elses_program_needs_no_stream_either(folder_project: Project) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    code = """
        import sys, luigi, pipeline
        sys.exit(0 if luigi.build([pipeline.TaxiZones()], local_scheduler=True) else 1)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert folder_project.run("sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh", *command).returncode == 0
    assert folder_project.query("SELECT count(*) FROM taxi_zones") == [(265,)]


BUILDS = """
    import luigi, os, pipeline

    class Report(luigi.Task):
        def requires(self):
            return pipeline.MonthlyTrips(dataset="green", month="2020-01")
        def complete(self):
            return os.path.exists("report")
        def run(self):
            open("report", "w").close()

    class Alone(luigi.Task):
        def complete(self):
            return os.path.exists("alone")
        def run(self):
            open("alone", "w").close()

    if __name__ == "__main__":
        before = {name for name in os.environ if name.startswith("PIPELINE_")}
        print("alone", luigi.build([Alone()], local_scheduler=True))
        print("theirs", luigi.build([Report()], local_scheduler=True, workers=2))
        bad = pipeline.MonthlyTrips(dataset="green", month="2020-02")
        print("bad", luigi.build([bad], local_scheduler=True))
        print("left", {name for name in os.environ if name.startswith("PIPELINE_")} - before)
"""


def test_build_and_tasks_of_others_are_told_of_as_the_command_is(folder_project: Project, inbox: Inbox) -> None:
    break_month(folder_project, "2020-02")
    (folder_project.folder / "theirs.py").write_text(textwrap.dedent(BUILDS))
    (folder_project.folder / "empty.cfg").touch()
    folder_project.environment["LUIGI_CONFIG_PATH"] = "empty.cfg"  # Luigi would set up its own logging
    done = folder_project.run(sys.executable, "theirs.py")
    assert done.returncode == 0, done.stdout
    said = [line for line in done.stdout.splitlines() if line.split()[:1] in (["alone"], ["theirs"], ["bad"], ["left"])]
    assert said == ["alone True", "theirs True", "bad False", "left set()"]
    assert rows(done.stdout) == {"green 2020-01": "loaded", "green 2020-02": "failed: WrongFormat"}
    (again,) = [line for line in done.stdout.splitlines() if line.startswith("Again ")]
    assert again.endswith("python theirs.py")
    ours = done.stdout.partition("theirs True")
    assert "Lake       " in ours[0] and "GROUP BY" in ours[0], "where somebody's task has its months from"
    quiet = ours[2].partition("bad False")[0]
    assert "INFO Download green 2020-02" in quiet or "ERROR Download green 2020-02: " in quiet
    assert not any(word in quiet for word in ("Traceback", "DEBUG", "progress looks")), quiet
    titles = ["NYC trips: 1 month loaded", "NYC trips: 1 month failed"]
    assert [message["title"] for message in inbox.messages] == titles
    runs = journals(folder_project)
    assert len({run[0]["run"] for run in runs}) == len(runs) == 2, "each build is a run of its own"
    assert [[event["code"] for event in run if event["event"] == "judged"] for run in runs] == [[0], [30]]

    folder_project.environment["PYTHONPATH"] = str(folder_project.folder)
    luigi = [*folder_project.luigi_command("Report")]
    done = folder_project.run(*[word if word != "pipeline" else "theirs" for word in luigi])
    assert (done.returncode, done.stdout) == (0, "Nothing to do.\n")
    (folder_project.folder / "report").unlink()
    luigi = folder_project.luigi_command("Report")
    done = folder_project.run(*[word if word != "pipeline" else "theirs" for word in luigi])
    assert done.returncode == 0 and "Nothing to do: 1 month complete." in done.stdout, done.stdout


def test_ctrl_c_shows_what_was_done(project: Project) -> None:
    gate = project.gate("Clean", "started", month="2020-03")
    process = project.start(project.luigi_command(*GREEN[:-1], "2020-07"), group=True)
    gate.wait(process)
    loaded = {"stage": "Load", "state": "done", "month": "2020-01"}
    wait_for(lambda: any(loaded.items() <= event.items() for run in journals(project) for event in run), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert output.rstrip().endswith("stopped; the same command goes on from here")
    states = rows(output)
    assert states["green 2020-01"] == "loaded" and states["green 2020-03"] == "Clean not finished", output
    assert re.search("^Again .*luigi --module pipeline RangeMonthly", output, re.MULTILINE) and "killed" not in output


def test_killed_stage_is_told_as_such(project: Project, inbox: Inbox) -> None:
    gate = project.gate("Clean", "started")
    process = project.start(project.luigi_command(*JANUARY, "--workers", "2", "--scheduler-retry-count", "1"))
    psutil.Process(gate.wait(process)).kill()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 30, output
    (message,) = inbox.messages
    assert message["title"] == "NYC trips: 1 month failed"
    assert "Failed: green 2020-01: Clean: its process was killed; " in message["message"]
    assert "green 2020-01: Clean: its process was killed; " in output


def test_two_runs_that_share_the_work_each_say_what_they_loaded(project: Project) -> None:
    project.environment["PIPELINE_PUBLISHER_URL"] = "sample:?rows=50000&seed=1"
    runs = [project.start(project.luigi_command(*GREEN)) for _ in range(2)]
    outputs = [run.communicate(timeout=PATIENCE)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    for title in ("green 2020-01", "green 2020-02"):
        states = sorted(rows(output).get(title, "complete before") for output in outputs)
        others = {"complete before", "loaded by another run", "done by another run"}
        assert "loaded" in states and len(others.intersection(states)) == 1, states


@pytest.mark.parametrize(
    ("task", "months"),
    [
        (
            ("AllTrips", "--month", "2020-01", "--range-datasets", "green"),
            {"green 2020-01": "loaded", "zones": "loaded"},
        ),
        (("TaxiZones",), {"zones": "loaded"}),
        (("Clean", "--dataset", "green", "--month", "2020-01"), {"green 2020-01": "cleaned"}),
        (
            ("RangeMonthly", "--of", "Upload", *GREEN[1:]),
            {"green 2020-01": "in the lake", "green 2020-02": "in the lake"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_kind_of_root_task(folder_project: Project, task: tuple[str, ...], months: dict[str, str]) -> None:
    done = folder_project.luigi(*task)
    assert done.returncode == 0, done.stdout
    assert rows(done.stdout) == months
    (run,) = journals(folder_project)
    assert {"event": "judged", "code": 0, "result": "complete"}.items() <= run[-2].items() and run[-1][
        "event"
    ] == "ended"
    done = folder_project.luigi(*task)
    assert done.returncode == 0 and "Nothing to do" in done.stdout


def test_flags_of_one_run_are_not_those_of_the_next_in_the_same_program(project: Project) -> None:
    program = """
        import luigi, pipeline
        if __name__ == "__main__":
            for flags in (["--lake-url", "file:other", "--warehouse-url", "duckdb:///other.duckdb"], []):
                luigi.run(["TaxiZones", "--workers", "2", *flags], local_scheduler=True)
    """
    (project.folder / "twice.py").write_text(textwrap.dedent(program))
    done = project.run(sys.executable, "twice.py")
    assert done.returncode == 0, done.stdout
    for lake, warehouse in (("other", "other.duckdb"), ("lake", "warehouse.duckdb")):
        assert (project.folder / lake / "manifests" / "zones").is_dir()
        assert project.query("SELECT count(*) FROM etl_loads", warehouse) == [(1,)]
    runs = journals(project)
    assert [run[-2]["result"] for run in runs] == ["complete", "complete"]
    tables = [rows(text) for text in done.stdout.split("Lake ")[:2]]
    assert tables == [{"zones": "loaded"}, {"zones": "loaded"}]


def test_a_task_of_somebody_else_that_fails_is_named_with_its_error(folder_project: Project) -> None:
    theirs = """
        import luigi, pipeline
        class Report(luigi.Task):
            def requires(self):
                return pipeline.TaxiZones()
            def run(self):
                raise ValueError("no rows for the report")
    """
    (folder_project.folder / "theirs.py").write_text(textwrap.dedent(theirs))
    folder_project.environment["PYTHONPATH"] = str(folder_project.folder)
    words = [word if word != "pipeline" else "theirs" for word in folder_project.luigi_command("Report")]
    done = folder_project.run(*words, "--scheduler-retry-count", "1")
    assert done.returncode == 30, done.stdout
    assert rows(done.stdout) == {"zones": "loaded"}
    assert "Report: ValueError: no rows for the report" in done.stdout


def test_a_repaired_month_is_not_called_another_runs_and_what_was_wrong_is_said_once(folder_project: Project) -> None:
    assert folder_project.luigi(*GREEN).returncode == 0
    manifest = folder_project.folder / "lake" / "manifests" / "green" / "green_tripdata_2020-02.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    done = folder_project.luigi(*GREEN, "--workers", "2")
    assert done.returncode == 0, done.stdout
    assert rows(done.stdout) == {"green 2020-02": "in the lake again, loaded before"}
    assert done.stdout.count(f"WARNING file:{manifest} counts as missing") == 1, done.stdout
    assert folder_project.luigi(*GREEN).stdout.startswith("Nothing to do: 2 months complete.")
