"""Several hosts and one luigid: what its page shows, what is tried again, and what a dead or lonely host leaves behind.

A host is a ``luigi`` command in a folder of its own; workspace, lake and warehouse are common.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.publishers.sample import generator

from ..conftest import CHECKOUT
from ..patience import PATIENCE, wait_for
from ..servers.gcs import GcsServer, gcs_server
from ..servers.http import Fault, HttpServer
from ..servers.luigid import PATIENT, Luigid
from ..servers.network import HUB, Network
from ..warm import WARM
from .conftest import Project
from .gate import Gate, environment_of

__all__ = ["gcs_server"]

STAGES = ("Download", "Clean", "WriteParquet", "Upload", "Load")
RANGE = (
    *("RangeMonthly", "--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}'),
    *("--start", "2020-01", "--stop", "2020-03"),
)
MONTHS = 2

#: A host asks luigid for work more often than luigi.cfg says; no test is about how often.
OFTEN = ("--worker-wait-interval", "0.3", "--worker-wait-jitter", "0.2")


def impatient_config(folder: Path) -> Path:
    """luigi.cfg, but a host tries to reach luigid each second instead of every five, and for as long."""
    text = (CHECKOUT / "luigi.cfg").read_text()
    for name, value in (("rpc_retry_attempts", 150), ("rpc_retry_wait", 1)):
        text, count = re.subn(rf"(?m)^{name} = .*", f"{name} = {value}", text)
        assert count == 1
    config = folder / "impatient.cfg"
    config.write_text(text)
    return config


class Cluster:
    """A folder with the common places, and the hosts that use them."""

    def __init__(self, folder: Path, luigid: Luigid, **settings: str) -> None:
        self.folder, self.luigid = folder, luigid
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = {
            "PIPELINE_PUBLISHER_NAME": "sample",
            "PIPELINE_PUBLISHER_URL": "sample:?rows=2000&seed=1",
            "PIPELINE_WORKSPACE_URL": f"file:{folder}/workspace",
            "PIPELINE_LAKE_URL": f"file:{folder}/lake",
            "PIPELINE_WAREHOUSE_URL": f"duckdb:///{folder}/warehouse.duckdb",
            **settings,
        }

    def start(self, name: str, *arguments: str, prefix: tuple[str, ...] = (), gates: Sequence[Gate] = ()) -> Host:
        environment = {}
        if gates:
            environment = {**environment_of(*gates), "LUIGI_CONFIG_PATH": str(impatient_config(self.folder))}
        return Host(self, name, arguments, prefix, environment)

    def gate(self, stage: str, state: str, month: str | None = None) -> Gate:
        """At which a host stops that is started with it."""
        return Gate(self.folder / "gates" / f"{stage}-{state}", stage, state, month)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return Project(self.folder).query(sql)

    def tables(self) -> dict[str, Any]:
        return Project(self.folder).tables("green_trips", "taxi_zones")


class Host:
    """A ``luigi`` command in a folder and a process group of its own. Its name is the id of its run."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        arguments: tuple[str, ...],
        prefix: tuple[str, ...],
        environment: dict[str, str],
    ) -> None:
        folder = cluster.folder / name
        folder.mkdir()
        self.output = folder / "output.txt"
        runs = cluster.folder / "workspace" / "runs"
        self.journal, self.log = runs / f"{name}.jsonl", runs / f"{name}.log"
        project = Project(folder, {**cluster.settings, **environment, "PIPELINE_RUN_ID": name})
        command = [*prefix, *project.luigi_command(*arguments, *OFTEN, *cluster.luigid.flags)]
        with self.output.open("w") as output:
            self.process = WARM.start(command, folder, project.env, output, is_leader=True)

    def events(self) -> list[dict[str, Any]]:
        try:
            lines = self.journal.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stages(self, state: str) -> list[tuple[str, str | None]]:
        """Stage and month of all events of a state, in order."""
        return [(event["stage"], event["month"]) for event in self.events() if event.get("state") == state]

    def wait_at(self, gate: Gate) -> None:
        gate.wait(self.process, self.output.read_text)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, self.process, self.output.read_text)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def end(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[Luigid]:
    with Luigid(tmp_path / "luigid", disconnect_delay=PATIENT) as server:
        yield server


@pytest.fixture
def strict_luigid(tmp_path: Path) -> Iterator[Luigid]:
    """For hosts that die: their silence counts after the seconds of luigi.cfg."""
    with Luigid(tmp_path / "luigid") as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``RANGE`` leaves behind when one host does it, without luigid."""
    return left_behind(tmp_path_factory.mktemp("undisturbed"), *RANGE)


def left_behind(folder: Path, *arguments: str) -> dict[str, Any]:
    """The tables after a command that nobody disturbs."""
    project = Project(
        folder, {"PIPELINE_PUBLISHER_NAME": "sample", "PIPELINE_PUBLISHER_URL": "sample:?rows=2000&seed=1"}
    )
    done = project.luigi(*arguments)
    assert done.returncode == 0, done.stdout
    return project.tables("green_trips", "taxi_zones")


# -- what luigid shows -----------------------------------------------------------------------------


def test_page_history_metrics_and_state(tmp_path: Path, luigid: Luigid) -> None:
    cluster = Cluster(tmp_path, luigid)
    host = cluster.start("run-a", *RANGE, "--workers", "2")
    assert host.end() == 0, host.output.read_text()
    shown = {
        (task["name"], task["params"]["month"]): task
        for task in luigid.tasks("DONE")
        if task["name"] in (*STAGES, "MonthlyTrips") and task["params"]["dataset"] == "green"
    }
    assert len(shown) == MONTHS * (len(STAGES) + 1)
    assert {task["progress_percentage"] for task in shown.values()} == {100}
    rows, rejected = cluster.query(
        "SELECT row_count, rejected_count FROM etl_current WHERE dataset = 'green' AND file_month = '2020-01-01'"
    )[0]
    status = shown["Load", "2020-01"]["status_message"]
    assert status.startswith(f"{rows:,} of 2,000 rows, {rejected:,} rejected: ") and "zero_passengers" in status
    assert shown["Clean", "2020-01"]["status_message"] == status
    assert shown["MonthlyTrips", "2020-01"]["status_message"] == status
    assert shown["Upload", "2020-01"]["tracking_url"].endswith("/lake/data/green/green_tripdata_2020-01.parquet")
    assert shown["Load", "2020-01"]["tracking_url"] == host.log.as_uri()

    assert "Load green 2020-01" in host.log.read_text()
    assert 'luigi_task_done_total{family="Load"} 3.0' in luigid.page("/metrics")
    assert "Load" in luigid.page("/tasklist")
    assert luigid.page("/history/by_name/MonthlyTrips").count("DONE") >= MONTHS + 1
    assert luigid.ask("has_task_history") is True

    luigid.stop()
    luigid.start()
    assert {task["name"] for task in luigid.tasks("DONE")} >= {"RangeMonthly", *STAGES}
    assert luigid.page("/history/by_name/MonthlyTrips").count("DONE") >= MONTHS + 1


# -- what is tried again ---------------------------------------------------------------------------


def publish(folder: Path, months: Sequence[int] = (1, 2)) -> Path:
    generator.publish(folder, "green", [dt.date(2020, month, 1) for month in months], rows=300, seed=1, layout="tlc")
    (folder / "SYNTHETIC.txt").unlink()  # stands for TLC's own files here
    return folder


def test_what_outlives_the_stage_is_tried_again_by_the_scheduler(tmp_path: Path, luigid: Luigid) -> None:
    with HttpServer(publish(tmp_path / "published")) as site:
        cluster = Cluster(
            tmp_path,
            luigid,
            PIPELINE_PUBLISHER_NAME="tlc",
            PIPELINE_PUBLISHER_URL=site.url,
            PIPELINE_RETRY_ATTEMPTS="2",
            PIPELINE_RETRY_BACKOFF="0.05",
        )
        site.program("/trip-data/green_tripdata_2020-02.parquet", Fault(status=503, times=3, methods=("GET",)))
        host = cluster.start("run-a", *RANGE)
        assert host.end() == 0, host.output.read_text()
    assert host.stages("failed") == [("Download", "2020-02")]
    assert cluster.query("SELECT count(*) FROM etl_current WHERE dataset = 'green'") == [(MONTHS,)]


# -- hosts that die, and a luigid that restarts ----------------------------------------------------


def test_hosts_killed_in_each_stage(tmp_path: Path, strict_luigid: Luigid) -> None:
    """Five hosts die at once, each in another stage of another month of one range; the sixth does the rest."""
    stop = ("--stop", "2020-06")
    cluster = Cluster(tmp_path / "cluster", strict_luigid)
    victims = []
    for number, stage in enumerate(STAGES, 1):
        gate = cluster.gate(stage, "started")
        of_month = (*RANGE[:-4], "--start", f"2020-{number:02}", "--stop", f"2020-{number + 1:02}")
        victims.append((cluster.start(f"run-{stage}", *of_month, gates=[gate]), gate))
    for victim, gate in victims:
        victim.wait_at(gate)
    last = cluster.start("run-last", *RANGE[:-2], *stop)
    last.wait_until(lambda: bool(last.events()))
    for victim, _ in victims:
        victim.kill()
    assert last.end() == 0, last.output.read_text()
    (tmp_path / "undisturbed").mkdir()
    assert cluster.tables() == left_behind(tmp_path / "undisturbed", *RANGE[:-2], *stop)
    assert cluster.query("SELECT count(*) FROM etl_loads WHERE dataset = 'green'") == [(len(STAGES),)]


def test_two_hosts_share_a_range_while_luigid_restarts(
    tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]
) -> None:
    cluster = Cluster(tmp_path, luigid)
    gate = cluster.gate("Clean", "started", "2020-01")
    hosts = [cluster.start(f"run-{name}", *RANGE, gates=[gate]) for name in "ab"]
    hosts[0].wait_until(lambda: bool(gate.stopped))
    luigid.stop()
    # The other one asks for work, or says what it has done.
    hosts[0].wait_until(lambda: any("does not answer" in host.output.read_text() for host in hosts))
    luigid.start()
    gate.open()
    assert [host.end() for host in hosts] == [0, 0], "\n".join(host.output.read_text() for host in hosts)
    assert cluster.tables() == undisturbed
    done = [stage for host in hosts for stage in host.stages("done")]
    assert len(done) == len(set(done)), "nothing was done twice"


def test_two_warehouses_on_one_luigid_at_once(tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]) -> None:
    cluster = Cluster(tmp_path, luigid)
    other = f"duckdb:///{tmp_path}/other.duckdb"
    hosts = [cluster.start("run-a", *RANGE), cluster.start("run-b", *RANGE, "--warehouse-url", other)]
    assert [host.end() for host in hosts] == [0, 0], "\n".join(host.output.read_text() for host in hosts)
    assert cluster.tables() == undisturbed
    count = "SELECT count(*), bit_xor(hash(t)) FROM green_trips t"
    assert cluster.query(count) == Project(tmp_path).query(count, "other.duckdb")


def test_two_hosts_share_a_bucket(
    tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any], gcs_server: GcsServer
) -> None:
    bucket = gcs_server.make_bucket()
    cluster = Cluster(
        tmp_path,
        luigid,
        STORAGE_EMULATOR_HOST=gcs_server.url,
        TMPDIR=str(tmp_path),
        PIPELINE_WORKSPACE_URL=f"gs://{bucket}/workspace",
        PIPELINE_LAKE_URL=f"gs://{bucket}/lake",
    )
    hosts = [cluster.start(f"run-{name}", *RANGE) for name in "ab"]
    assert [host.end() for host in hosts] == [0, 0], "\n".join(host.output.read_text() for host in hosts)
    assert cluster.tables() == undisturbed
    link = next(task["tracking_url"] for task in luigid.tasks("DONE") if task["name"] == "Upload")
    assert link.startswith(f"https://console.cloud.google.com/storage/browser/_details/{bucket}/lake/data/")


def test_host_told_to_stop_finishes_its_stage(tmp_path: Path, luigid: Luigid, undisturbed: dict[str, Any]) -> None:
    """One after the other, each goes on where the one before stopped."""
    cluster = Cluster(tmp_path, luigid)
    for stage, number in (("Download", signal.SIGTERM), ("Clean", signal.SIGUSR1), ("WriteParquet", signal.SIGHUP)):
        gate = cluster.gate(stage, "started")
        host = cluster.start(f"run-{number}", *RANGE, "--workers", "2", gates=[gate])
        host.wait_at(gate)
        if number == signal.SIGHUP:  # a terminal that goes away tells all
            os.killpg(host.process.pid, number)
        else:
            host.process.send_signal(number)
        host.wait_until(lambda gate=gate: gate.is_told_to_stop)
        gate.open()
        assert host.end() == 25, host.output.read_text()
        assert host.stages("started") and sorted(host.stages("started")) == sorted(host.stages("done"))
        assert {done for done, _ in host.stages("done")} <= set(STAGES[: STAGES.index(stage) + 1]), "it took no more"
    rest = cluster.start("run-rest", *RANGE)
    assert rest.end() == 0, rest.output.read_text()
    assert cluster.tables() == undisturbed


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            yield stack.enter_context(Network("a", "b"))
        except NotImplementedError as why:
            pytest.skip(str(why))


def test_host_that_is_cut_off(tmp_path: Path, network: Network, undisturbed: dict[str, Any]) -> None:
    """Hosts with own addresses; one loses its link in the middle. The other does all, and the first ends well later."""
    with Luigid(tmp_path / "luigid", network.address, network.prefix(HUB)) as luigid:
        cluster = Cluster(tmp_path, luigid)
        gate = cluster.gate("Clean", "left")  # it has finished what it was at, and cannot say so
        lonely = cluster.start("run-a", *RANGE, prefix=network.prefix("a"), gates=[gate])
        lonely.wait_at(gate)
        other = cluster.start("run-b", *RANGE, prefix=network.prefix("b"))
        network.cut("a")
        assert other.end() == 0, other.output.read_text()
        assert cluster.tables() == undisturbed
        network.mend("a")
        gate.open()  # only now: a run waits for luigid no longer than some minutes
        assert lonely.end() == 0, lonely.output.read_text()
        assert "loaded by another run" in lonely.output.read_text()
    assert cluster.query("SELECT count(*) FROM etl_loads WHERE dataset = 'green'") == [(MONTHS,)]
