"""Notifications: their text, their recipients, and that no address can harm a run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from luigi.configuration import get_config

from pipeline import validation
from pipeline.errors import UsageError
from pipeline.reporting import journal, journal_reader, messages, notify, outcomes

from ...patience import Clock, wait_for
from ...servers.inbox import SECRET, Inbox


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A workspace of its own, and ``[notify]`` with every kind of message."""
    monkeypatch.setenv(journal.RUN_ID, "20260101T050000-abcdef")
    monkeypatch.delenv(journal.BEGUN, raising=False)
    config = get_config()
    before = {section: dict(config.items(section)) if config.has_section(section) else {} for section in _SECTIONS}
    config.set("workspace", "url", f"file:{tmp_path}/workspace")
    config.set("notify", "on", "failed,completed,crashed,republished,schema_drift,nothing_new")
    yield
    for section, values in before.items():
        for name in ("url", "urls", "on", "datasets"):
            if name in values:
                config.set(section, name, values[name].replace("%", "%%"))
            elif config.has_option(section, name):
                config.remove_option(section, name)


_SECTIONS = ("workspace", "notify")


def configure(**values: str) -> None:
    for name, value in values.items():
        get_config().set("notify", name, value)


def stage(name: str, month: str, state: str, dataset: str = "green", **details: Any) -> dict[str, Any]:
    about = {"stage": name, "dataset": dataset, "month": month, "warehouse": None}
    return {"event": "stage", "state": state, "at": time.time(), **about, **details}


def loaded(month: str, dataset: str = "green", **details: Any) -> list[dict[str, Any]]:
    return [
        stage("Upload", month, "done", dataset, rows=90, bytes=1000, seconds=1.0, **details),
        stage("Load", month, "done", dataset, rows=90, rows_read=100, rows_rejected={"late": 10}, seconds=1.0),
    ]


def failed(month: str, dataset: str = "green") -> dict[str, Any]:
    return stage("Clean", month, "failed", dataset, error="WrongFormat", message="no Parquet file", seconds=1.0)


def plan(*entries: tuple[str, str | None, str, str]) -> dict[str, Any]:
    return {"event": "plan", "entries": entries}


def outcome(events: list[dict[str, Any]], **judged: Any) -> outcomes.RunOutcome:
    """The outcome of a run with these events that has ended, and that was judged if that is given."""
    verdict = [{"event": "judged", **judged}] if judged else []
    return outcomes.summarize([*events, *verdict, {"event": "ended", "at": time.time()}])


COMPLETE = plan(("zones", None, "complete", ""), ("green", "2020-01", "complete", ""))

#: Events of a run, the words that it answers to, and what its message says.
RUNS: dict[str, tuple[list[dict[str, Any]], set[str], list[str]]] = {
    "completed": (
        [*loaded("2020-01"), *loaded("2020-02"), plan(("green", "2020-03", "not yet published", ""))],
        {"completed"},
        ["2 months loaded", "Loaded: green 2020-01, 2020-02; 180 rows, 20 rejected", "1 month not yet published"],
    ),
    "failed": (
        [*loaded("2020-01"), failed("2020-02")],
        {"failed"},
        ["1 month failed, 1 month loaded", "Failed: green 2020-02: Clean: WrongFormat: no Parquet file"],
    ),
    "failed, then done": (
        [failed("2020-02"), stage("Clean", "2020-02", "done"), *loaded("2020-02")],
        {"completed"},
        [],
    ),
    "gap": (
        [*loaded("2020-01"), {"event": "missing", "months": ["green 2020-02"]}],
        {"failed"},
        ["1 month missing at the publisher", "Missing at the publisher: green 2020-02"],
    ),
    "republished": (
        [*loaded("2020-01"), plan(("green", "2020-01", "to do", "republished"))],
        {"completed", "republished"},
        ["1 month republished", "Republished and loaded anew: green 2020-01"],
    ),
    "same bytes": (
        [stage("Upload", "2020-01", "done", outcome="same bytes"), plan(("green", "2020-01", "to do", "republished"))],
        {"nothing_new"},
        [],
    ),
    "drift": (
        loaded("2020-01", unknown_columns=["cbd fee", "tip_2"]),
        {"completed", "schema_drift"},
        ["undeclared columns: cbd fee, tip_2", "Column cbd fee is not declared and was kept out: green 2020-01"],
    ),
    "in the lake only": (
        [stage("Upload", "2020-01", "done", rows=90), {**COMPLETE, "goal": "Upload"}],
        {"completed"},
        ["NYC trips: 1 month in the lake", "In the lake: green 2020-01; 90 rows, 0 rejected"],
    ),
    "nothing new": ([COMPLETE], {"nothing_new"}, ["nothing new", "1 month complete before"]),
    "killed worker": (
        [*loaded("2020-01"), stage("Clean", "2020-02", "started"), stage("Clean", "2020-02", "running")],
        {"failed", "crashed"},
        ["1 month failed, 1 month loaded", "Failed: green 2020-02: Clean: its process was killed"],
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_message_says_what_happened_and_where_to_look(name: str) -> None:
    events, happened, says = RUNS[name]
    message = messages.message_of_run(outcome(events))
    assert message is not None
    assert message.happened == happened
    text = f"{message.title}\n{message.body}"
    assert [part for part in says if part not in text] == []
    assert "20260101T050000-abcdef" in message.body and "runs/20260101T050000-abcdef.log" in message.body


def test_gaps_that_are_no_failure_are_mentioned() -> None:
    """As a refresh finds them: it is for what the publisher added, and says what it still lacks."""
    gap = plan(
        ("green", "2019-12", "missing at publisher", ""), ("green", "2020-02", "could not be asked", "no answer")
    )
    message = messages.message_of_run(outcome([gap, *loaded("2020-01")], code=0, result="complete"))
    assert message is not None and message.happened == {"completed"}
    assert message.title == "NYC trips: 1 month loaded"
    assert "Missing at the publisher: green 2019-12" in message.body
    assert "Could not be asked about: green 2020-02" in message.body


@pytest.mark.parametrize(
    ("result", "code", "title", "happened"),
    [
        ("stopped", 25, "NYC trips: the run was stopped, 1 month not done, 1 month loaded", {"completed"}),
        ("unfinished", 25, "NYC trips: 1 month not done, 1 month loaded", {"failed"}),
        ("crashed", 137, "NYC trips: the run failed, 1 month loaded", {"failed", "crashed"}),
    ],
)
def test_run_that_left_months_says_how_many(result: str, code: int, title: str, happened: set[str]) -> None:
    planned = plan(("green", "2020-01", "to do", ""), ("green", "2020-02", "to do", ""))
    all_loaded = {"event": "all loaded", "dataset": "green", "month": "2020-01"}
    message = messages.message_of_run(outcome([planned, *loaded("2020-01"), all_loaded], code=code, result=result))
    assert message is not None
    assert (message.title, message.happened) == (title, happened)
    assert "Not done: green 2020-02" in message.body


def test_run_that_did_nothing_has_no_message() -> None:
    assert messages.message_of_run(outcome([{"event": "begun"}, stage("Download", "2020-01", "done")])) is None


def test_what_failed_here_is_no_failure_if_the_root_task_is_complete() -> None:
    message = messages.message_of_run(outcome([*loaded("2020-01"), failed("2020-02")], code=0, result="complete"))
    assert message is not None and message.happened == {"completed"}
    assert "failed" not in message.title and "Failed" not in message.body


def test_failure_of_the_run_is_told_whatever_the_datasets() -> None:
    configure(datasets="fhv")
    message = messages.message_of_run(outcome([], code=35, result="planning failed", failure="no answer"))
    assert message is not None and message.is_wanted
    assert "the run failed" in message.title and "Failed: no answer" in message.body


@pytest.mark.parametrize(("datasets", "is_wanted"), [("green", True), ("fhv,green", True), ("fhv,yellow", False)])
def test_filter_by_dataset(datasets: str, is_wanted: bool) -> None:
    configure(datasets=datasets)
    message = messages.message_of_run(outcome([*loaded("2020-01"), failed("2020-02")]))
    assert message is not None and message.is_wanted is is_wanted


def test_filter_by_what_happened() -> None:
    configure(on="failed,republished")
    for name, (events, happened, _) in RUNS.items():
        message = messages.message_of_run(outcome(events))
        assert message is not None and message.is_wanted is bool(happened & {"failed", "republished"}), name


def test_message_names_some_months_and_counts_the_others() -> None:
    events = [event for year in range(2014, 2024) for event in loaded(f"{year}-05")]
    events += [event for year in range(2014, 2024) for event in loaded(f"{year}-06")]
    message = messages.message_of_run(outcome(events))
    assert message is not None
    assert "20 months loaded" in message.title and "and 8 more; 1,800 rows" in message.body


def record(events: list[dict[str, Any]]) -> None:
    for event in events:
        journal.record(event["event"], **{name: value for name, value in event.items() if name not in ("event", "at")})


def test_run_is_received_once_by_each_address() -> None:
    with Inbox() as first, Inbox() as second:
        configure(urls=f"{first.url}, {second.url}")
        record(RUNS["failed"][0])
        notify.notify_of_run(outcome(journal_reader.events()[0]), where="/var/log/cron.log")
    assert len(first.messages) == len(second.messages) == 1
    assert first.messages[0]["type"] == "failure"
    assert "1 month failed" in first.messages[0]["title"]
    assert "log: /var/log/cron.log" in first.messages[0]["message"]


class PatienceOfOne(Clock):
    """Patience ends when all messages have been sent, and only one that a silent address has taken is not through."""

    def __init__(self, silent: Inbox) -> None:
        super().__init__()
        self.silent = silent

    def monotonic(self) -> float:
        wait_for(lambda: self.silent.messages and sum(t.name.startswith("notify ") for t in threading.enumerate()) == 1)
        self.now += notify.SENDING_TIMEOUT
        return self.now


def test_address_that_never_answers_costs_a_bounded_time_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notify, "SENDING_TIMEOUT", 1.0)
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    with Inbox(is_silent=True) as silent, Inbox() as other:
        monkeypatch.setattr(notify, "time", PatienceOfOne(silent))
        configure(urls=f"{silent.url} {other.url} json://{SECRET}@127.0.0.1:9/{SECRET}")
        record(RUNS["completed"][0])
        notify.notify_of_run(outcome(journal_reader.events()[0]))
        assert len(silent.messages) == len(other.messages) == 1
    assert sorted(record.getMessage() for record in caplog.records if record.name == "pipeline") == [
        "notification not delivered to address 1 (JSON): no answer within 1 s",
        "notification not delivered to address 3 (JSON): it did not take the message",
    ]
    assert SECRET not in caplog.text


def test_address_that_is_none_is_named_without_its_secret() -> None:
    configure(urls=f"json://localhost,nonsense://user:{SECRET}@host")
    with pytest.raises(UsageError, match="address 2 is not one") as raised:
        validation.validate()
    assert SECRET not in str(raised.value)
    (check,) = notify.check()
    assert not check.ok and SECRET not in f"{check}"


def test_message_that_cannot_be_made_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    monkeypatch.setattr(notify, "send", lambda message: {}["nothing"])
    configure(urls="json://127.0.0.1:9/")
    notify.notify_of_run(outcome([*RUNS["failed"][0]]))
    assert "no notification could be made: KeyError" in caplog.text


def test_check_and_test_message() -> None:
    (nobody,) = notify.check()
    assert nobody.ok
    (refused,) = notify.send_test()
    assert not refused.ok and "PIPELINE_NOTIFY_URLS" in refused.remedy
    with Inbox() as inbox, Inbox(status=403) as closed:
        configure(urls=f"{inbox.url} {closed.url}", on="failed")
        assert [check.ok for check in notify.check()] == [True, True]
        assert not inbox.messages
        checks = list(notify.send_test())
        assert [check.ok for check in checks] == [True, False]
        assert "test message" in inbox.messages[0]["title"]
    assert SECRET not in str(checks)


# -- killed runs -----------------------------------------------------------------------------------


def other_run(name: str, *events: dict[str, Any], begun: bool = True) -> Path:
    """The journal of a run of another process."""
    import json

    path = journal.folder() / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = {"event": "begun", "at": time.time(), "run": name, "command": ["luigi", "RangeMonthly"], "host": "moon"}
    path.write_text("".join(json.dumps(event) + "\n" for event in [*([first] if begun else []), *events]))
    return path


def test_killed_run_is_told_of_once_and_named() -> None:
    path = other_run("dead", *loaded("2020-01"), stage("Clean", "2020-02", "started"))
    with path.open("a") as file:
        file.write('{"event": "sta')  # killed while it wrote
    other_run("well", *loaded("2020-01"), {"event": "ended", "at": time.time()})
    other_run("of an older version", *loaded("2020-01"), begun=False)
    with Inbox() as inbox:
        configure(urls=inbox.url)
        journal.begin(["luigi"])
        notify.notify_of_killed_runs()
        notify.notify_of_killed_runs()
        journal.end()
    (message,) = inbox.messages
    assert message["title"] == "NYC trips: a run was killed on moon"
    assert "At work on: Clean green 2020-02" in message["message"] and "Run dead on moon" in message["message"]
    assert "Loaded before: green 2020-01" in message["message"]


def test_killed_run_is_told_of_later_if_nobody_could_be_told() -> None:
    other_run("dead", stage("Clean", "2020-02", "started"))
    with Inbox(status=500) as down:
        configure(urls=down.url)
        notify.notify_of_killed_runs()
        assert down.messages
    with Inbox() as inbox:
        configure(urls=inbox.url)
        notify.notify_of_killed_runs()
        assert len(inbox.messages) == 1


def test_run_that_lives_is_not_called_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    journal.begin(["luigi", "--lake-url", "gs://user:secret@bucket"])
    assert "secret" not in journal.path().read_text()
    with monkeypatch.context() as next_run:
        next_run.setenv(journal.RUN_ID, "another")
        assert list(journal_reader.killed()) == []
    journal.end()


def test_old_journals_are_forgotten_and_removed() -> None:
    import os

    day = 86400
    for name, age in (("old", 60), ("ancient", 100), ("dead", 1)):
        path = other_run(name, stage("Clean", "2020-02", "started"))
        path.with_suffix(".log").touch()
        for file in (path, path.with_suffix(".log")):
            os.utime(file, (time.time() - age * day,) * 2)
    assert [run.events[0]["run"] for run in journal_reader.killed()] == ["dead"]
    journal.begin(["luigi"])
    journal.end()
    kept = {path.name for path in journal.folder().iterdir()} - {journal.path().name}
    assert kept == {"dead.jsonl", "dead.log", "old.jsonl", "old.log"}


def test_only_the_first_process_of_a_run_begins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal.begin(["python", "-m", "pipeline", "cron"]) and journal.is_mine()
    assert not journal.begin(["luigi"])
    journal.end()
    assert not journal.is_mine() and not journal.held()


def test_journals_that_somebody_else_has_written_keep_no_message_back() -> None:
    other_run(
        "a-odd", {"event": "begun", "at": None, "command": ["luigi"]}, {"event": "stage", "at": None}, begun=False
    )
    other_run("b-odd", {"event": "plan", "entries": [["green", None, "to do", None]], "warehouses": None})
    other_run("dead", stage("Clean", "2020-02", "started"))
    with Inbox() as inbox:
        configure(urls=inbox.url)
        notify.notify_of_killed_runs()
        notify.notify_of_killed_runs()
    assert sum("Run dead on moon" in message["message"] for message in inbox.messages) == 1
    assert len(inbox.messages) <= 3
