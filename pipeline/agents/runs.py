"""All known runs, submitted or not, one record each: from the journals on this host and from the queues.

A submitted run has an object in its queue, and a journal with the same id on its agent's host. If the workspace is a
bucket, the journals of other hosts are not visible.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LakeError, UsageError
from ..reporting import journal, journal_reader, outcomes
from ..reporting.outcomes import RunOutcome
from .queue import Queue, queue_names
from .records import CANCELLED, DONE, OPEN, RUNNING, WAITING, Submission, seconds_of

LOGGER = logging.getLogger("pipeline")

#: States beside the results of ``outcomes``: the processes of a run were killed, or nothing is known.
KILLED, UNKNOWN = "killed", "unknown"

#: States of runs that have not failed.
NOT_FAILED = (WAITING, RUNNING, CANCELLED, UNKNOWN, outcomes.STOPPED, outcomes.COMPLETE)


@dataclass
class Run:
    """One run: its journal, if that is on this host, and its submission, if it was submitted."""

    id: str
    journal: Path | None = None
    submission: Submission | None = None
    begun: Mapping[str, Any] = field(default_factory=dict)
    outcome: RunOutcome | None = None
    is_alive: bool = False
    heard: float | None = None
    cancelled_by: str = ""

    @property
    def order(self) -> tuple[bool, float]:
        """Sort key: the time of its start; waiting runs come last."""
        is_waiting = self.submission is not None and self.submission.state == WAITING
        if self.start is not None and not is_waiting:
            return False, self.start
        assert self.submission is not None or self.journal is not None
        return is_waiting, (seconds_of(self.submission.submitted_at) if self.submission else None) or time.time()

    @property
    def start(self) -> float | None:
        at = self.begun.get("at")
        if isinstance(at, int | float):
            return float(at)
        return seconds_of(self.submission.started_at) if self.submission else None

    @property
    def end(self) -> float | None:
        if self.is_alive or self.state in OPEN:
            return None
        if self.submission and self.submission.ended_at:
            return seconds_of(self.submission.ended_at)
        return self.outcome.end if self.outcome else None

    @property
    def seconds(self) -> float | None:
        if self.start is None or self.state == WAITING:
            return None
        end = time.time() if self.is_alive else self.end
        return None if end is None else max(0.0, end - self.start)

    @property
    def how(self) -> str:
        """How it was started."""
        if self.submission:
            return f"queue {self.submission.queue}"
        if self.begun.get("agent"):
            return "queue"
        match self.command:
            case ["python", "-m", "pipeline", "cron", *_]:
                return "cron"
            case ["luigi", *_] | ["python", "-m", "pipeline", *_]:
                return "by hand"
        return "luigi.build" if self.begun else ""  # from a notebook, or a script

    @property
    def state(self) -> str:
        """The result in one word, or waiting, running, killed, unknown."""
        one, outcome = self.submission, self.outcome
        if one and one.state in (*OPEN, CANCELLED):
            return one.state
        if self.is_alive:
            return RUNNING
        if one:
            result = outcomes.COMPLETE if one.state == DONE else one.result or one.state
        elif outcome is None:
            return UNKNOWN
        else:
            result = outcome.result
            if self.cancelled_by and result != outcomes.COMPLETE:
                return CANCELLED
        return KILLED if result == outcomes.CRASHED else result

    @property
    def command(self) -> list[str]:
        if self.submission:
            return ["luigi", "--module", "pipeline", *journal.without_addresses(self.submission.command)]
        return [str(word) for word in self.begun.get("command", ())]

    @property
    def log(self) -> str:
        """The log file; on the agent's host for a submitted run."""
        here = self.journal.with_suffix(".log") if self.journal else None
        return str(here) if here and here.exists() else self.submission.log if self.submission else ""

    @property
    def summary(self) -> str:
        if self.outcome:
            return self.outcome.in_one_line
        return self.submission.summary if self.submission else ""

    def read(self) -> None:
        """Read the outcome from the journal."""
        if self.journal is None:
            return
        self.is_alive = journal_reader.is_held(self.journal)
        try:
            self.heard = self.journal.stat().st_mtime
            self.outcome = outcomes.summarize(self._events(self.journal), self.is_alive)
        except Exception as error:  # written by another version or by another program
            LOGGER.warning("%s cannot be read: %s: %s", self.journal, type(error).__name__, error)

    def _events(self, path: Path) -> Iterator[Mapping[str, Any]]:
        for event in journal_reader.read(path):
            if event["event"] == "cancelled":
                self.cancelled_by = str(event.get("by", ""))
            yield event


def known_runs(queue: str | None = None) -> dict[str, Run]:
    """All runs by id; with ``queue`` those that were submitted to it."""
    found: dict[str, Run] = {}
    for name in [queue] if queue else queue_names():
        here = Queue(name)
        try:
            entries = (*here.open(), *here.ended())
        except LakeError as error:
            LOGGER.warning("queue %s: %s", name, error)
            continue
        for entry in entries:  # a run that was just moved is in both
            found[entry.submission.id] = Run(entry.submission.id, submission=entry.submission)
    for path in journal.files():
        if queue and path.stem not in found:
            continue
        run = found.get(path.stem) or Run(path.stem)
        try:
            run.begun = journal_reader.begun(path)
        except OSError as error:
            LOGGER.warning("%s cannot be read: %s", path, error.strerror)
            continue
        if run.begun or run.submission or journal_reader.is_held(path):
            run.journal = path
            found[run.id] = run
    return found


def named(text: str) -> Run:
    known = known_runs()
    near = [text] if text in known else [name for name in known if name.startswith(text)]
    if not near:
        raise UsageError(f"there is no run {text}; `python -m pipeline runs` lists them")
    if len(near) > 1:
        raise UsageError(f"{text} may be any of {', '.join(sorted(near)[:5])}; write more of the id")
    return known[near[0]]
