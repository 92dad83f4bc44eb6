"""Submissions and agents through the real commands: each submitted run is executed once, by a suitable agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..patience import PATIENCE, has_ended, wait_for
from .conftest import Project

RANGE = (
    *("RangeMonthly", "--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}'),
    *("--start", "2020-01", "--stop", "2020-03"),
)
MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")


class Site:
    """A folder with common places, commands that look at it, and agents."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(
            folder,
            {
                "PIPELINE_PUBLISHER_NAME": "sample",
                "PIPELINE_PUBLISHER_URL": "sample:?rows=500&seed=1",
                "PIPELINE_WORKSPACE_URL": f"file:{folder}/workspace",
                "PIPELINE_LAKE_URL": f"file:{folder}/lake",
                "PIPELINE_WAREHOUSE_URL": f"duckdb:///{folder}/warehouse.duckdb",
            },
        )
        self.agents: list[subprocess.Popen[str]] = []

    def submit(self, *arguments: str) -> str:
        done = self.project.pipeline("submit", *(arguments or MONTH))
        assert done.returncode == 0, done.stdout
        return done.stdout.split()[0]

    def agent(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipeline", "agent", "--poll", "0.2", *arguments]
        self.agents.append(self.project.start(command))
        return self.agents[-1]

    def drain(self, *arguments: str) -> str:
        """The output of an agent that does all there is."""
        return self.project.pipeline("agent", "--poll", "0.2", "--drain", *arguments).stdout

    def runs(self) -> list[dict[str, Any]]:
        output = self.project.pipeline("runs", "--json").stdout
        return list(json.loads(output[output.index("[\n") :]))  # after warnings

    def run(self, name: str) -> dict[str, Any]:
        (found,) = (run for run in self.runs() if run["id"] == name)
        return dict(found)

    def stored(self, name: str) -> dict[str, Any]:
        """What the queue holds of a run, without a command each time that it is asked."""
        (path,) = self.project.folder.glob(f"workspace/queues/*/*/{name}.json")
        return dict(json.loads(path.read_text()))

    def copy(self, name: str, number: int, **changes: Any) -> str:
        """Submit a run once more, with another id."""
        (path,) = self.project.folder.glob(f"workspace/queues/*/open/{name}.json")
        other = f"{name[:-6]}{number:06x}"
        path.with_stem(other).write_text(json.dumps({**json.loads(path.read_text()), "id": other, **changes}))
        return other

    def has_ended(self, name: str) -> bool:
        return bool(list(self.project.folder.glob(f"workspace/queues/*/ended/{name}.json")))

    def loads(self) -> int:
        return int(self.project.query("SELECT count(*) FROM etl_loads WHERE dataset = 'green'")[0][0])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    for agent in found.agents:
        agent.kill()
        agent.communicate()


def test_submitted_run_is_done_later_under_its_own_id(site: Site) -> None:
    name = site.submit(*RANGE)
    assert not (site.project.folder / "warehouse.duckdb").exists(), "handed over, not run"
    waiting = site.run(name)
    assert (waiting["state"], waiting["agent"]) == ("waiting", "") and "@" in waiting["submitter"]
    assert "Load green 2020-02" in site.drain("--workers", "2")
    done = site.run(name)
    assert (done["state"], done["exit_code"], done["attempts"]) == ("complete", 0, 1)
    assert "Load green 2020-01" in Path(done["log"]).read_text()
    assert site.project.query("SELECT DISTINCT run_id FROM etl_loads") == [(name,)]
    (head, result, command, submission, last) = site.project.pipeline("runs").stdout.splitlines()
    assert head.startswith(f"{name}  20") and head.endswith("  complete   queue default") and len(head) <= 80
    assert result == "    2 months loaded, zones loaded, 1,253 rows"
    assert "luigi --module pipeline RangeMonthly" in command and "submitted by" in submission and last == "1 run"


def test_two_agents_do_a_run_once(site: Site) -> None:
    agents = [site.agent("--queue", "night") for _ in range(2)]
    names = [site.submit("--queue", "night", *MONTH), site.submit("--queue", "night", "TaxiZones")]
    wait_for(lambda: all(site.has_ended(name) for name in names))
    for agent in agents:
        agent.terminate()
        assert agent.wait(PATIENCE) == 0
    runs = {run["id"]: (run["state"], run["attempts"]) for run in site.runs()}
    assert runs == dict.fromkeys(names, ("complete", 1))
    assert site.loads() == 1


def test_killed_agent_leaves_no_orphan_and_its_run_is_taken_over(site: Site) -> None:
    name = site.submit()
    gate = site.project.gate("Clean", "started")
    first = site.agent()
    gate.wait(first)
    (luigi,) = psutil.Process(first.pid).children()
    first.kill()
    wait_for(lambda: has_ended(luigi.pid))
    assert site.run(name)["state"] == "running", "nobody could say otherwise"
    gate.open()
    site.drain()
    done = site.stored(name)
    assert (done["state"], done["attempts"]) == ("done", 2)
    assert site.loads() == 1


def test_agent_told_to_stop_hands_its_run_back(site: Site) -> None:
    name = site.submit()
    gate = site.project.gate("Clean", "started")
    agent = site.agent()
    gate.wait(agent)
    agent.send_signal(signal.SIGTERM)
    wait_for(lambda: gate.is_told_to_stop, agent)
    gate.open()
    assert agent.wait(PATIENCE) == 0
    waiting = site.stored(name)
    assert waiting["state"] == "waiting" and "stopped" in waiting["message"]
    site.drain()
    assert site.stored(name)["state"] == "done"
    assert site.loads() == 1


def test_agent_refuses_what_would_come_to_something_else(site: Site) -> None:
    """Other rules, other code, a publisher that is not its own. Its own may be named."""
    name = site.submit("TaxiZones", "--publisher-name", "sample")
    meaning = site.stored(name)["meaning"]
    other_code = site.copy(name, 1, meaning={**meaning, "code": "9"})
    other_publisher = site.copy(name, 2, command=["TaxiZones", "--publisher-name=dtc"])
    site.project.environment["PIPELINE_CLEAN_RULES"] = "none"
    output = site.drain()
    assert f"{name} is refused: rules is zero_passengers@1,pickup_outside_month@1 there and none here" in output
    assert site.stored(name)["state"] == "waiting"
    assert "refused by" in site.project.pipeline("runs", "--last", "3").stdout
    assert not (site.project.folder / "warehouse.duckdb").exists()
    del site.project.environment["PIPELINE_CLEAN_RULES"]
    output += site.drain()
    assert f"{other_code} is refused: code is 9" in output
    assert f"{other_publisher} is refused: publisher is dtc there and sample" in output
    states = [site.stored(one)["state"] for one in (name, other_code, other_publisher)]
    assert states == ["done", "waiting", "waiting"]


def test_flags_of_a_submission_are_its_own(site: Site) -> None:
    names = [site.submit(*MONTH, "--clean-rules", "none"), site.submit()]
    site.drain()
    assert [site.stored(name)["state"] for name in names] == ["done", "done"]
    rules = dict(site.project.query("SELECT DISTINCT run_id, rules FROM etl_loads WHERE dataset = 'green'"))
    assert rules == {names[0]: "none", names[1]: "zero_passengers@1,pickup_outside_month@1"}


def test_paused_queue_gives_nothing_away(site: Site) -> None:
    name = site.submit("TaxiZones")
    assert "paused" in site.project.pipeline("queue", "pause").stdout
    assert "Load" not in site.drain()
    assert "paused: default" in site.project.pipeline("runs").stdout
    assert site.stored(name)["state"] == "waiting"
    assert site.project.pipeline("queue", "resume").returncode == 0
    site.drain()
    assert site.stored(name)["state"] == "done"


def test_failed_run_says_why(site: Site) -> None:
    site.project.environment["PIPELINE_PUBLISHER_NAME"] = "tlc"
    site.project.environment["PIPELINE_PUBLISHER_URL"] = f"file:{site.project.folder}/published"
    folder = site.project.folder / "published" / "trip-data"
    folder.mkdir(parents=True)
    (folder / "green_tripdata_2020-01.parquet").write_bytes(b"<html>no</html>")
    name = site.submit("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
    site.drain()
    failed = site.run(name)
    assert (failed["state"], failed["exit_code"]) == ("failed", 30)
    assert "green 2020-01" in failed["message"]


def test_run_that_no_agent_has_is_taken_back(site: Site) -> None:
    """It waits; its agent is silent; its agent died after somebody had cancelled it."""
    name = site.submit("TaxiZones")
    silent = site.copy(name, 1, state="running", agent="gone:1", renewed_at="2026-01-01T00:00:00+00:00")
    dead = site.copy(name, 2, cancelled_by="me@here")
    other = site.copy(name, 3)
    for one in (name, silent):
        cancelled = site.project.pipeline("runs", "cancel", one)
        assert (cancelled.returncode, cancelled.stdout) == (0, f"run {one} is cancelled\n")
        assert site.has_ended(one), "at once"
    site.drain()
    found = {run["id"]: run for run in site.runs()}
    states = [found[one]["state"] for one in (name, silent, dead, other)]
    assert states == ["cancelled", "cancelled", "cancelled", "complete"]
    assert site.project.query("SELECT DISTINCT run_id FROM etl_loads") == [(other,)]
    assert found[name]["message"].startswith("cancelled by ") and found[name]["attempts"] == 0
    for ended in (name, other):
        again = site.project.pipeline("runs", "cancel", ended)
        assert (again.returncode, again.stdout) == (1, f"error: run {ended} has ended\n")


def test_running_run_is_stopped_by_its_agent_which_goes_on_with_the_next(site: Site) -> None:
    name, other = site.submit(), site.submit("TaxiZones")
    gate = site.project.gate("Clean", "started")
    agent = site.agent()
    gate.wait(agent)
    cancelled = site.project.pipeline("runs", "cancel", name)
    assert cancelled.returncode == 0 and f"run {name} is cancelled; its agent " in cancelled.stdout
    assert "stops it after the stages that are running" in cancelled.stdout
    wait_for(lambda: gate.is_told_to_stop, agent)
    gate.open()
    wait_for(lambda: site.has_ended(other))
    found = {run["id"]: run for run in site.runs()}
    assert found[other]["state"] == "complete"
    run = found[name]
    assert (run["state"], run["exit_code"]) == ("cancelled", 25) and "@" in run["cancelled_by"]


def test_agents_are_listed_and_a_queue_that_nobody_serves_is_told_of(site: Site) -> None:
    """A word that is misspelt is the usual reason."""
    night = site.agent("--queue", "night")

    def queues() -> dict[str, dict[str, Any]]:
        return {one["queue"]: one for one in json.loads(site.project.pipeline("queue", "list", "--json").stdout)}

    wait_for(lambda: list(site.project.folder.glob("workspace/queues/night/agents/*.json")), night)
    (agent,) = queues()["night"]["agents"]
    assert agent["name"].endswith(f":{night.pid}") and agent["is_alive"] and agent["run"] == ""
    submitted = site.project.pipeline("submit", "--queue", "nihgt", "TaxiZones")
    assert submitted.returncode == 0
    first, warning = submitted.stdout.splitlines()
    assert first.endswith(" waits in queue nihgt")
    assert warning == (
        "warning: no agent serves queue nihgt now; queues with agents: night; "
        "start one with: python -m pipeline agent --queue nihgt"
    )
    assert site.project.pipeline("submit", "--queue", "night", "TaxiZones").stdout.count("\n") == 1
    listed = site.project.pipeline("queue").stdout
    assert "nihgt: 1 waiting, 0 running\n    no agent serves it; start one" in listed
    assert f":{night.pid} since 20" in listed and " s ago, " in listed
    night.terminate()
    assert night.wait(PATIENCE) == 0
    assert queues()["night"]["agents"] == []


def test_agent_that_was_killed_is_told_of(site: Site) -> None:
    folder = site.project.folder / "workspace" / "queues" / "night" / "agents"
    folder.mkdir(parents=True)
    times = {"since": "2026-01-01T00:00:00+00:00", "heard_at": "2026-01-01T00:00:05+00:00"}
    (folder / "moon-1.json").write_text(json.dumps({"name": "moon:1", **times, "run": "x"}))
    for name, odd in (("a", "{"), ("b", "[]"), ("c", '{"name": 5}'), ("d", '{"name": "d", "since": "x"}')):
        (folder / f"{name}.json").write_text(odd)
    listed = site.project.pipeline("queue", "list", "night")
    assert listed.returncode == 0 and "agent moon:1 since 20" in listed.stdout
    assert "silent: it was killed, or its host is down" in listed.stdout and "no agent serves it" in listed.stdout
    assert listed.stdout.count("is no record of an agent; remove it") == 4
    assert "warning: no agent serves queue night" in site.project.pipeline("submit", "--queue", "night", *RANGE).stdout


def test_queue_that_nobody_knows_is_told_of(site: Site) -> None:
    site.submit()
    for action in ("resume", "pause"):
        done = site.project.pipeline("queue", action, "defualt")
        assert done.returncode == 0
        assert done.stdout.startswith("warning: queue defualt has no run and no agent; queues: default\n")
        assert site.project.pipeline("queue", action).stdout.count("\n") == 1


def test_file_that_is_no_submission_is_one_line_and_ends_no_agent(site: Site) -> None:
    name = site.submit("TaxiZones")
    folder = site.project.folder / "workspace" / "queues" / "default" / "open"
    good = json.loads((folder / f"{name}.json").read_text())
    odd: dict[str, Any] = {
        "command": None,
        "meaning": [],
        "state": "odd",
        "attempts": "x",
        "refusals": None,
        "renewed_at": "yesterday",
        "id": "another's",
    }
    for field, value in odd.items():
        (folder / f"20200101T000000-{field}.json").write_text(
            json.dumps({**good, "id": f"20200101T000000-{field}", field: value})
        )
    (folder / "20200101T000001-list.json").write_text("[]")
    (site.project.folder / "workspace" / "evil.py").write_text("open('owned', 'w')")  # agents run in the checkout
    month = ["MonthlyTrips", "--dataset", "green", "--month", "2020-01"]
    commands = [
        ["--help"],
        ["MonthlyTrips", "--month", "2020-01\0"],
        ["NoSuchTask"],
        [*month, "--module", "workspace.evil"],
        [*month, "--module=workspace.evil"],
        ["--module", "workspace.evil", *month],
        [*month, "--of", "workspace.evil.Task"],
        [*month, "--worker-task-process-context", "workspace.evil.Task"],
        [*month, "--warehouse-url", f"duckdb:///{site.project.folder}/stolen.duckdb"],
        [*month, "--lake-url=file:stolen"],
        [*month, "--publisher-url=file:/etc"],
    ]
    for number, words in enumerate(commands):
        other = {**good, "id": f"20200101T0000{number:02}-words", "command": words}
        (folder / f"{other['id']}.json").write_text(json.dumps(other))
    listed = site.project.pipeline("runs")
    assert listed.returncode == 0 and listed.stdout.count("is no submission; remove it") == len(odd) + 1
    agent = site.project.pipeline("agent", "--poll", "0.2", "--drain")
    output = agent.stdout
    assert agent.returncode == 0 and "Traceback" not in output + listed.stdout
    assert site.stored(name)["state"] == "done"
    assert not {"owned", "stolen", "stolen.duckdb"} & {path.name for path in site.project.folder.iterdir()}
    assert output.count("is no submission and lies in") == len(odd) + 1 + len(commands)
    assert f"{len(odd) + 1 + len(commands)} files set aside in " in site.project.pipeline("queue", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "submit takes a task"),
        (("RangeMonthly", "--start", "2021-13", "--stop", "2021-02"), "--start: '2021-13' is not a month"),
        (("RangeMonthly", "--of", "MonthlyTrip"), "--of: there is no task MonthlyTrip; did you mean MonthlyTrips?"),
        (("MonthlyTrips", "--dataset", "green"), "--month is missing: MonthlyTrips needs it"),
        (("",), "there is no task ''"),
        (("RangeMontly",), "did you mean RangeMonthly?"),
        (("RangeMonthly", "--warehouse-url", "postgresql+psycopg2://etl:tiger@db/x"), "a password does not belong"),
        (("RangeMonthly", "--notify-urls", "slack://tiger/b/c"), "--notify-urls is the agent's own"),
        (("RangeMonthly", "--start", "https://h/x?sig=tiger"), "--start: the value is not a month"),
        (("RangeMonthly", "--module", "tiger"), "--module is the agent's own"),
        (("--queue", "../x", "RangeMonthly"), "cannot be the name of a queue"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_submitted(site: Site, arguments: tuple[str, ...], says: str) -> None:
    refused = site.project.pipeline("submit", *arguments)
    assert refused.returncode == 2, refused.stdout
    assert refused.stdout.count("\n") == 1 and says in refused.stdout and "tiger" not in refused.stdout
    assert not os.path.exists(site.project.folder / "workspace" / "queues")
