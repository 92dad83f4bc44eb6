"""Journals that the version at commit 62742c0 wrote are read by this one as they were by that one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.reporting import journal, journal_reader, messages, outcomes
from pipeline.reporting.outcomes import RunOutcome

STORED = Path(__file__).parents[2] / "data" / "journals"

#: By run: result, exit code, the state of each month, and the line of ``runs``.
RUNS = {
    "failed": (
        "failed",
        30,
        {
            "green 2020-01": "loaded",
            "green 2020-02": "failed: WrongFormat",
            "green 2020-03": "missing at publisher",
            "green 2020-04": "loaded",
            "zones": "loaded",
        },
        "2 months loaded, zones loaded, 1 failed, 1 missing at the publisher, 1,250 rows",
    ),
    "lake": ("complete", 0, {"green 2020-05": "in the lake"}, "1 month in the lake, 491 rows"),
    "cron": ("complete", 0, {"green 2020-05": "loaded"}, "1 month loaded, 491 rows"),
    "idle": ("complete", 0, {"green 2020-01": "complete"}, "nothing new"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setenv(journal.RUN_ID, "another")
    return tmp_path


def read(name: str, is_alive: bool = False) -> RunOutcome:
    return outcomes.summarize(journal_reader.read(STORED / f"v62742c0-{name}.jsonl"), is_alive)


@pytest.mark.parametrize("name", RUNS)
def test_outcome_is_the_one_of_that_version(name: str) -> None:
    result, code, states, line = RUNS[name]
    outcome = read(name)
    assert (outcome.run, outcome.host) == (f"v62742c0-{name}", "moon")
    assert (outcome.result, outcome.exit_code) == (result, code)
    assert {month.title: month.state for month in outcome.months} == states
    assert outcome.in_one_line == line
    assert outcome.start is not None and outcome.end is not None and outcome.start < outcome.end


def test_message_says_what_the_table_says() -> None:
    message = messages.message_of_run(read("lake"))
    assert message is not None and message.title == "NYC trips: 1 month in the lake"
    assert "In the lake: green 2020-05; 491 rows, 9 rejected" in message.body and "oaded" not in message.body
    message = messages.message_of_run(read("failed"))
    assert message is not None
    assert message.title == ("NYC trips: 1 month failed, 1 month missing at the publisher, 2 months and zones loaded")
    assert "Loaded: green 2020-01, 2020-04, zones; 1,250 rows, 15 rejected" in message.body


def test_killed_run_of_that_version_is_reported(folder: Path) -> None:
    lines = (STORED / "v62742c0-failed.jsonl").read_text().splitlines()
    last = next(number for number, line in enumerate(lines) if '"stage": "Load"' in line and '"started"' in line)
    (folder / "dead.jsonl").write_text("\n".join([*lines[: last + 1], '{"event": "sta']))
    shutil.copy(STORED / "v62742c0-idle.jsonl", folder / "well.jsonl")
    (run,) = journal_reader.killed()
    message = messages.message_of_killed(run.events, run.heard)
    assert message.title == "NYC trips: a run was killed on moon"
    assert "At work on: " in message.body and "Load green 2020-01" in message.body
