"""Notifications of the real luigi command, as they arrive at an address."""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.partition import Partition
from pipeline.publishers.sample import generator

from ..patience import PATIENCE, has_ended, wait_for
from ..servers.inbox import SECRET, Inbox
from .conftest import Project

GREEN = ("RangeMonthly", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03")
EVERYTHING = "failed,completed,crashed,republished,schema_drift,nothing_new"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as inbox:
        yield inbox


def month_file(project: Project, month: str) -> Path:
    return project.folder / "published" / "trip-data" / f"green_tripdata_{month}.parquet"


def last_message(inbox: Inbox) -> str:
    """Title and text of the only message since the last call."""
    (message,) = inbox.messages
    inbox.messages.clear()
    return f"{message['title']}\n{message['message']}"


def test_one_message_per_run_of_every_kind(folder_project: Project, inbox: Inbox) -> None:
    folder_project.environment |= {"PIPELINE_NOTIFY_URLS": inbox.url, "PIPELINE_NOTIFY_ON": EVERYTHING}
    original = month_file(folder_project, "2020-02").read_bytes()
    month_file(folder_project, "2020-02").write_bytes(b"<html>Access Denied</html>")

    assert folder_project.luigi(*GREEN, "--workers", "2").returncode == 30
    told = last_message(inbox)
    assert "1 month failed, 1 month and zones loaded" in told and "WrongFormat" in told
    logs = list((folder_project.folder / "workspace" / "runs").glob("*.log"))
    assert len(logs) == 1 and str(logs[0]) in told, "says where to look"

    month_file(folder_project, "2020-02").write_bytes(original)
    assert folder_project.luigi(*GREEN).returncode == 0
    assert "NYC trips: 1 month loaded" in last_message(inbox)

    assert folder_project.luigi(*GREEN).returncode == 0
    assert "NYC trips: nothing new" in last_message(inbox)

    changed = month_file(folder_project, "2020-01")
    generator.make_file(Partition("green", dt.date(2020, 1, 1)), changed, rows=310, seed=2, layout="tlc")
    rows = pq.read_table(changed)
    pq.write_table(rows.append_column("moon_fee", pa.array([1.0] * len(rows))), changed)
    assert folder_project.luigi(*GREEN).returncode == 0
    told = last_message(inbox)
    assert "1 month republished" in told and "Republished and loaded anew: green 2020-01" in told
    assert "Column moon_fee is not declared and was kept out: green 2020-01" in told

    gap = folder_project.luigi(*GREEN[:-1], "2020-05")
    assert gap.returncode == 20
    assert "Missing at the publisher: green 2020-03" in last_message(inbox)


def test_only_what_is_wanted_is_told(folder_project: Project, inbox: Inbox) -> None:
    folder_project.environment |= {"PIPELINE_NOTIFY_URLS": inbox.url, "PIPELINE_NOTIFY_DATASETS": "yellow,fhv"}
    assert folder_project.luigi(*GREEN).returncode == 0
    refused = folder_project.luigi(*GREEN, "--notify-on", "faild")
    assert refused.returncode == 2 and "[notify] on" in refused.stdout and "'faild'" in refused.stdout
    assert not inbox.messages


def test_address_that_never_answers_does_not_harm_the_run(folder_project: Project) -> None:
    with Inbox(is_silent=True) as silent:
        folder_project.environment["PIPELINE_NOTIFY_URLS"] = silent.url
        done = folder_project.luigi(*GREEN)
        assert done.returncode == 0, done.stdout
        assert silent.messages, "it was told"
    assert done.stdout.count("notification not delivered to address 1 (JSON): no answer within 15 s") == 1
    assert SECRET not in done.stdout
    everything = [path for path in folder_project.folder.rglob("*") if path.is_file()]
    assert [path for path in everything if SECRET.encode() in path.read_bytes()] == []


def test_run_that_was_killed_is_told_of_by_the_next_one(project: Project, inbox: Inbox) -> None:
    project.environment |= {
        "PIPELINE_NOTIFY_URLS": inbox.url,
        "PIPELINE_NOTIFY_ON": "crashed",
    }
    gate = project.gate("Download", "started")
    command = project.luigi_command("MonthlyTrips", "--dataset", "green", "--month", "2020-01", "--workers", "2")
    process = project.start(command)
    gate.wait(process)
    descendants = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    wait_for(lambda: all(has_ended(each.pid) for each in descendants))
    assert not inbox.messages

    gate.open()
    for _ in range(2):
        assert project.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-01").returncode == 0
    told = last_message(inbox)
    assert "a run was killed" in told and "At work on: Download green 2020-01" in told
    assert "luigi --module pipeline MonthlyTrips" in told


def test_looking_at_the_plan_is_no_run(project: Project, inbox: Inbox) -> None:
    project.environment |= {"PIPELINE_NOTIFY_URLS": inbox.url, "PIPELINE_NOTIFY_ON": EVERYTHING}
    tree = project.run(str(Path(project.luigi_command()[0]).parent / "luigi-deps-tree"), "--module", "pipeline", *GREEN)
    assert tree.returncode == 0, tree.stdout
    assert project.pipeline("plan").returncode == 0
    assert not list((project.folder / "workspace").rglob("*.jsonl"))
    assert not inbox.messages
