"""Progress of a stage: how far it is, for the run's journal, the log and luigid's page."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import luigi
from luigi.rpc import RPCError

from .. import waiting
from ..partition import Partition
from . import journal, journal_reader, logs

#: Seconds between two lines of the log about how far a stage is.
LOG_INTERVAL = 60.0

#: Seconds between two reports of one stage, and before the first one to luigid: each report is a request.
INTERVAL = 0.5

#: luigid is told nothing for this many times as long as it took to find out that it does not answer.
SILENT = 10

#: Until when luigid is told nothing, as ``time.monotonic`` counts; of this process, whichever stage found it silent.
_silent_until = 0.0

LOGGER = logging.getLogger("pipeline")


@dataclass(frozen=True)
class StageRecord:
    """A stage as it is reported: ``task`` is Luigi's id, ``name`` such as Load, ``title`` such as Load green 2020-03.

    ``tell`` passes a value on to luigid, see the function of that name.
    """

    task: str
    name: str
    title: str
    partition: Partition
    warehouse: str | None = None
    tell: Callable[[str, object], None] = lambda what, value: None


class StageProgress(waiting.Listener):
    """Progress of one stage: the stage calls it with what is done, and it reports that at most twice a second."""

    def __init__(self, stage: StageRecord) -> None:
        self._stage = stage
        self.title = stage.title
        self._begun = self._has_lock_since = time.monotonic()
        self._next = 0.0
        self._said = self._begun
        self._is_linked = False
        #: Whether a wait of the stage was reported.
        self.has_waited = False
        self._about = {
            "task": stage.task,
            "stage": stage.name,
            "dataset": stage.partition.dataset,
            "month": stage.partition.month_text,
            "warehouse": stage.warehouse,
        }

    def _record(self, state: str, **details: Any) -> None:
        journal.record("stage", state=state, **details, **self._about)

    def has_lock(self) -> None:
        """The stage has its lock: its seconds are counted from now."""
        self._has_lock_since = time.monotonic()

    def _seconds(self) -> float:
        return time.monotonic() - self._has_lock_since

    def started(self) -> None:
        self._record("started")

    def __call__(self, done: int, total: int, unit: str = "rows", note: str = "") -> None:
        """``done`` of ``total`` units; a total of 0 means unknown. Cheap: most calls do nothing."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        self._record("running", done=done, total=total, unit=unit, note=note)
        if now < self._begun + INTERVAL:
            return
        self._link_to_log()
        message = f"{done:,} of {total:,} {unit}{note}" if total else f"{done:,} {unit}{note}"
        self._stage.tell("status_message", message)
        if now >= self._said + LOG_INTERVAL:
            self._said = now
            LOGGER.info("%s: %s so far", self.title, message)
        if total:
            self._stage.tell("progress_percentage", min(100, done * 100 // total))

    def waiting(self, text: str) -> None:
        """The stage waits: ``text`` is such as ``waits for python (PID 12), which holds ...``. Empty when it goes on.

        Said at once. Locks are waited for with ``waiting.Wait``, which calls this after the first seconds.
        """
        self._record("waiting", note=text)
        if text:
            self.has_waited = True
            LOGGER.warning("%s %s", self.title, text)
            self._stage.tell("status_message", text)

    def gave_up(self, what: str, whom: str) -> None:
        journal.record("waited in vain", what=what, whom=whom, task=self._stage.task)

    def has_given_up(self, what: str, whom: str) -> bool:
        return any(
            whom == event.get("whom") or event.get("task") == self._stage.task for event in _waited_in_vain(what)
        )

    def times_failed(self, error: BaseException) -> int:
        """How often the stage has failed in this run by an error of this class."""
        return sum(
            (event.get("state"), event.get("task"), event.get("error"))
            == ("failed", self._stage.task, type(error).__name__)
            for event in _events("stage")
        )

    def link(self, url: str) -> None:
        """Set the link on luigid's page: to what the stage made, or to the page of the job that makes it."""
        self._is_linked = True
        self._stage.tell("tracking_url", url)

    def _link_to_log(self) -> None:
        """The run's log, unless there is something better to look at."""
        if not self._is_linked and logs.path().exists():
            self.link(logs.path().as_uri())

    def found(self, made_at: dt.datetime | None) -> None:
        """The output was there already when the stage's turn came, made at that time, UTC, if anybody has noted it."""
        since = made_at.replace(tzinfo=made_at.tzinfo or dt.UTC).timestamp() if made_at else None
        self._record("found", since=since)

    def done(self, details: dict[str, Any], seconds: float | None = None) -> None:
        seconds = self._seconds() if seconds is None else seconds
        self._record("done", seconds=seconds, **details)
        shown = ", ".join(
            f"{value:,} {name.replace('_', ' ')}" for name, value in details.items() if isinstance(value, int)
        )
        self._link_to_log()
        shown = shown or str(details.get("outcome", "done"))
        self._stage.tell("status_message", summary(details) or shown)
        self._stage.tell("progress_percentage", 100)
        LOGGER.info("%s: %s, %.1f s", self.title, shown, seconds)

    def postponed(self, error: BaseException) -> None:
        """An earlier stage has to be done again before this one."""
        self._record("waiting", note=str(error))

    def failed(self, error: BaseException) -> None:
        self._link_to_log()
        self._record("failed", seconds=self._seconds(), error=type(error).__name__, message=str(error))


class RunProgress(waiting.Listener):
    """Reports what a run waits for as a whole, such as for a warehouse's ledger while it is planned."""

    def waiting(self, text: str) -> None:
        if not journal.is_mine():
            return super().waiting(text)
        journal.record("waiting", text=text)
        if text:
            LOGGER.warning("this run %s", text)

    def gave_up(self, what: str, whom: str) -> None:
        if journal.is_mine():
            journal.record("waited in vain", what=what, whom=whom, task=None)

    def has_given_up(self, what: str, whom: str) -> bool:
        return journal.is_mine() and any(whom == event.get("whom") for event in _waited_in_vain(what))


def _waited_in_vain(what: str) -> list[dict[str, Any]]:
    return [event for event in _events("waited in vain") if event.get("what") == what]


def _events(kind: str) -> list[dict[str, Any]]:
    """The events of one kind in this run's journal."""
    try:
        return [event for event in journal_reader.read(journal.path()) if event["event"] == kind]
    except OSError:  # none was written yet
        return []


def tell(task: luigi.Task, what: str, value: object) -> None:
    """Tell luigid, if there is one and it answers: a stage never waits for it.

    ``what`` is one of Luigi's status_message, progress_percentage and tracking_url.
    """
    global _silent_until
    method = getattr(task, f"set_{what}", None)  # set by Luigi while the task runs
    began = time.monotonic()
    if method and began >= _silent_until:
        try:
            method(value)
        except RPCError:
            now = time.monotonic()
            _silent_until = now + SILENT * (now - began)


def summary(details: dict[str, Any]) -> str:
    """``412,331 of 1,369,765 rows, 1,973 rejected: zero_passengers``; empty where no rows were counted."""
    if not isinstance(details.get("rows_read"), int):
        return ""
    rejected = details.get("rows_rejected") or {}
    rows = details.get("rows", details["rows_read"] - sum(rejected.values()))
    return f"{rows:,} of {details['rows_read']:,} rows{rejects(rejected)}"


def rejects(counts: Mapping[str, int]) -> str:
    """``, 1,973 rejected: zero_passengers``, the most frequent reasons first; empty if there are none."""
    if not counts:
        return ""
    reasons = ", ".join(sorted(counts, key=lambda reason: -counts[reason]))
    return f", {sum(counts.values()):,} rejected: {reasons}"
