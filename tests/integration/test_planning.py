"""A lake, workspace or warehouse that does not answer ends a plan within the time that a plan has for it."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import remote
from pipeline.errors import NoAnswer, StorageUnavailable, Unreachable, WarehouseUnavailable
from pipeline.job import Job
from pipeline.partition import Partition, months_between
from pipeline.planning import planner, publisher_questions
from pipeline.planning.completeness import Completeness
from pipeline.planning.state import CachedState, State
from pipeline.publishers.web import WebPublisher
from pipeline.retry import Policy
from pipeline.runner import preflight
from pipeline.tasks.download import Download
from pipeline.tasks.upload import Upload
from tests.patience import PATIENCE
from tests.servers.raw import RawServer

JANUARY = dt.date(2020, 1, 1)


@pytest.fixture(params=["closed", "silent"])
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a server that is not there, or takes connections and says nothing."""
    monkeypatch.setattr(remote, "PLANNING_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if request.param == "closed":
            listener.close()
            yield "127.0.0.1:9"
        else:
            yield f"127.0.0.1:{listener.getsockname()[1]}"


def job(folder: Path, **changes: str) -> Job:
    return replace(Job("sample", "none", f"file:{folder}/lake", f"file:{folder}/ws"), **changes)


@pytest.mark.parametrize("what", ["lake", "workspace"])
def test_bucket(address: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
    one = job(tmp_path, **{f"{what}_url": "gs://some-bucket/x"})
    with pytest.raises(StorageUnavailable, match=f"no answer from http://{address}"):
        planner.plan_months(CachedState(), one, [Partition("green", JANUARY)], [])
    with pytest.raises(StorageUnavailable, match=f"no answer from http://{address}"):
        planner.check_fetchable(Completeness(CachedState(), one, Partition("green", JANUARY)))


@pytest.mark.parametrize("label", ["bigquery://project/dataset", "postgresql://{}/name"])
def test_warehouse(address: str, label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://{address}")
    with pytest.raises(WarehouseUnavailable, match=r"no answer|refused|timeout expired"):
        planner.plan_months(
            CachedState(), job(tmp_path), [Partition("green", JANUARY)], [label.format(f"user@{address}")]
        )


def test_months_that_get_no_answer_are_not_waited_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def version(publisher: object, partition: Partition, policy: Policy) -> None:
        asked.append(partition)
        assert (policy.attempts == 1) == (len(asked) > 1)
        raise NoAnswer("silent")

    monkeypatch.setattr(WebPublisher, "version", version)
    monkeypatch.setattr(WebPublisher, "check_reachable", lambda publisher, policy: None)
    monkeypatch.setattr(publisher_questions, "CONCURRENT", 1)
    partitions = [Partition("green", month) for month in months_between(JANUARY, dt.date(2024, 1, 1))]
    failed = publisher_questions.observe(CachedState(), job(tmp_path, publisher_label="dtc"), partitions)
    assert asked == list(failed) == partitions


def test_a_plan_waits_for_a_publisher_once_and_not_in_each_of_its_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WebPublisher, "check_reachable", lambda publisher, policy: None)
    monkeypatch.setattr(remote, "PLANNING_TIMEOUT", 0.5)
    months = months_between(JANUARY, dt.date(2024, 1, 1))
    datasets = [[Partition(name, month) for month in months] for name in ("green", "yellow", "fhv")]
    with RawServer(lambda request, connection: server.pause(PATIENCE)) as server:
        one = job(tmp_path, publisher_label=f"dtc={server.url}")
        state = CachedState()
        for partitions in datasets:
            with remote.planning(state.spent):
                failed = publisher_questions.observe(state, one, partitions)
                assert failed.keys() == set(partitions) and all("no answer within" in str(e) for e in failed.values())
        for partitions in datasets:
            planner.plan_months(state, one, partitions, [])
        assert len(server.requests) <= publisher_questions.CONCURRENT


def test_a_complete_lake_needs_no_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Completeness, "why_not_in_lake", lambda self: None)
    one = job(tmp_path, workspace_url="gs://nobody-asks")
    planner.check_fetchable(Completeness(State(), one, Partition("green", JANUARY)))


def test_scheduled_downloads_ask_each_publisher_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(WebPublisher, "check_reachable", lambda publisher, policy: asked.append(publisher.label))
    place = {"lake": f"file:{tmp_path}/lake", "workspace": f"file:{tmp_path}/ws"}
    uploads = [
        Upload(dataset="green", month=month, publisher=name, **place)
        for name in ("tlc", "dtc")
        for month in (JANUARY, JANUARY.replace(month=2))
    ]
    preflight.check_scheduled(CachedState(), uploads)
    assert asked == [], "what is fetched needs no publisher"
    downloads = [upload.sibling(Download) for upload in uploads]
    preflight.check_scheduled(CachedState(), [*uploads, *downloads])
    assert sorted(asked) == ["dtc", "tlc"]


def test_scheduled_downloads_of_a_publisher_that_is_away(tmp_path: Path, address: str) -> None:
    download = Download(
        dataset="green",
        month=JANUARY,
        publisher=f"tlc=http://{address}",
        lake=f"file:{tmp_path}/lake",
        workspace=f"file:{tmp_path}/ws",
    )
    with pytest.raises(Unreachable, match=f"publisher tlc cannot be reached at http://{address}: "):
        preflight.check_scheduled(CachedState(), [download])
