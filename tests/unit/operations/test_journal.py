"""Ids of runs, and journals of runs that began more than once."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.errors import UsageError
from pipeline.operations import journal


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
    for check in (journal.run_id, settings.validate):
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
    events, _ = journal.events()
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
    (found,) = journal.killed()
    assert [event["at"] for event in found.events] == [2.0]


def test_lines_that_are_no_events_are_passed_over() -> None:
    journal.path().write_text('{"event": "log", "text": "x"}\n[]\n5\n{"event": null}\n{}\n\x00\n{"event": "ended"}\n')
    assert [event["event"] for event in journal.events()[0]] == ["log", "ended"]


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
