"""Queues in a folder and in a bucket: one claim wins, and a silent agent loses its run."""

from __future__ import annotations

import dataclasses
import datetime as dt
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import job
from pipeline.agents import queue, records
from pipeline.agents.queue import Queue
from pipeline.agents.records import CANCELLED, DONE, RUNNING, AgentRecord, Submission
from pipeline.errors import ConflictError, LakeError, UsageError
from pipeline.storage import local, open_store
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


def test_runs_of_one_second_keep_the_order_in_which_they_were_submitted(url: str) -> None:
    first, second, older = (f"20260101T000000-{letter * 6}" for letter in "bac")
    times = {
        first: "00:00:00.000001+00:00",
        second: "00:00:00.000002+00:00",
        older: "00:00:00+00:00",
    }  # no fraction: 0.1
    for name, time in times.items():
        opened(url).submit(submission(name).changed(submitted_at=f"2026-01-01T{time}"))
    assert [entry.submission.id for entry in opened(url).open()] == [older, first, second]


def test_id_is_submitted_once(url: str) -> None:
    opened(url).submit(submission())
    with pytest.raises(UsageError, match=f"run {submission().id} is in queue q already"):
        opened(url).submit(submission().changed(command=["TaxiZones"]))
    assert [entry.submission for entry in opened(url).open()] == [submission()]


def test_run_of_a_silent_agent_becomes_free(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = type("clock", (), {"monotonic": staticmethod(lambda: moment)})
    moment = 1000.0
    monkeypatch.setattr(queue, "time", clock)
    owner, other = opened(url), opened(url)
    owner.submit(submission())
    claimed = owner.replace(owner.open()[0], state=RUNNING)
    assert not other.is_free(other.open()[0])
    moment += records.LEASE - 1
    claimed = owner.replace(claimed)  # alive
    assert not other.is_free(other.open()[0])
    moment += records.LEASE + 1
    (silent,) = other.open()
    assert other.is_free(silent)
    other.replace(silent, agent="other")
    with pytest.raises(ConflictError):
        owner.end(claimed, state=DONE)


def test_ended_runs_are_listed_and_forgotten_at_last(url: str) -> None:
    here = opened(url)
    for name in ("20200101T000000-aaaaaa", f"{records.now()[:4]}9999T000000-bbbbbb"):
        here.submit(submission(name))
    for entry in here.open():
        here.end(entry, state=DONE, exit_code=0)
    assert here.open() == []
    assert [entry.submission.state for entry in here.ended()] == [DONE, DONE]
    here.prune()
    assert [entry.submission.id[-6:] for entry in here.ended()] == ["bbbbbb"]


def ago(**time: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(**time)).isoformat(timespec="seconds")


def test_ended_runs_whose_ids_have_no_time_are_forgotten_by_their_end(url: str) -> None:
    here = opened(url)
    for name, days in (("old", queue.KEEP + 1), ("new", queue.KEEP - 1)):
        here.submit(submission(name).changed(ended_at=ago(days=days)))
    for entry in here.open():
        here.end(entry, state=DONE)
    here.prune()
    assert [entry.submission.id for entry in here.ended()] == ["new"]


def test_queues_are_those_that_are_in_use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "workspace_url", lambda: url)
    assert queue.queue_names() == []
    opened(url).submit(submission())
    Queue("paused", open_store(url)).pause()
    Queue("served", open_store(url)).register(AgentRecord("sun:7", records.now(), records.now()))
    for path in ("left/set-aside/odd", "a b/open/a.json"):
        open_store(url).write(f"queues/{path}", b"{}")
    assert sorted(queue.queue_names()) == ["paused", "q", "served"]


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


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "\u6771" * 100])
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


def test_run_of_a_silent_agent_is_cancelled_at_once(url: str) -> None:
    here = opened(url)
    here.submit(submission("a").changed(state=RUNNING, agent="moon:1", renewed_at="2026-01-01T00:00:00+00:00"))
    cancelled = here.cancel("a", "me@here")
    assert cancelled and cancelled.state == CANCELLED and here.open() == []


def test_run_that_is_done_is_not_cancelled_though_its_agent_was_killed_before_it_moved_it(url: str) -> None:
    here = opened(url)
    here.submit(submission("a").changed(state=DONE, exit_code=0, ended_at=records.now()))
    assert here.cancel("a", "me@here") is None
    assert [entry.submission.state for entry in here.ended()] == [DONE] and here.open() == []


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
    here.register(AgentRecord("sun:7", records.now(), records.now(), run="a"))
    here.register(silent)
    here.register(AgentRecord("mars:7", ago(hours=5), ago(hours=5)))
    alive = {agent.name: agent.is_alive for agent in opened(url).agents()}
    assert alive == {"sun:7": True, "moon.example:7": False, "mars:7": False}
    here.prune()  # of those that were silent for a day nobody wants to know any more
    here.leave("none")
    assert {agent.name for agent in here.agents()} == {"sun:7", "mars:7"}
    for name in ("sun:7", "mars:7"):
        here.leave(name)
    assert here.agents() == []


def test_odd_files_are_named_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    open_store(url).write("queues/q/open/odd.json", b'{"id": "other"}')
    here = opened(url)
    for _ in range(3):
        assert here.open() == []
    assert caplog.text.count("is no submission; remove it") == 1


NAME = "20260101T000000-000000"


def odd(**changes: Any) -> bytes:
    return json.dumps({**dataclasses.asdict(submission(NAME)), **changes}).encode()


#: What somebody who may write to the workspace may put under the name of a run.
ODD: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello",
    "list": b"[]",
    "string": b'"x"',
    "number": b"5",
    "null": b"null",
    "binary": bytes(range(256)),
    "deep": b"[" * 500_000,
    "deep object": b'{"a":' * 100_000,
    "utf-16": odd().decode().encode("utf-16"),
    "latin-1": odd(submitter="J\u00fcrgen").replace(b"\\u00fc", b"\xfc"),
    "byte order mark": b"\xef\xbb\xbf" + odd(),
    "NaN": odd(attempts=float("nan")),
    "infinity": odd(exit_code=float("inf")),
    "huge number": odd().replace(b'"attempts": 0', b'"attempts": ' + b"9" * 5000),
    "twice": odd().replace(b'"attempts": 0', b'"attempts": 0, "id": "x"'),
    "large": odd(message="x" * (records.LIMIT + 1)),
    "two objects": odd() + odd(),
    "another's id": odd(id="20260101T000000-ffffff"),
    "path as id": odd(id="../../x"),
    "number as id": odd(id=5),
    "no id": odd(id=None),
    "another queue": odd(queue="p"),
    "path as queue": odd(queue="../q"),
    "no command": odd(command=[]),
    "null as command": odd(command=None),
    "text as command": odd(command="MonthlyTrips"),
    "numbers as command": odd(command=[1, 2]),
    "lists as command": odd(command=[["MonthlyTrips"]]),
    "many words": odd(command=["x"] * 501),
    "long word": odd(command=["x" * 10_001]),
    "null as meaning": odd(meaning=None),
    "list as meaning": odd(meaning=[]),
    "numbers as meaning": odd(meaning={"code": 5}),
    "null as refusals": odd(refusals=None),
    "list in refusals": odd(refusals={"moon": []}),
    "text as attempts": odd(attempts="x"),
    "true as attempts": odd(attempts=True),
    "half an attempt": odd(attempts=0.5),
    "attempts below 0": odd(attempts=-1),
    "null as state": odd(state=None),
    "unknown state": odd(state="paused"),
    "null as time": odd(submitted_at=None),
    "no time": odd(submitted_at=""),
    "word as time": odd(renewed_at="yesterday"),
    "first year": odd(started_at="0001-01-01T00:00:00+00:00"),
    "last year": odd(ended_at="9999-12-31T23:59:59-12:00"),
    "exit code": odd(exit_code=10**6),
    "agent": odd(agent=["moon:1"]),
    "missing": b'{"id": "20260101T000000-000000"}',
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_odd_file_is_set_aside_in_one_line_and_harms_no_other(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(f"file:{tmp_path}")
    here = Queue("q", store, sets_aside=True)
    here.submit(submission())
    for place in ("open", "ended"):
        store.write(f"queues/q/{place}/{NAME}.json", content)
    for _ in range(2):
        assert [entry.submission for entry in here.open()] == [submission()] and here.ended() == []
    assert caplog.text.count("is no submission and lies in ") == 2 == len(caplog.records)
    assert here.aside() == (2, f"file:{tmp_path}/queues/q/set-aside")
    kept = [path.read_bytes() for path in (tmp_path / "queues" / "q" / "set-aside").iterdir()]
    assert kept == [content, content]


def test_odd_file_in_a_bucket_is_set_aside(url: str, caplog: pytest.LogCaptureFixture) -> None:
    here = Queue("q", open_store(url), sets_aside=True)
    here.submit(submission())
    for content in (b"{", b"["):
        open_store(url).write(f"queues/q/open/{NAME}.json", content)
        assert [entry.submission for entry in here.open()] == [submission()]
    assert here.aside()[0] == 2 and len(caplog.records) == 2
    assert {stored.rpartition("/")[2][: len(NAME)] for stored in open_store(url).list("queues/q/set-aside")} == {NAME}


@pytest.mark.parametrize("kind", ["link", "dangling link", "link to a device", "pipe", "folder", "full folder", "huge"])
def test_what_is_no_file_is_set_aside_unread(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    here = Queue("q", open_store(f"file:{tmp_path}/workspace"), sets_aside=True)
    here.submit(submission())
    victim = tmp_path / "victim"
    victim.write_bytes(odd())  # a link to what would be right is none of ours all the same
    path = tmp_path / "workspace" / "queues" / "q" / "open" / f"{NAME}.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind.endswith("folder"):
        path.mkdir()
        if kind == "full folder":
            (path / f"{NAME}.json").write_bytes(odd())
    elif kind == "huge":
        path.touch()
        os.truncate(path, 5 << 30)  # zeros, which no disk has to hold
    else:
        targets = {"link": victim, "dangling link": tmp_path / "nowhere", "link to a device": Path("/dev/zero")}
        path.symlink_to(targets[kind])
    assert [entry.submission for entry in here.open()] == [submission()]
    assert len(caplog.records) == 1 and "is no submission and lies in" in caplog.text
    assert victim.read_bytes() == odd() and not (tmp_path / "nowhere").exists()
    assert here.aside()[0] == 1 and not os.path.lexists(path)


HIDDEN = {".x.json", "..json", "...json"}
NAMES = {
    *(
        "x",
        "x.json~",
        "a b.json",
        "\x1b[2J.json",
        "a\nb.json",
        "a\\b.json",
        "\u202e.json",
        "-.json",
        "x" * 240 + ".json",
    ),
    os.fsdecode(b"\xff\xfe.json"),
}


def test_odd_names_are_set_aside_and_leave_no_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = Queue("q", open_store(f"file:{tmp_path}/workspace"), sets_aside=True)
    folder = tmp_path / "workspace" / "queues" / "q" / "open"
    folder.mkdir(parents=True)
    for name in NAMES | HIDDEN:
        (folder / name).write_bytes(odd(id="20260101T000000-ffffff"))
    assert here.open() == [] and here.open() == []
    assert {path.name for path in folder.iterdir()} == HIDDEN
    aside = {path.name for path in (folder.parent / "set-aside").iterdir()}
    assert aside & NAMES == {"x"} and "a_b.json" not in aside, "what is left of two names may be the same"
    assert here.aside()[0] == len(NAMES) and len(caplog.records) == len(NAMES)
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert {path.name for path in tmp_path.iterdir()} == {"workspace"}


@pytest.mark.parametrize("place", ["", "open", "ended", "agents", "set-aside"])
def test_nothing_is_read_written_or_moved_behind_a_link(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("thesis.txt", "20200101T000000-aaaaaa.json"):
        (home / name).write_text("precious")
    path = tmp_path / "workspace" / "queues" / "q" / place
    path.parent.mkdir(parents=True)
    path.symlink_to(home)
    monkeypatch.setattr(job, "workspace_url", lambda: f"file:{tmp_path}/workspace")
    here = Queue("q", sets_aside=True)
    if place == "set-aside":
        (path.parent / "open").mkdir()
        (path.parent / "open" / "odd.json").write_text("{")
        assert here.open() == []
        assert (path.parent / "open" / "odd.json").exists()
    for use in (here.open, here.ended, here.agents, here.prune, lambda: here.submit(submission())):
        try:
            use()
        except LakeError as error:
            assert "is a symbolic link" in str(error)
    assert sorted(one.name for one in home.iterdir()) == ["20200101T000000-aaaaaa.json", "thesis.txt"]
    assert (home / "thesis.txt").read_text() == "precious"


def test_folder_in_the_place_of_an_ended_run_is_moved_away(tmp_path: Path) -> None:
    here = opened(f"file:{tmp_path}")
    here.submit(submission("a"))
    (tmp_path / "queues" / "q" / "ended" / "a.json" / "x").mkdir(parents=True)
    here.end(here.open()[0], state=DONE)
    assert [entry.submission.state for entry in here.ended()] == [DONE] and here.open() == []
    assert here.aside()[0] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"name": 5}',
        b'{"name": "d", "since": "x"}',
        b'{"name": "../x:1", "since": "2026-01-01", "heard_at": "2026-01-01"}',
        b'{"name": "sun:1", "since": "2026-01-01", "heard_at": "2026-01-01"}',
        b'{"name": "moon:1", "since": "", "heard_at": ""}',
        b'{"name": "moon:1", "since": "9999-12-31T23:59:59", "heard_at": "2026-01-01"}',
        b'{"name": "moon:1", "since": "2026-01-01", "heard_at": "2026-01-01", "run": "../x"}',
        b'{"name": "moon:1\\u001b", "since": "2026-01-01", "heard_at": "2026-01-01"}',
    ],
)
def test_odd_record_of_an_agent_is_set_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(f"file:{tmp_path}")
    store.write("queues/q/agents/moon-1.json", content)
    here = Queue("q", store, sets_aside=True)
    here.register(AgentRecord("sun:7", records.now(), records.now()))
    for _ in range(2):
        assert [agent.name for agent in here.agents()] == ["sun:7"]
    assert caplog.text.count("is no record of an agent and lies in") == 1 == len(caplog.records)


def test_what_this_user_may_not_read_stays_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    here = Queue("q", open_store(f"file:{tmp_path}"), sets_aside=True)
    here.submit(submission("a"))
    monkeypatch.setattr(local, "open_regular", refuse)
    assert here.open() == []
    monkeypatch.undo()
    assert len(here.open()) == 1


@pytest.mark.parametrize(("mode", "of_file", "of_folder"), [(0o755, 0o600, 0o700), (0o2775, 0o660, 0o770)])
def test_queue_is_its_owners_or_the_groups_that_shares_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, of_file: int, of_folder: int
) -> None:
    tmp_path.chmod(mode)
    monkeypatch.setattr(job, "workspace_url", lambda: f"file:{tmp_path}")
    here = Queue("q")
    here.submit(submission())
    here.register(AgentRecord("sun:7", records.now(), records.now()))
    here.end(here.replace(here.open()[0], state=RUNNING), state=DONE)
    here.pause()
    found = list((tmp_path / "queues").rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {of_file}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {of_folder}
