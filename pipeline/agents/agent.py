"""An agent: takes submitted runs from a queue and executes them, one at a time.

Each run is a ``luigi`` process with the run id of the submission. An agent refuses a run whose effective settings are
different on its host, and sets aside a command that ``request`` does not allow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shlex
import signal
import socket
import threading
from functools import partial
from types import FrameType

from .. import job
from ..errors import ConflictError, LakeError, PipelineError, TransientError, UsageError
from ..reporting import journal, journal_reader, outcomes
from ..reporting.console import say
from ..reporting.outcomes import RunOutcome
from ..runner import child, signals
from . import request
from .effective_settings import difference
from .queue import Entry, Queue
from .records import CANCELLED, DONE, FAILED, OPEN, RENEW, RUNNING, WAITING, AgentRecord, now, this_agent

LOGGER = logging.getLogger("pipeline")

#: Times that a run is started whose agent dies or whose process a signal ends, as on a host with too little memory.
ATTEMPTS = 3


def _outcome(run: str) -> RunOutcome | None:
    """The outcome in the run's journal; None if there is none, or if it cannot be read."""
    with contextlib.suppress(OSError):
        return outcomes.summarize(journal_reader.read(journal.folder() / f"{run}.jsonl"), is_alive=False)
    return None


class _Heartbeat:
    """Registers the agent with its queue every ``RENEW`` seconds, with the run that it executes."""

    def __init__(self, queue: str, agent: str) -> None:
        self._queue = Queue(queue)
        self._record = AgentRecord(agent, since=now(), heard_at=now())
        self._news = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._tell, name="heartbeat", daemon=True)

    def __enter__(self) -> _Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._news.set()
        self._thread.join(RENEW)  # no longer for a store that does not answer

    def work_on(self, run: str) -> None:
        """Register the run that the agent executes; empty for none."""
        self._record = dataclasses.replace(self._record, run=run)
        self._news.set()

    def _tell(self) -> None:
        while not self._over:
            self._news.clear()
            with contextlib.suppress(PipelineError):  # claiming a run meets the same error, and logs it
                self._queue.register(dataclasses.replace(self._record, heard_at=now()))
            self._news.wait(RENEW)
        with contextlib.suppress(PipelineError):
            self._queue.leave(self._record.name)


class Agent:
    """One agent: one run at a time, with ``workers`` tasks at once."""

    def __init__(self, queue: str, workers: int, scheduler_url: str | None, poll: float, drain: bool) -> None:
        self.name = this_agent()
        self._queue = Queue(queue, sets_aside=True)
        self._options = ["--workers", str(workers)]
        self._options += ["--scheduler-url", scheduler_url] if scheduler_url else ["--local-scheduler"]
        self._poll, self._drain = poll, drain
        self._stopping = threading.Event()
        self._luigi: child.Luigi | None = None
        self._said: set[str] = set()

    def serve(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        LOGGER.info("agent %s takes from queue %s of %s", self.name, self._queue.name, job.workspace_url())
        with _Heartbeat(self._queue.name, self.name) as heartbeat:
            while not self._stopping.is_set():
                try:
                    entry, are_some = self._claim()
                except TransientError as error:
                    LOGGER.warning("%s", error)
                    entry, are_some = None, True
                if entry is not None:
                    heartbeat.work_on(entry.submission.id)
                    self._run(entry)
                    heartbeat.work_on("")
                elif self._drain and not are_some:
                    break
                else:
                    self._stopping.wait(self._poll)
        LOGGER.info("agent %s ends", self.name)
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """At the first signal finish the running tasks and hand back the rest; at the second end at once."""
        self._stop_luigi(signal.SIGKILL if self._stopping.is_set() else signal.SIGUSR1)
        self._stopping.set()

    def _stop_luigi(self, number: signal.Signals) -> None:
        if self._luigi is not None:
            self._luigi.send(number)

    def _claim(self) -> tuple[Entry | None, bool]:
        """Claim the oldest free run with the same settings here; also return whether others may become free."""
        if self._queue.is_paused:
            return None, False
        are_some = False
        for entry in self._queue.open():
            try:
                why = difference(entry.submission)
            except UsageError as error:
                self._queue.set_aside(entry, str(error))
                continue
            if not self._queue.is_free(entry):
                are_some = True
                continue
            try:
                if claimed := self._claim_one(entry, why):
                    return claimed, True
            except ConflictError:  # another agent was faster
                continue
            except LakeError as error:  # its path is a folder, or similar
                if (text := str(error)) not in self._said:
                    self._said.add(text)
                    LOGGER.warning("run %s: %s", entry.submission.id, text)
        return None, are_some

    def _claim_one(self, entry: Entry, why: str = "") -> Entry | None:
        """Claim a free run. None if it is over, or if this host refuses it, and ``why``."""
        submission = entry.submission
        if submission.state not in OPEN:  # the process that ended it was killed before it moved the file
            self._queue.end(entry)
            return None
        if submission.cancelled_by:
            self._queue.end(entry, state=CANCELLED, message=f"cancelled by {submission.cancelled_by}")
            return None
        if why:
            host = socket.gethostname()
            if submission.refusals.get(host) != why:
                LOGGER.warning("run %s is refused: %s", submission.id, why)
                self._queue.replace(entry, refusals={**submission.refusals, host: why})
            return None
        if submission.state == RUNNING and submission.attempts >= ATTEMPTS:
            self._queue.end(entry, state=FAILED, message=f"given up: {ATTEMPTS} agents died while running it")
            return None
        return self._queue.replace(
            entry,
            state=RUNNING,
            agent=self.name,
            attempts=submission.attempts + 1,
            started_at=now(),
            log=str(journal.folder() / f"{submission.id}.log"),
            message="",
        )

    def _run(self, entry: Entry) -> None:
        submission = entry.submission
        shown = shlex.join(journal.without_addresses(submission.command))
        LOGGER.info("run %s of %s: luigi %s", submission.id, submission.submitter, shown)
        try:
            code, entry = self._run_luigi(entry)
        except OSError as error:
            self._settle(entry, FAILED, message=f"luigi could not be started: {error}")
            return
        last_words, self._luigi = self._luigi.last_words if self._luigi else "", None
        if code is None:
            LOGGER.warning("run %s was taken over by another agent, or cancelled", submission.id)
            return
        how = child.how_ended(code) if code < 0 else "stopped"
        if code == 0:
            self._settle(entry, DONE, exit_code=0, message="")
        elif by := entry.submission.cancelled_by:
            self._settle(entry, CANCELLED, exit_code=code, message=f"cancelled by {by}")
        elif self._stopping.is_set() or (code < 0 and submission.attempts < ATTEMPTS):
            attempts = submission.attempts - (code >= 0)  # handing back is no failure
            self._settle(entry, WAITING, agent="", attempts=attempts, message=f"{how} at {self.name}; waits again")
        else:
            outcome = _outcome(submission.id)
            why = how if code < 0 else (outcome.why if outcome else "") or last_words
            self._settle(entry, FAILED, exit_code=code, message=why)
        LOGGER.info("run %s: exit code %d", submission.id, code)

    def _settle(self, entry: Entry, state: str, **changes: object) -> None:
        """Write the outcome of our run to the queue."""
        put = self._queue.replace if state in OPEN else self._queue.end
        if state not in OPEN and (outcome := _outcome(entry.submission.id)):
            changes |= {"result": outcome.result, "summary": outcome.in_one_line}
        try:
            try:
                put(entry, state=state, **changes)
            except ConflictError:
                if (ours := self._still_ours(entry)) is None:
                    raise
                put(ours, state=state, **changes)
            self._queue.prune()
        except (TransientError, LakeError) as error:
            LOGGER.warning("run %s: %s", entry.submission.id, error)

    def _still_ours(self, entry: Entry) -> Entry | None:
        """Our run after somebody has written a request to cancel it; None if it is no longer ours."""
        found = self._queue.find(entry.submission.id)
        is_ours = found and (found.submission.state, found.submission.agent) == (RUNNING, self.name)
        return found if is_ours else None

    def _run_luigi(self, entry: Entry) -> tuple[int | None, Entry]:
        """Run the command and renew the lease meanwhile. Returns its exit code, None if the run is no longer ours."""
        submission = entry.submission
        words = request.read(submission.command).words
        environment = {name: value for name, value in os.environ.items() if name != journal.BEGUN}
        environment |= {journal.RUN_ID: submission.id, journal.AGENT: self.name, signals.PARENT: str(os.getpid())}
        self._luigi = child.Luigi([*words, *self._options], environment, partial(say, keep="\t"))
        while (code := self._luigi.wait(RENEW)) is None:
            try:
                renewed = self._renew(entry)
            except (TransientError, LakeError) as error:
                LOGGER.warning("%s", error)  # an agent that takes it over finds its months locked, and then done
                continue
            if renewed is None:
                self._luigi.kill()
                return None, entry
            entry = renewed
        return code, entry

    def _renew(self, entry: Entry) -> Entry | None:
        """Renew the lease of our run, and stop it if it was cancelled. None if it is no longer ours."""
        try:
            return self._queue.replace(entry)
        except ConflictError:
            ours = self._still_ours(entry)
            if ours is not None:
                LOGGER.warning("run %s is cancelled by %s", entry.submission.id, ours.submission.cancelled_by)
                self._stop_luigi(signal.SIGKILL if entry.submission.cancelled_by else signal.SIGUSR1)  # told twice
            return ours
