"""Ids of runs, and journals of runs that began more than once."""

from __future__ import annotations

import fcntl
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pipeline import validation
from pipeline.errors import UsageError
from pipeline.reporting import journal, journal_reader


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setattr(journal, "HELD_WAIT", 0.0)
    monkeypatch.setenv(journal.RUN_ID, "a-run")
    for name in (journal.BEGUN, journal.AGENT):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["nightly", "20260101T000000-abcdef", "-", "_", "1.2_3-4", "x" * 100])
def test_ids_of_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(journal.RUN_ID, name)
    assert journal.run_id() == name


@pytest.mark.parametrize(
    "name", [".", "..", ".hidden", "../../../a b/ü", "a/b", "a b", "ü", "٣", "x" * 101, "x" * 300, "a\n", "\x1b[1m"]
)
def test_ids_that_cannot_name_a_file_are_refused_before_any_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(journal.RUN_ID, name)
    for check in (journal.run_id, validation.validate):
        with pytest.raises(UsageError, match="environment variable PIPELINE_RUN_ID: ") as error:
            check()
        assert len(str(error.value)) < 250 and "\x1b" not in str(error.value)


def test_empty_id_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(journal.RUN_ID, "")
    assert journal.is_run_id(journal.run_id())


def test_id_of_an_ended_run_may_be_used_again_and_only_the_last_run_is_told_of() -> None:
    for stage in ("Clean", "Load"):
        assert journal.begin(["luigi"])
        journal.record("stage", stage=stage)
        journal.end()
    events, _ = journal_reader.events()
    assert [event["event"] for event in events] == ["begun", "stage", "ended"]
    assert events[1]["stage"] == "Load"


def test_id_of_a_run_under_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with journal.path().open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="run a-run is under way"):
            journal.begin(["luigi"])
        assert not journal.is_mine() and not journal.held()
        monkeypatch.setenv(journal.AGENT, "host:1")  # the queue gives a run to one agent at a time
        assert journal.begin(["luigi"])
        journal.end()


def test_second_run_that_was_killed_is_told_of_though_the_first_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {"event": "begun", "at": 1.0, "run": "twice", "command": ["luigi"], "host": "moon"}
    path = journal.folder() / "twice.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in (begun, {"event": "ended"}, {**begun, "at": 2.0})))
    (found,) = journal_reader.killed()
    assert [event["at"] for event in found.events] == [2.0]


def test_lines_that_are_no_events_are_passed_over() -> None:
    journal.path().write_text('{"event": "log", "text": "x"}\n[]\n5\n{"event": null}\n{}\n\x00\n{"event": "ended"}\n')
    assert [event["event"] for event in journal_reader.events()[0]] == ["log", "ended"]


def test_old_journals_are_removed_and_nothing_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old.jsonl"
    for is_link in (True, False):
        old.write_text("{}")
        os.utime(old, (0, 0))
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path)
        monkeypatch.setattr(journal, "folder", lambda is_link=is_link: tmp_path / "link" if is_link else tmp_path)
        assert journal.begin(["luigi"])
        journal.end()
        assert old.exists() == is_link


def plant(path: Path, kind: str, victim: Path) -> None:
    """What somebody else who may write into the workspace puts in place of a file of ours."""
    victim.write_text("precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize(("kind", "says"), [("link", "a link"), ("pipe", "a pipe"), ("folder", "a folder")])
def test_what_is_planted_in_place_of_a_journal_ends_the_run_in_one_line(tmp_path: Path, kind: str, says: str) -> None:
    victim = tmp_path / "victim"
    plant(journal.path(), kind, victim)
    journal.record("stage")  # a journal that cannot be written never harms a run that is under way
    with pytest.raises(UsageError, match=f"a-run.jsonl is {says}.*, not a file of a run; remove it"):
        journal.begin(["luigi"])
    assert victim.read_text() == "precious" and journal.files() == []
    assert not journal.is_mine() and not journal_reader.is_held(journal.path())


def test_journal_is_its_owners_or_the_groups_that_shares_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, mode, expected in (("own", 0o755, 0o600), ("shared", 0o2775, 0o660)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        monkeypatch.setattr(journal, "folder", lambda name=name: tmp_path / name / "runs")
        assert journal.begin(["luigi"])
        journal.end()
        assert journal.path().stat().st_mode & 0o777 == expected
        assert journal.folder().stat().st_mode & 0o777 == expected | (expected & 0o440) >> 2


GOOD = {"event": "stage", "at": 5.0, "task": "Load_1", "stage": "Load", "state": "done", "dataset": "green", "rows": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": -1e300},
        {"at": "now"},
        {"at": True},
        {"seconds": "x"},
        {"rows": []},
        {"rows": 10**4000},
        {"dataset": {"a": 1}},
        {"stage": 5},
        {"month": ["2020-01"]},
        {"error": {}},
        {"warehouses": "duckdb"},
        {"command": [1]},
        {"unknown_columns": [None]},
        {"rows_rejected": {"x": "y"}},
        {"entries": 5},
        {"entries": [["green", "2020-01", "to do"]]},
        {"code": 1.5},
        {"event": ["stage"]},
    ],
)
def test_event_with_a_field_of_another_type_is_passed_over(changes: dict[str, Any]) -> None:
    written = [{"event": "begun", "at": 1.0, "command": ["luigi"]}, {**GOOD, **changes}, {"event": "ended", "at": 9.0}]
    journal.path().write_text("".join(json.dumps(event) + "\n" for event in written))
    assert [event["event"] for event in journal_reader.read(journal.path())] == ["begun", "ended"]


def test_journal_without_line_ends_and_one_without_an_end_take_no_room(tmp_path: Path) -> None:
    path = journal.path()
    path.write_bytes(b'{"event": "begun", "at": 1, "command": []}\n')
    with path.open("ab") as file:
        file.truncate(200 << 20)  # zeros, which no disk has to hold
    tracemalloc.start()
    assert [event["event"] for event in journal_reader.read(path)] == ["begun"]
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()
    with path.open("ab") as file:
        file.truncate(journal_reader.LARGEST + 1)
    with pytest.raises(OSError, match="too large"):
        journal_reader.begun(path)
    assert list(journal_reader.killed()) == []


def test_only_journals_are_looked_at(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.touch()
    for name in ("a b", ".hidden", "\x1b[31m", "ü"):
        (tmp_path / f"{name}.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to(good)
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / os.fsdecode(b"\xff.jsonl")).touch()
    assert journal.files() == [good]
