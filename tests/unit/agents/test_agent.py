"""An agent and its run: what it does when the run is cancelled or taken over by another agent."""

from __future__ import annotations

import importlib.metadata
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline import code_version, job
from pipeline.agents.agent import ATTEMPTS, Agent
from pipeline.agents.effective_settings import code, difference
from pipeline.agents.queue import Entry, Queue
from pipeline.agents.records import CANCELLED, DONE, FAILED, RUNNING, WAITING, Submission, now
from pipeline.commands.queue import _list_queues
from pipeline.errors import UsageError
from pipeline.reporting import journal

NAME = "a-run"


class Luigi:
    """A process that goes on whatever it is sent."""

    last_words = "its last words"

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send(self, number: int) -> None:
        self.sent.append(number)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setattr(job, "workspace_url", lambda: f"file:{tmp_path}")
    here = Queue("q")
    here.submit(Submission(NAME, "q", ["RangeMonthly"], {}, "me@here", now()))
    return here


def claimed(queue: Queue) -> tuple[Any, Luigi, Entry]:
    agent: Any = Agent("q", 1, None, 1.0, False)
    agent._luigi = luigi = Luigi()
    return agent, luigi, queue.replace(queue.open()[0], state=RUNNING, agent=agent.name)


def test_cancelled_run_is_stopped_gently_and_then_at_once(queue: Queue) -> None:
    agent, luigi, entry = claimed(queue)
    entry = agent._renew(entry)
    assert luigi.sent == []
    for _ in range(2):
        queue.cancel(NAME, "you@there")
        entry = agent._renew(entry)
        entry = agent._renew(entry)
    assert luigi.sent == [signal.SIGUSR1, signal.SIGKILL]
    agent._settle(entry, CANCELLED)
    assert [one.submission.state for one in queue.ended()] == [CANCELLED] and not queue.open()


def test_run_that_ends_while_somebody_cancels_it_is_done(queue: Queue) -> None:
    agent, _, entry = claimed(queue)
    queue.cancel(NAME, "you@there")
    agent._settle(entry, DONE, exit_code=0)
    assert [one.submission.state for one in queue.ended()] == [DONE] and not queue.open()


def test_run_that_another_agent_took_over_is_not_ours(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    agent, luigi, entry = claimed(queue)
    queue.replace(queue.open()[0], agent="other:1")
    assert agent._renew(entry) is None and luigi.sent == []
    agent._settle(entry, DONE)
    assert queue.open()[0].submission.agent == "other:1" and not queue.ended()


def test_command_of_other_code_is_refused_and_not_judged() -> None:
    """Newer code may know flags that this one does not."""
    submitted = Submission(NAME, "q", ["RangeMonthly", "--new-flag"], {"code": "other"}, "me@here", now())
    assert difference(submitted) == f"code is other there and {code()} here"
    with pytest.raises(UsageError, match="no flag of RangeMonthly"):
        difference(submitted.changed(meaning={"code": code()}))


def test_what_is_run_are_the_words_as_they_were_understood(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _, entry = claimed(queue)
    entry = queue.replace(entry, command=["RangeMonthly", "--start", "2021-1"])
    started: list[list[str]] = []

    def popen(words: list[str], **options: Any) -> Any:
        started.append(words)
        raise OSError("no process")

    monkeypatch.setattr("pipeline.runner.child.subprocess.Popen", popen)
    agent._run(entry)
    (words,) = started
    assert words[words.index("pipeline") + 1 :][:2] == ["RangeMonthly", "--start=2021-01"]
    assert [one.submission.message for one in queue.ended()] == ["luigi could not be started: no process"]


def test_run_that_was_ended_but_not_moved_is_moved(queue: Queue) -> None:
    """Its agent was killed between the two."""
    agent, _, entry = claimed(queue)
    ended = queue.replace(entry, state=DONE, exit_code=0, ended_at=now())
    assert agent._claim_one(ended) is None
    assert [one.submission.state for one in queue.ended()] == [DONE] and not queue.open()
    assert queue.cancel(NAME, "you@there") is None


def test_run_that_ends_all_its_agents_is_given_up(queue: Queue) -> None:
    agent, _, entry = claimed(queue)
    last = agent._claim_one(queue.replace(entry, attempts=ATTEMPTS - 1))
    assert last.submission.attempts == ATTEMPTS
    assert agent._claim_one(last) is None
    (ended,) = queue.ended()
    assert (ended.submission.state, ended.submission.message) == (
        FAILED,
        f"given up: {ATTEMPTS} agents died while running it",
    )


@pytest.mark.parametrize(
    ("code", "attempts", "is_stopping", "state", "attempts_then", "says"),
    [
        (0, 1, True, DONE, 1, ""),
        (30, 1, False, FAILED, 1, "its last words"),
        (30, 1, True, WAITING, 0, "stopped at .*; waits again"),
        (-signal.SIGKILL, 1, True, WAITING, 1, "ended by SIGKILL at .*; waits again"),
        (-signal.SIGKILL, ATTEMPTS - 1, False, WAITING, ATTEMPTS - 1, "ended by SIGKILL at .*; waits again"),
        (-signal.SIGKILL, ATTEMPTS, False, FAILED, ATTEMPTS, "ended by SIGKILL"),
    ],
)
def test_what_the_queue_is_told_of_a_process_that_ended(
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    attempts: int,
    is_stopping: bool,
    state: str,
    attempts_then: int,
    says: str,
) -> None:
    agent, _, entry = claimed(queue)
    if is_stopping:
        agent._stopping.set()
    monkeypatch.setattr(agent, "_run_luigi", lambda entry: (code, entry))
    agent._run(queue.replace(entry, attempts=attempts))
    (found,) = (*queue.open(), *queue.ended())
    assert (found.submission.state, found.submission.attempts) == (state, attempts_then)
    assert re.fullmatch(says, found.submission.message)


def test_why_a_run_failed_is_what_its_journal_says(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _, entry = claimed(queue)
    monkeypatch.setattr(agent, "_run_luigi", lambda entry: (30, entry))
    stage = {"stage": "Clean", "dataset": "green", "month": "2020-01", "warehouse": None}
    about = {"state": "failed", "error": "WrongFormat", "message": "green 2020-01: no Parquet file", "seconds": 1.0}
    journal.append(journal.folder() / f"{NAME}.jsonl", "stage", **stage, **about)
    agent._run(entry)
    (ended,) = queue.ended()
    assert ended.submission.message == "green 2020-01: Clean: WrongFormat: no Parquet file"
    assert ended.submission.summary == "1 failed"


def test_version_of_the_code_is_known_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_installation(*args: object) -> None:
        raise importlib.metadata.PackageNotFoundError("nyc-trips-pipeline")

    monkeypatch.setattr(importlib.metadata, "version", no_installation)
    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", no_installation)
    code_version.of_sources.cache_clear()
    assert re.fullmatch(r"\d+\.\d+\.\d+\+[0-9a-f]{12}", code())


def test_list_of_no_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(job, "workspace_url", lambda: f"file:{tmp_path}")
    for as_json, says in ((False, "no queues\n"), (True, "[]\n")):
        assert _list_queues(None, as_json) == 0
        assert capsys.readouterr().out == says
