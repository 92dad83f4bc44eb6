"""Named queues of submitted runs: one small JSON object per run, in the workspace that submitters and agents share.

    queues/<queue>/open/<run id>.json          waiting or running
    queues/<queue>/ended/<run id>.json         done, failed or cancelled
    queues/<queue>/agents/<host>-<pid>.json    an agent that serves the queue
    queues/<queue>/paused                      while no agent may claim a run

An object is replaced only by who has seen its present version, so that of several agents exactly one claims a run. A
running one is written anew every ``RENEW`` seconds. Whoever has seen it unchanged for ``LEASE`` seconds, by the own
clock, takes it over: clocks of hosts need not agree.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import getpass
import json
import logging
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar, get_args, get_origin, get_type_hints

from .. import settings
from ..errors import ConflictError, UsageError
from ..lake import Store, open_store
from . import journal
from . import names as file_names

LOGGER = logging.getLogger("pipeline")

ROOT = "queues"

#: Seconds between two signs of life of an agent, and after how many without one its run is taken over.
RENEW, LEASE = 5.0, 20.0

#: Days for which runs that have ended are listed.
KEEP = 90

#: Submissions that are read at once.
CONCURRENT = 16

#: Seconds after which the record of an agent that gave no sign of life is removed.
AGENT_KEEP = 24 * 3600.0

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
OPEN = (WAITING, RUNNING)

T = TypeVar("T")


@dataclass(frozen=True)
class Submission:
    """One run that somebody asked for. Times are ISO 8601, in UTC.

    ``command`` are the words after ``luigi --module pipeline``; ``meaning`` is what they and the submitter's settings
    come to (``agent.meaning``). ``agent`` has claimed it; ``refusals`` say by host why agents there do not.
    ``cancelled_by`` tells the agent to stop it. ``result`` and ``summary`` are what its journal, which lies on the
    agent's host, says in the end.
    """

    id: str
    queue: str
    command: list[str]
    meaning: dict[str, str]
    submitter: str
    submitted_at: str
    state: str = WAITING
    agent: str = ""
    attempts: int = 0
    started_at: str = ""
    renewed_at: str = ""
    ended_at: str = ""
    exit_code: int | None = None
    message: str = ""
    log: str = ""
    refusals: dict[str, str] = field(default_factory=dict)
    cancelled_by: str = ""
    result: str = ""
    summary: str = ""

    def changed(self, **changes: object) -> Submission:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Submission:
        """Raises ValueError for what is no submission."""
        found = _from_json(cls, data)
        if not (found.command and file_names.is_run_id(found.id) and found.state in (*OPEN, DONE, FAILED, CANCELLED)):
            raise ValueError("no submission")
        for moment in (found.submitted_at, found.started_at, found.renewed_at, found.ended_at):
            seconds_since(moment)
        return found


@dataclass(frozen=True)
class AgentRecord:
    """An agent that serves a queue, as it said last. Times are ISO 8601, in UTC, by the clock of its host."""

    name: str
    since: str
    heard_at: str
    run: str = ""

    @property
    def silent(self) -> float:
        """Seconds since its last sign of life, as far as the clocks of the hosts agree."""
        return max(0.0, seconds_since(self.heard_at))

    @property
    def is_alive(self) -> bool:
        return self.silent < LEASE

    @classmethod
    def from_json(cls, data: bytes) -> AgentRecord:
        """Raises ValueError for what is no such record."""
        found = _from_json(cls, data)
        for moment in (found.since, found.heard_at):
            seconds_since(moment)
        return found


def _from_json(cls: type[T], data: bytes) -> T:
    """A dataclass from a JSON object, whose values must have the types that are declared; others are passed over."""
    given, values = json.loads(data), {}
    if not isinstance(given, dict):
        raise ValueError("not a JSON object")
    for name, kind in get_type_hints(cls).items():
        if name not in given:
            continue
        value, origin = given[name], get_origin(kind)
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        is_right = isinstance(value, origin if origin in (list, dict) else kind) and not isinstance(value, bool)
        if not is_right or (origin in (list, dict) and not all(isinstance(one, get_args(kind)[0]) for one in inner)):
            raise ValueError(f"{name} is {value!r}")
        values[name] = value
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Entry:
    """A submission as it was read; ``version`` is the store's."""

    submission: Submission
    version: str


class Queue:
    """One queue. Every method is one or few requests to the store, whose errors it raises."""

    def __init__(self, name: str, store: Store | None = None) -> None:
        self.name = check_name(name)
        self._store = store or open_store(settings.workspace_url())
        self._seen: dict[str, tuple[str, float]] = {}
        self._odd: set[tuple[str, str]] = set()

    def submit(self, submission: Submission) -> None:
        try:
            self._store.write(self._path("open", submission.id), submission.to_json(), if_version="")
        except ConflictError:
            raise UsageError(
                f"run {submission.id} is in queue {self.name} already; {journal.RUN_ID} must be another one, or unset"
            ) from None

    def open(self) -> list[Entry]:
        """Runs that wait or are under way, oldest first."""
        return self._entries("open")

    def ended(self) -> list[Entry]:
        return self._entries("ended")

    def find(self, name: str) -> Entry | None:
        """The run of that id as it is now, if it has not ended."""
        path = self._path("open", name)
        stored = self._store.stat(path)
        return self._entry(path, stored.version) if stored else None

    def replace(self, entry: Entry, **changes: object) -> Entry:
        """Write a changed submission. Raises ``ConflictError`` if somebody else has changed it meanwhile."""
        submission = entry.submission.changed(renewed_at=now(), **changes)
        stored = self._store.write(self._path("open", submission.id), submission.to_json(), if_version=entry.version)
        return Entry(submission, stored.version)

    def end(self, entry: Entry, **changes: object) -> Submission:
        """Move a run that is over to those that have ended. Raises ``ConflictError`` if it is somebody else's now."""
        last = self.replace(entry, ended_at=entry.submission.ended_at or now(), **changes).submission
        self._store.write(self._path("ended", last.id), last.to_json())
        self._store.delete(self._path("open", last.id))
        return last

    def cancel(self, name: str, by: str) -> Submission | None:
        """Take a run back: at once if it waits or its agent is silent, else its agent is told to stop it.

        Returns the submission as it is then; None if it has ended meanwhile.
        """
        while entry := self.find(name):
            submission = entry.submission
            try:
                if submission.state not in OPEN:  # whoever ended it was killed before it was moved
                    self.end(entry)
                    return None
                if submission.state == RUNNING and seconds_since(submission.renewed_at) < LEASE:
                    return self.replace(entry, cancelled_by=by).submission
                return self.end(entry, state=CANCELLED, cancelled_by=by, message=f"cancelled by {by}")
            except ConflictError:
                continue  # an agent has claimed it, or renewed its claim
        return None

    def is_free(self, entry: Entry) -> bool:
        """Whether the run may be claimed: it waits, or its agent has given no sign of life for too long."""
        path, version = entry.submission.id, entry.version
        before, since = self._seen.get(path, ("", 0.0))
        if before != version:
            since = time.monotonic()
            self._seen[path] = version, since
        return entry.submission.state == WAITING or time.monotonic() - since > LEASE

    # -- agents ------------------------------------------------------------------------------------

    def agents(self) -> list[AgentRecord]:
        """Agents that serve this queue, those that were killed among them."""
        found = []
        for path, stored in self._store.list(self._folder("agents")).items():
            try:
                found.append(AgentRecord.from_json(self._store.read(path)))
            except FileNotFoundError:
                continue  # it ended while we looked
            except ValueError:
                self._warn(path, stored.version, "is no record of an agent")
        return found

    def register(self, agent: AgentRecord) -> None:
        """Say that an agent serves this queue, and at what it works."""
        self._store.write(self._path("agents", _file_name(agent.name)), json.dumps(dataclasses.asdict(agent)).encode())

    def leave(self, name: str) -> None:
        """Say that an agent serves this queue no more."""
        self._store.delete(self._path("agents", _file_name(name)))

    # -- the queue as a whole ----------------------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        return self._store.stat(self._pause) is not None

    def pause(self) -> None:
        self._store.write(self._pause, f"{now()}\n".encode())

    def resume(self) -> None:
        self._store.delete(self._pause)

    def prune(self) -> None:
        """Forget runs that ended long ago, and agents that were killed."""
        oldest = (dt.datetime.now(dt.UTC) - dt.timedelta(days=KEEP)).strftime("%Y%m%dT%H%M%S")
        for path, stored in self._store.list(self._folder("ended")).items():
            name = path.rpartition("/")[2]
            if re.match(r"\d{8}T\d{6}-", name):  # ids that we made begin with their time
                is_old = name < oldest
            else:
                entry = self._entry(path, stored.version)
                is_old = entry is not None and seconds_since(entry.submission.ended_at) > KEEP * 86400
            if is_old:
                self._store.delete(path)
        for agent in self.agents():
            if agent.silent > AGENT_KEEP:
                self.leave(agent.name)

    @property
    def _pause(self) -> str:
        return self._folder("paused")

    def _folder(self, place: str) -> str:
        return f"{ROOT}/{self.name}/{place}"

    def _path(self, place: str, name: str) -> str:
        return f"{self._folder(place)}/{name}.json"

    def _entries(self, place: str) -> list[Entry]:
        found = self._store.list(self._folder(place)).values()
        with ThreadPoolExecutor(CONCURRENT) as pool:  # a bucket takes its time for each
            entries = list(pool.map(lambda stored: self._entry(stored.path, stored.version), found))
        return [entry for entry in entries if entry]

    def _entry(self, path: str, version: str) -> Entry | None:
        """The submission in a file; None for a file that was removed meanwhile, or is no submission."""
        try:
            submission = Submission.from_json(self._store.read(path))
        except FileNotFoundError:
            return None
        except ValueError:
            submission = None
        if submission is None or path.rpartition("/")[2] != f"{submission.id}.json":
            self._warn(path, version, "is no submission")
            return None
        return Entry(submission, version)

    def _warn(self, path: str, version: str, why: str) -> None:
        """Name an odd file, once: agents look every few seconds."""
        if (path, version) not in self._odd:
            self._odd.add((path, version))
            LOGGER.warning("%s %s; remove it", self._store.uri(path), why)


def _file_name(agent: str) -> str:
    """``host-pid`` of an agent called ``host:pid``."""
    return re.sub(r"[^\w-]+", "-", agent).strip("-")


_NAME = re.compile(r"\w[\w.-]{0,99}")


def check_name(name: str) -> str:
    """Refuse what cannot be a folder in every store."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a queue; use letters, digits, dots and dashes")
    return name


def names() -> list[str]:
    """All queues of the workspace: those with a run, an agent or a pause."""
    found = {tuple(path.split("/")[1:3]) for path in open_store(settings.workspace_url()).list(ROOT)}
    return sorted({names[0] for names in found if len(names) > 1 and _NAME.fullmatch(names[0])})


def user() -> str:
    """Who this is, for others to read."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def seconds_since(moment: str) -> float:
    """Seconds that have passed since a time as ``now`` writes it; infinite for none. Raises ValueError for others."""
    if not moment:
        return float("inf")
    try:
        return (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(moment).astimezone(dt.UTC)).total_seconds()
    except OverflowError as error:
        raise ValueError(str(error)) from None
