"""The list of runs: how each was started, and journals of any size."""

from __future__ import annotations

import argparse
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pipeline import job
from pipeline.agents.queue import Queue
from pipeline.agents.records import Submission, now
from pipeline.agents.runs import Run
from pipeline.commands import runs
from pipeline.reporting import journal, journal_reader

STAGE = {"event": "stage", "task": "x", "stage": "Clean", "dataset": "green", "month": "2020-01", "warehouse": None}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setattr(job, "workspace_url", lambda: f"file:{tmp_path}/workspace")
    return tmp_path


def begun(name: str, at: float, command: list[str], **more: Any) -> dict[str, Any]:
    return {"event": "begun", "at": at, "run": name, "command": command, "host": "moon", "pid": 1, **more}


def write(folder: Path, name: str, *events: dict[str, Any]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def listed(capsys: pytest.CaptureFixture[str], **options: Any) -> list[dict[str, Any]]:
    asked = {"action": None, "id": None, "queue": None, "last": 20, "failed": False, "json": True, **options}
    assert runs.run(argparse.Namespace(**asked)) == 0
    return list(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("command", "agent", "how"),
    [
        (["luigi", "--module", "pipeline", "RangeMonthly"], "", "by hand"),
        (["python", "-m", "pipeline", "refresh", "--since", "2024-01"], "", "by hand"),
        (["python", "-m", "pipeline", "cron", "--last", "6"], "", "cron"),
        (["python", "mine.py"], "", "luigi.build"),
        ([], "", "luigi.build"),
        (["luigi", "--module", "pipeline", "RangeMonthly"], "moon:1", "queue"),
    ],
)
def test_how_a_run_was_started(command: list[str], agent: str, how: str) -> None:
    assert Run("x", begun=begun("x", 1.0, command, agent=agent)).how == how


def test_the_newest_are_last_whatever_their_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = {"event": "ended", "at": 5000.0}
    for name, at in (("b", 2000.0), ("20210101T000000-aaaaaa", 3000.0), ("a", 1000.0)):
        write(folder, name, begun(name, at, ["luigi"]), ended)
    assert [run["id"] for run in listed(capsys)] == ["a", "b", "20210101T000000-aaaaaa"]
    assert [run["id"] for run in listed(capsys, last=1)] == ["20210101T000000-aaaaaa"]
    assert listed(capsys, last=1)[0]["seconds"] == 2000.0


def test_only_the_last_run_of_an_id_is_told_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {**STAGE, "state": "failed", "error": "WrongFormat", "message": "no", "seconds": 1.0}
    done = {**STAGE, "state": "done", "seconds": 1.0}
    first = (begun("x", 1.0, ["luigi"]), failed, {"event": "ended", "at": 2.0})
    write(folder, "x", *first, begun("x", 10.0, ["luigi"]), done, {"event": "ended", "at": 12.0})
    (run,) = listed(capsys)
    assert (run["state"], run["failed"], run["seconds"]) == ("complete", {}, 2.0)


def test_long_journal_takes_no_room(folder: Path) -> None:
    """A long run tells of its progress twice a second."""
    path = write(folder, "x", begun("x", 1.0, ["luigi"]), {**STAGE, "state": "started"})
    progress = {**STAGE, "state": "running", "done": 1, "total": 2, "unit": "rows", "note": ""}
    with path.open("a") as file:
        file.write((json.dumps(progress) + "\n") * 200_000)
        file.write(json.dumps({"event": "log", "text": 'x {"event": "begun", "at": 1}'}) + "\n")
        file.write(json.dumps({**STAGE, "state": "done", "seconds": 1.0}) + "\n")
    tracemalloc.start()
    events = list(journal_reader.read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [event.get("state") for event in events] == [None, "started", "done"]
    assert peak < 1_000_000 < path.stat().st_size // 10


def test_run_of_somebody_who_wants_to_fill_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Queue("q")
    refusals = {f"host{number}": "y" * 10_000 for number in range(20)}
    command = ["TaxiZones", *(["\x1b[2J" + "x" * 9000] * 60)]
    here.submit(Submission("a", "q", command, {}, "me\nroot@here", now(), refusals=refusals))
    asked = {"action": None, "id": None, "queue": None, "last": 20, "failed": False, "json": False}
    assert runs.run(argparse.Namespace(**asked)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and all(len(line) < 2100 and line.isprintable() for line in lines)
    assert "... and by 15 more" in lines[-2]
