"""Queues in a folder and in a bucket: one claim wins, and a silent agent loses its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConflictError, UsageError
from pipeline.lake import open_store
from pipeline.operations import queue
from pipeline.operations.queue import CANCELLED, DONE, RUNNING, AgentRecord, Queue, Submission
from tests.servers.gcs import gcs_bucket, gcs_server

__all__ = ["gcs_bucket", "gcs_server"]


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return f"file:{tmp_path}"
    return f"gs://{request.getfixturevalue('gcs_bucket')}/workspace"


def submission(name: str = "20260101T000000-aaaaaa") -> Submission:
    return Submission(name, "q", ["RangeMonthly"], {"code": "1"}, "me@here", "2026-01-01T00:00:00+00:00")


def opened(url: str) -> Queue:
    return Queue("q", open_store(url))


def test_one_of_two_claims_wins(url: str) -> None:
    opened(url).submit(submission())
    first, second = opened(url), opened(url)
    (seen,), (seen_too,) = first.open(), second.open()
    assert seen.submission == submission() and first.is_free(seen) and second.is_free(seen_too)
    first.replace(seen, state=RUNNING, agent="first")
    with pytest.raises(ConflictError):
        second.replace(seen_too, state=RUNNING, agent="second")
    (now,) = second.open()
    assert now.submission.agent == "first" and not second.is_free(now)


def test_run_of_a_silent_agent_becomes_free(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = type("clock", (), {"monotonic": staticmethod(lambda: moment)})
    moment = 1000.0
    monkeypatch.setattr(queue, "time", clock)
    owner, other = opened(url), opened(url)
    owner.submit(submission())
    claimed = owner.replace(owner.open()[0], state=RUNNING)
    assert not other.is_free(other.open()[0])
    moment += queue.LEASE - 1
    claimed = owner.replace(claimed)  # alive
    assert not other.is_free(other.open()[0])
    moment += queue.LEASE + 1
    (silent,) = other.open()
    assert other.is_free(silent)
    other.replace(silent, agent="other")
    with pytest.raises(ConflictError):
        owner.end(claimed, state=DONE)


def test_ended_runs_are_listed_and_forgotten_at_last(url: str) -> None:
    here = opened(url)
    for name in ("20200101T000000-aaaaaa", f"{queue.now()[:4]}9999T000000-bbbbbb"):
        here.submit(submission(name))
    for entry in here.open():
        here.end(entry, state=DONE, exit_code=0)
    assert here.open() == []
    assert [entry.submission.state for entry in here.ended()] == [DONE, DONE]
    here.prune()
    assert [entry.submission.id[-6:] for entry in here.ended()] == ["bbbbbb"]


def test_what_is_no_submission_is_passed_over(url: str, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(url)
    store.write("queues/q/open/a.json", b"{")
    store.write("queues/q/open/b.json", b'{"id": "b"}')
    opened(url).submit(submission())
    (entry,) = opened(url).open()
    assert entry.submission == submission()
    assert caplog.text.count("is no submission") == 2


def test_pause(url: str) -> None:
    here = opened(url)
    assert not here.is_paused
    here.pause()
    assert opened(url).is_paused
    here.resume()
    assert not opened(url).is_paused


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_of_queues(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name of a queue"):
        Queue(name, open_store(f"file:{tmp_path}"))


def test_cancel_takes_a_waiting_run_back_and_tells_the_agent_of_a_running_one(url: str) -> None:
    here = opened(url)
    waiting, running = submission("a"), submission("b")
    for one in (waiting, running):
        here.submit(one)
    claimed = here.replace(here.open()[1], state=RUNNING, agent="moon:1")
    cancelled = here.cancel("a", "me@here")
    assert cancelled and (cancelled.state, cancelled.message) == (CANCELLED, "cancelled by me@here")
    told = here.cancel("b", "me@here")
    assert told and (told.state, told.cancelled_by, told.agent) == (RUNNING, "me@here", "moon:1")
    with pytest.raises(ConflictError):
        here.replace(claimed)  # so its agent hears of it
    assert here.cancel("a", "me@here") is None and here.cancel("none", "me@here") is None


def test_cancel_of_a_run_that_is_claimed_meanwhile(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, agent = opened(url), opened(url)
    here.submit(submission("a"))
    end = here.end

    def claimed_before(entry: Any, **changes: Any) -> Any:
        monkeypatch.setattr(here, "end", end)
        agent.replace(agent.open()[0], state=RUNNING, agent="moon:1")
        return end(entry, **changes)

    monkeypatch.setattr(here, "end", claimed_before)
    told = here.cancel("a", "me@here")
    assert told and (told.state, told.cancelled_by) == (RUNNING, "me@here")


def test_agents_of_a_queue(url: str) -> None:
    here = opened(url)
    silent = AgentRecord("moon.example:7", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:05+00:00")
    here.register(AgentRecord("sun:7", queue.now(), queue.now(), run="a"))
    here.register(silent)
    assert {agent.name: agent.is_alive for agent in opened(url).agents()} == {"sun:7": True, "moon.example:7": False}
    here.prune()  # of those that were silent for a day nobody wants to know any more
    here.leave("none")
    assert [agent.name for agent in here.agents()] == ["sun:7"]
    here.leave("sun:7")
    assert here.agents() == []


def test_odd_files_are_named_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    open_store(url).write("queues/q/open/odd.json", b'{"id": "other"}')
    here = opened(url)
    for _ in range(3):
        assert here.open() == []
    assert caplog.text.count("is no submission; remove it") == 1
