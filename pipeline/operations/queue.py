"""Named queues of submitted runs: one small JSON object per run, in the workspace that submitters and agents share.

    queues/<queue>/open/<run id>.json      waiting or running
    queues/<queue>/ended/<run id>.json     done or failed
    queues/<queue>/paused                  while nobody shall take anything

An object is replaced only by who has seen its present version, so that of several agents exactly one claims a run. A
running one is written anew every ``RENEW`` seconds. Whoever has seen it unchanged for ``LEASE`` seconds, by the own
clock, takes it over: clocks of hosts need not agree.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from .. import settings
from ..errors import UsageError
from ..lake import Store, open_store

LOGGER = logging.getLogger("pipeline")

ROOT = "queues"

#: Seconds between two signs of life of an agent, and after how many without one its run is taken over.
RENEW, LEASE = 5.0, 20.0

#: Days for which runs that have ended are listed.
KEEP = 90

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass(frozen=True)
class Submission:
    """One run that somebody asked for. Times are ISO 8601, in UTC.

    ``command`` are the words after ``luigi --module pipeline``; ``meaning`` is what they and the submitter's settings
    come to (``agent.meaning``). ``agent`` has claimed it; ``refusals`` say by host why agents there do not.
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
    renewed_at: str = ""
    ended_at: str = ""
    exit_code: int | None = None
    message: str = ""
    log: str = ""
    refusals: dict[str, str] = field(default_factory=dict)

    def changed(self, **changes: object) -> Submission:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Submission:
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in json.loads(data).items() if name in known})


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

    def submit(self, submission: Submission) -> None:
        self._store.write(self._path("open", submission.id), submission.to_json(), if_version="")

    def open(self) -> list[Entry]:
        """Runs that wait or are under way, oldest first."""
        return list(self._entries("open"))

    def ended(self) -> list[Entry]:
        return list(self._entries("ended"))

    def replace(self, entry: Entry, **changes: object) -> Entry:
        """Write a changed submission. Raises ``ConflictError`` if somebody else has changed it meanwhile."""
        submission = entry.submission.changed(renewed_at=now(), **changes)
        stored = self._store.write(self._path("open", submission.id), submission.to_json(), if_version=entry.version)
        return Entry(submission, stored.version)

    def end(self, entry: Entry, **changes: object) -> None:
        """Move a run that is over to those that have ended. Raises ``ConflictError`` if it is somebody else's now."""
        last = self.replace(entry, ended_at=now(), **changes).submission
        self._store.write(self._path("ended", last.id), last.to_json())
        self._store.delete(self._path("open", last.id))

    def is_free(self, entry: Entry) -> bool:
        """Whether the run may be claimed: it waits, or its agent has given no sign of life for too long."""
        path, version = entry.submission.id, entry.version
        before, since = self._seen.get(path, ("", 0.0))
        if before != version:
            since = time.monotonic()
            self._seen[path] = version, since
        return entry.submission.state == WAITING or time.monotonic() - since > LEASE

    @property
    def is_paused(self) -> bool:
        return self._store.stat(self._pause) is not None

    def pause(self) -> None:
        self._store.write(self._pause, f"{now()}\n".encode())

    def resume(self) -> None:
        self._store.delete(self._pause)

    def prune(self) -> None:
        """Forget runs that ended long ago."""
        oldest = (dt.datetime.now(dt.UTC) - dt.timedelta(days=KEEP)).strftime("%Y%m%dT%H%M%S")
        for path in self._store.list(f"{ROOT}/{self.name}/ended"):
            if path.rpartition("/")[2] < oldest:  # ids begin with their time
                self._store.delete(path)

    @property
    def _pause(self) -> str:
        return f"{ROOT}/{self.name}/paused"

    def _path(self, place: str, name: str) -> str:
        return f"{ROOT}/{self.name}/{place}/{name}.json"

    def _entries(self, place: str) -> Iterator[Entry]:
        for path, stored in self._store.list(f"{ROOT}/{self.name}/{place}").items():
            try:
                yield Entry(Submission.from_json(self._store.read(path)), stored.version)
            except FileNotFoundError:
                continue  # it ended while we looked
            except (ValueError, TypeError, AttributeError):
                LOGGER.warning("%s is no submission; remove it", self._store.uri(path))


def check_name(name: str) -> str:
    """Refuse what cannot be a folder in every store."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise UsageError(f"{name!r} cannot be the name of a queue; use letters, digits, dots and dashes")
    return name


def names() -> list[str]:
    """All queues of the workspace."""
    found = {path.split("/")[1] for path in open_store(settings.workspace_url()).list(ROOT)}
    return sorted(found)


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
