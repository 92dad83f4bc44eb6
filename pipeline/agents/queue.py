"""Named queues of submitted runs: one small JSON object per run, in the workspace that submitters and agents share.

    queues/<queue>/open/<run id>.json          waiting or running
    queues/<queue>/ended/<run id>.json         done, failed or cancelled
    queues/<queue>/agents/<host>-<pid>.json    an agent that serves the queue
    queues/<queue>/paused                      while no agent may claim a run
    queues/<queue>/set-aside/<name>            invalid files that an agent has moved

An object is replaced only with its current version as a precondition, so exactly one of several agents claims a run.
The object of a running one is rewritten every ``RENEW`` seconds. An agent that has seen it unchanged for ``LEASE``
seconds by its own clock takes it over, so the clocks of hosts need not agree.

Everybody who can write to the workspace can write these files, so they are untrusted: at most ``LIMIT`` bytes are read,
no link is followed, and every field must have its type. An agent moves invalid files away; they do not affect other
runs. Only the owner, or the group that shares the workspace, can read the files of a local workspace.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from .. import job
from ..errors import ConflictError, LakeError, UsageError
from ..reporting import journal
from ..reporting.journal import is_run_id
from ..storage import Store, StoredObject, StoreOptions, open_store
from . import records
from .records import AgentRecord, Submission

LOGGER = logging.getLogger("pipeline")

ROOT = "queues"

#: Days for which ended runs are kept.
KEEP = 90

#: Submissions that are read concurrently.
CONCURRENT = 16

SUBMISSION, AGENT = "submission", "record of an agent"

#: Seconds without a heartbeat after which the record of an agent is removed.
AGENT_KEEP = 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    """A submission as it was read; ``version`` is the store's."""

    submission: Submission
    version: str


class Queue:
    """One queue. Every method makes one or a few requests to the store, and raises its errors."""

    def __init__(self, name: str, store: Store | None = None, sets_aside: bool = False) -> None:
        """``sets_aside``: move invalid files away, as an agent does, instead of only logging them."""
        self.name = records.check_queue(name)
        self._store = store or _workspace()
        self._sets_aside = sets_aside
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
        """Waiting and running runs, in the order in which they were submitted."""
        return sorted(
            self._entries("open"),
            key=lambda entry: (records.seconds_of(entry.submission.submitted_at) or 0.0, entry.submission.id),
        )

    def ended(self) -> list[Entry]:
        return self._entries("ended")

    def find(self, name: str) -> Entry | None:
        """The current entry of a run; None if it has ended."""
        stored = self._store.stat(self._path("open", name)) if is_run_id(name) else None
        return self._entry(stored) if stored else None

    def replace(self, entry: Entry, **changes: object) -> Entry:
        """Write a changed submission. Raises ``ConflictError`` if another process has changed it meanwhile."""
        submission = entry.submission.changed(renewed_at=records.now(), **changes)
        stored = self._store.write(self._path("open", submission.id), submission.to_json(), if_version=entry.version)
        return Entry(submission, stored.version)

    def end(self, entry: Entry, **changes: object) -> Submission:
        """Move a run to the ended ones. Raises ``ConflictError`` if another process has changed it meanwhile."""
        last = self.replace(entry, ended_at=entry.submission.ended_at or records.now(), **changes).submission
        path = self._path("ended", last.id)
        try:
            self._store.write(path, last.to_json())
        except LakeError:  # if a folder has that name, it is moved; any other error is raised again
            self._store.move(path, self._free_place(path))
            self._store.write(path, last.to_json())
        self._store.delete(self._path("open", last.id))
        return last

    def set_aside(self, entry: Entry, why: str) -> None:
        """Move a run with a command that no agent may execute out of the queue."""
        path = self._path("open", entry.submission.id)
        self._odd_one(StoredObject(path, 0, entry.version), SUBMISSION, why)

    def aside(self) -> tuple[int, str]:
        """The number of files that were set aside, and their folder."""
        folder = self._folder("set-aside")
        return len(self._store.files(folder)), self._store.uri(folder)

    def cancel(self, name: str, by: str) -> Submission | None:
        """Cancel a run: at once if it waits or its agent is silent, else by a request to its agent.

        Returns the submission after that; None if the run has ended meanwhile.
        """
        while entry := self.find(name):
            submission = entry.submission
            try:
                if submission.state not in records.OPEN:
                    self.end(entry)  # the process that ended it was killed before it moved the file
                    return None
                if submission.state == records.RUNNING and records.seconds_since(submission.renewed_at) < records.LEASE:
                    return self.replace(entry, cancelled_by=by).submission
                return self.end(entry, state=records.CANCELLED, cancelled_by=by, message=f"cancelled by {by}")
            except ConflictError:
                continue  # an agent has claimed it, or renewed its claim
        return None

    def is_free(self, entry: Entry) -> bool:
        """Whether the run may be claimed: it waits, or its agent has not renewed its lease for too long."""
        name, version = entry.submission.id, entry.version
        before, since = self._seen.get(name, ("", 0.0))
        if before != version:
            since = time.monotonic()
            self._seen[name] = version, since
        return entry.submission.state == records.WAITING or time.monotonic() - since > records.LEASE

    # -- agents ------------------------------------------------------------------------------------

    def agents(self) -> list[AgentRecord]:
        """Agents that serve this queue, including those that were killed."""
        found = []
        for name, stored in self._store.files(self._folder("agents")).items():
            with self._reading(stored, AGENT):
                if not is_run_id(name):
                    raise ValueError("its name is not that of an agent")
                agent = AgentRecord.from_json(self._store.read_small(stored.path, records.LIMIT))
                if name != f"{records.file_of_agent(agent.name)}.json":
                    raise ValueError("its name is another one")
                found.append(agent)
        return found

    def register(self, agent: AgentRecord) -> None:
        """Record that an agent serves this queue, and which run it executes."""
        self._store.write(
            self._path("agents", records.file_of_agent(agent.name)), json.dumps(dataclasses.asdict(agent)).encode()
        )

    def leave(self, name: str) -> None:
        """Remove the record of an agent."""
        self._store.delete(self._path("agents", records.file_of_agent(name)))

    # -- the queue as a whole ----------------------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        return self._store.stat(self._pause) is not None

    def pause(self) -> None:
        self._store.write(self._pause, f"{records.now()}\n".encode())

    def resume(self) -> None:
        self._store.delete(self._pause)

    def prune(self) -> None:
        """Remove runs that ended long ago, and records of killed agents."""
        oldest = (dt.datetime.now(dt.UTC) - dt.timedelta(days=KEEP)).strftime("%Y%m%dT%H%M%S")
        for name, stored in self._store.files(self._folder("ended")).items():
            if is_run_id(name) and re.match(r"\d{8}T\d{6}-", name):  # generated ids begin with their time
                is_old = name < oldest
            else:
                entry = self._entry(stored)
                is_old = entry is not None and records.seconds_since(entry.submission.ended_at) > KEEP * 86400
            if is_old:
                self._store.delete(stored.path)
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
        found = self._store.files(self._folder(place)).values()
        with ThreadPoolExecutor(CONCURRENT) as pool:  # a bucket is slow for each
            entries = list(pool.map(self._entry, found))
        return [entry for entry in entries if entry]

    def _entry(self, stored: StoredObject) -> Entry | None:
        """The submission in a file; None for a file that was removed meanwhile or is invalid."""
        name = stored.path.rpartition("/")[2].removesuffix(".json")
        with self._reading(stored, SUBMISSION):
            if not stored.path.endswith(".json") or not is_run_id(name):
                raise ValueError("its name is no id of a run")
            submission = Submission.from_json(self._store.read_small(stored.path, records.LIMIT))
            if (submission.id, submission.queue) != (name, self.name):
                raise ValueError("it has the id or the queue of another one")
            return Entry(submission, stored.version)
        return None

    @contextmanager
    def _reading(self, stored: StoredObject, what: str) -> Iterator[None]:
        """End the block where a file was removed meanwhile, or is invalid or unreadable, which is logged once."""
        try:
            yield
        except FileNotFoundError:
            pass
        except ValueError as error:
            self._odd_one(stored, what, str(error))
        except LakeError as error:  # it is not moved: another user's agent may read it
            if self._is_first_seen(stored):
                LOGGER.warning("%s; users who share a workspace make it a folder of their group with chmod g+ws", error)

    def _is_first_seen(self, stored: StoredObject) -> bool:
        """Whether nothing was logged of this file yet: agents poll every few seconds."""
        version = stored.path, stored.version
        is_first = version not in self._odd
        self._odd.add(version)
        return is_first

    def _odd_one(self, stored: StoredObject, what: str, why: str) -> None:
        """Log an invalid file, once. An agent moves it away."""
        if not self._is_first_seen(stored):
            return
        where = self._store.uri(stored.path)
        if self._sets_aside:
            place = self._free_place(stored.path)
            try:
                self._store.move(stored.path, place)
            except LakeError as error:
                why = f"{why}; it cannot be moved: {error}"
            else:
                LOGGER.warning("%s is no %s and lies in %s now: %s", where, what, self._store.uri(place), why)
                return
        LOGGER.warning("%s is no %s; remove it: %s", where, what, why)

    def _free_place(self, path: str) -> str:
        """The path for a file that is set aside: its own name if that is valid and free, or else one with a suffix.

        Files are read concurrently, and two names may become the same when invalid characters are replaced.
        """
        own = path.rpartition("/")[2]
        name = re.sub(r"[^\w.-]", "_", own, flags=re.ASCII)[:150].lstrip(".-") or "odd"
        place = f"{self._folder('set-aside')}/{name}"
        is_free = name == own and self._store.stat(place) is None
        return place if is_free else f"{place}.{secrets.token_hex(4)}"


def _workspace() -> Store:
    return open_store(job.workspace_url(), StoreOptions(follows_links=False, is_private=True))


def queue_names() -> list[str]:
    """All queues of the workspace: those with a run, an agent or a pause."""
    store = _workspace()

    def is_in_use(folder: str) -> bool:
        return bool(set(store.folders(folder)) - {"set-aside"}) or "paused" in store.files(folder)

    return [name for name in store.folders(ROOT) if records.is_queue(name) and is_in_use(f"{ROOT}/{name}")]
