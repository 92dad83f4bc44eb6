"""An unreachable server is waited for once per run, and the run continues as soon as it answers."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import job, remote
from pipeline.errors import (
    ConflictError,
    PublisherUnavailable,
    StorageUnavailable,
    TakenAway,
    TransientError,
    TruncatedFile,
    Unreachable,
    WarehouseBusy,
    WarehouseUnavailable,
)
from pipeline.reporting import journal
from pipeline.tasks import servers
from pipeline.tasks.servers import Server


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setenv(journal.RUN_ID, "a-run")
    monkeypatch.setattr(servers, "ASK_INTERVAL", math.inf)


class Line:
    """A line to a server, dead or not, and how patiently it was asked."""

    def __init__(self) -> None:
        self.is_dead = True
        self.asked: list[float] = []

    def __call__(self) -> None:
        self.asked.append(remote.for_server(1000.0))
        if self.is_dead:
            raise PublisherUnavailable("no answer")


@pytest.fixture
def line() -> Line:
    return Line()


def publisher(line: Line, label: str = "dtc") -> Server:
    return Server(label, (PublisherUnavailable, TruncatedFile), line)


def test_one_stage_waits_and_the_others_give_up_at_once(line: Line) -> None:
    publisher(line).check()
    assert line.asked == [], "nobody is asked before something fails"
    with pytest.raises(Unreachable, match="no answer") as first:
        publisher(line).diagnose(TruncatedFile("cut"))
    for _ in range(3):
        with pytest.raises(Unreachable, match="no answer") as other:
            publisher(line).check()
        assert other.value.is_repeated and not first.value.is_repeated
    assert line.asked == [remote.PLANNING_TIMEOUT]
    publisher(line, "tlc").check()  # another one


def test_the_run_goes_on_when_somebody_gets_through(line: Line) -> None:
    with pytest.raises(Unreachable):
        publisher(line).ask()
    publisher(line).has_answered()
    publisher(line).check()
    written = journal.path().read_bytes()
    publisher(line).has_answered()
    assert journal.path().read_bytes() == written, "said once"


def test_after_a_minute_one_stage_asks_again_and_is_quick(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable):
        publisher(line).ask()
    monkeypatch.setattr(servers, "ASK_INTERVAL", -1.0)
    with pytest.raises(Unreachable) as still:
        publisher(line).check()
    assert still.value.is_repeated and line.asked[1:] == [servers.ASK_LIMIT]
    line.is_dead = False
    publisher(line).check()
    monkeypatch.undo()


def test_trouble_with_one_thing_is_not_the_servers(line: Line) -> None:
    line.is_dead = False
    publisher(line).diagnose(PublisherUnavailable("503 for one file"))
    assert len(line.asked) == 1
    publisher(line).check()


def test_a_clock_that_was_set_back_keeps_nobody_from_asking(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "ASK_INTERVAL", 3600.0)
    for ask in (lambda: publisher(line).diagnose(TruncatedFile("cut")), publisher(line).check):
        with pytest.raises(Unreachable):
            ask()
    assert len(line.asked) == 1
    before = time.time() - 7200
    monkeypatch.setattr(servers, "time", SimpleNamespace(time=lambda: before))
    line.is_dead = False
    publisher(line).check()
    assert len(line.asked) == 2


@pytest.mark.parametrize(
    "error", [ConflictError("x"), TakenAway("x", True), WarehouseBusy("x"), PublisherUnavailable("x")]
)
def test_errors_that_tell_nothing_of_the_server(line: Line, error: TransientError) -> None:
    Server("x", (StorageUnavailable, WarehouseUnavailable), line).diagnose(error)
    assert line.asked == []


def test_buckets_and_warehouses_are_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        def ledger(self) -> None:
            raise WarehouseUnavailable("the server is gone")

    monkeypatch.setattr(remote, "PLANNING_TIMEOUT", 0.1)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(job, "open_warehouse", lambda label: Dead())
    with pytest.raises(Unreachable, match=r"no answer from http://127.0.0.1:9"):
        servers.of_store("gs://some-bucket/lake").diagnose(StorageUnavailable("x"))
    with pytest.raises(Unreachable, match="the server is gone"):
        servers.of_warehouse("bigquery://project/dataset").diagnose(WarehouseUnavailable("x"))


def test_what_an_earlier_run_of_the_same_id_found_does_not_count(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable):
        publisher(line).ask()
    monkeypatch.delenv(journal.BEGUN, raising=False)
    assert journal.begin(["luigi"])
    try:
        publisher(line).check()
    finally:
        journal.end()


def test_lines_that_somebody_else_has_written_are_passed_over(line: Line) -> None:
    odd = ['["reachable"]', '{"event": "unreachable", "label": ["dtc"]}', '{"event": "unreachable"', "5"]
    journal.path().write_text("\n".join(odd) + "\n")
    publisher(line).check()
    publisher(line).has_answered()
    assert line.asked == []
