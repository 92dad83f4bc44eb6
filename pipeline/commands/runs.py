"""``python -m pipeline runs``: every run that left a journal here or was submitted; ``runs cancel`` stops one.

A run by hand, by cron or by ``luigi.build`` has a journal in ``journal.folder()``; a submitted one has an object in its
queue too. Both are one run with one id. Where the workspace is a bucket, the journals of other hosts are not seen.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import job
from ..agents.queue import Queue, queue_names
from ..agents.records import CANCELLED, DONE, OPEN, RUNNING, WAITING, Submission, seconds_since, user
from ..errors import LakeError, UsageError
from ..plain import one_line, plain
from ..reporting import journal, outcomes, tables
from ..reporting.console import answer, answer_json, say
from ..reporting.outcomes import RunOutcome
from ..reporting.tables import Column
from . import arguments

HELP = "every run: start, duration, how it was started, result; or cancel one"

LOGGER = logging.getLogger("pipeline")

#: States beside the results of ``outcomes``: a run whose processes are gone, and one that does not tell.
KILLED, UNKNOWN = "killed", "unknown"

#: States of runs that ``--failed`` leaves out.
NOT_FAILED = (WAITING, RUNNING, CANCELLED, UNKNOWN, outcomes.STOPPED, outcomes.COMPLETE)

#: Failed months of one run whose reasons are listed, and hosts that refuse it; characters of a line for people.
REASONS, LONGEST = 5, 2000

#: Id, start, duration, state, and how it was started.
COLUMNS = [Column(width=22), Column(width=20), Column(width=7, is_number=True), Column(width=9), Column(is_folded=True)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("cancel",), help="stop the run, or take it back if it waits")
    parser.add_argument("id", nargs="?", help="id of the run to cancel, or how it begins")
    parser.add_argument("--queue", **arguments.QUEUE, help="only runs submitted to this one; default: all runs")
    parser.add_argument("--last", type=arguments.whole(1), default=20, metavar="N", help="the newest N; default 20")
    parser.add_argument("--failed", action="store_true", help="only runs that did not end well")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """List the runs, or cancel one."""
    if args.action == "cancel":
        if not args.id:
            raise UsageError("runs cancel takes the id of a run, such as: runs cancel 20210401T050000-3fa2c1")
        return _cancel(args.id)
    known = sorted(_known(args.queue).values(), key=lambda run: run.order)
    found = known if args.failed else known[-args.last :]
    for run in found:
        run.read()
    if args.failed:
        known = [run for run in known if run.state not in NOT_FAILED]
        found = known[-args.last :]
    if args.json:
        answer_json([run.as_json() for run in found])
        return 0
    for run in found:
        tables.show(COLUMNS, [[_shown(cell) for cell in run.row()]])
        for line in run.lines():
            answer(f"    {_shown(line)}")
    counted = f"{len(found):,} of {len(known):,}" if len(found) < len(known) else f"{len(known):,}"
    what = ("failed " if args.failed else "") + ("run" if len(known) == 1 else "runs")
    answer("; ".join([f"{counted} {what}", *_remarks(len(known) - len(found))]))
    return 0


def _remarks(left: int) -> Iterator[str]:
    if left:
        yield "--last N shows more"
    if not job.workspace_url().startswith("file:"):
        yield f"of this host ({socket.gethostname()}) and submitted ones"
    paused = [name for name in queue_names() if Queue(name).is_paused]
    if paused:
        yield f"paused: {', '.join(paused)}"


@dataclass
class Run:
    """One run: its journal, if that is here, and its submission, if it was submitted."""

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
        """The time of its start; what waits comes last."""
        is_waiting = self.submission is not None and self.submission.state == WAITING
        if self.start is not None and not is_waiting:
            return False, self.start
        assert self.submission is not None or self.journal is not None
        return is_waiting, time.time() - (seconds_since(self.submission.submitted_at) if self.submission else 0)

    @property
    def start(self) -> float | None:
        at = self.begun.get("at")
        if isinstance(at, int | float):
            return float(at)
        return _seconds(self.submission.started_at) if self.submission else None

    @property
    def end(self) -> float | None:
        if self.is_alive or self.state in OPEN:
            return None
        if self.submission and self.submission.ended_at:
            return _seconds(self.submission.ended_at)
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
        """The result in one word, or that it waits, runs, or was killed."""
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
        """Find out what became of it."""
        if self.journal is None:
            return
        self.is_alive = journal.is_held(self.journal)
        try:
            self.heard = self.journal.stat().st_mtime
            self.outcome = outcomes.summarize(self._events(self.journal), self.is_alive)
        except Exception as error:  # of another version, or written by somebody else
            LOGGER.warning("%s cannot be read: %s: %s", self.journal, type(error).__name__, error)

    def _events(self, path: Path) -> Iterator[Mapping[str, Any]]:
        for event in journal.read(path):
            if event["event"] == "cancelled":
                self.cancelled_by = str(event.get("by", ""))
            yield event

    def as_json(self) -> dict[str, Any]:
        one, outcome = self.submission, self.outcome
        return {
            "id": self.id,
            "how": self.how,
            "state": self.state,
            "started_at": _utc(self.start),
            "ended_at": _utc(self.end),
            "heard_at": _utc(self.heard),
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "command": shlex.join(self.command),
            "host": str(self.begun.get("host", "")),
            "exit_code": one.exit_code if one else outcome.exit_code if outcome else None,
            "failure": outcome.failure if outcome else "",
            "summary": self.summary,
            "loaded": [month.title for month in outcome.new if month.loaded is not None] if outcome else [],
            "in_lake": [month.title for month in outcome.new if month.loaded is None] if outcome else [],
            "failed": {month.title: month.why for month in outcome.failures} if outcome else {},
            "missing": [month.title for month in outcome.having(outcomes.MISSING)] if outcome else [],
            "rows": outcome.total("rows") if outcome else None,
            "rejected": outcome.total("rejected") if outcome else None,
            "cancelled_by": one.cancelled_by if one else self.cancelled_by,
            "log": self.log,
            "journal": str(self.journal or ""),
            "queue": one.queue if one else "",
            "submitter": one.submitter if one else "",
            "submitted_at": one.submitted_at if one else None,
            "agent": one.agent if one else "",
            "attempts": one.attempts if one else 1,
            "message": one.message if one else "",
            "refusals": one.refusals if one else {},
        }

    def row(self) -> list[str]:
        """The row of the table, which fits into 80 columns."""
        start = _local(self.start) if self.state != WAITING else "not yet"
        took = "" if self.seconds is None else str(dt.timedelta(seconds=int(self.seconds)))
        return [self.id, start, took, self.state, self.how]

    def lines(self) -> Iterator[str]:
        """What there is to say below the row."""
        if self.summary:
            yield self.summary
        if self.command:
            yield shlex.join(self.command)
        if self.submission:
            yield from self._about_submission(self.submission)
        if self.state == KILLED and self.heard is not None:
            yield f"last heard of {_local(self.heard)}"
        if self.is_alive and (by := self.cancelled_by):
            yield f"{by} has told it to stop"
        if self.outcome and self.state not in NOT_FAILED:
            if self.outcome.failure:
                yield one_line(self.outcome.failure)
            failed = self.outcome.failures
            yield from (f"{month.title}: {one_line(month.why)}" for month in failed[:REASONS])
            if len(failed) > REASONS:
                yield f"... and {len(failed) - REASONS:,} more"
        if self.log and self.state not in (WAITING, outcomes.COMPLETE):
            yield f"log {self.log}"

    def _about_submission(self, one: Submission) -> Iterator[str]:
        submitted = _local(_seconds(one.submitted_at))
        yield f"submitted by {one.submitter} {submitted}{f', agent {one.agent}' if one.agent else ''}".rstrip()
        if one.message:
            yield one_line(one.message)
        if one.state == RUNNING and one.cancelled_by:
            yield f"{one.cancelled_by} has told its agent to stop it"
        if one.state == WAITING:
            refusals = list(one.refusals.items())
            yield from (f"refused by {host}: {one_line(why)}" for host, why in refusals[:REASONS])
            if len(refusals) > REASONS:
                yield f"... and by {len(refusals) - REASONS:,} more"


def _shown(line: str) -> str:
    """A line as it is printed; somebody may have written a million characters into a queue file."""
    return plain(line if len(line) <= LONGEST else f"{line[:LONGEST]}...")


def _known(queue: str | None = None) -> dict[str, Run]:
    """All runs by id; with ``queue`` those that were submitted to it."""
    found: dict[str, Run] = {}
    for name in [queue] if queue else queue_names():
        here = Queue(name)
        try:
            entries = (*here.open(), *here.ended())
        except LakeError as error:
            LOGGER.warning("queue %s: %s", name, error)
            continue
        for entry in entries:  # what was just moved is in both
            found[entry.submission.id] = Run(entry.submission.id, submission=entry.submission)
    for path in journal.files():
        if queue and path.stem not in found:
            continue
        run = found.get(path.stem) or Run(path.stem)
        try:
            run.begun = journal.begun(path)
        except OSError as error:
            LOGGER.warning("%s cannot be read: %s", path, error.strerror)
            continue
        if run.begun or run.submission or journal.is_held(path):
            run.journal = path
            found[run.id] = run
    return found


# -- runs cancel -----------------------------------------------------------------------------------


def _cancel(text: str) -> int:
    """Cancel the run of that id, or of the only one that begins so. Returns 1 if there is nothing to stop here."""
    run = _named(text)
    if run.submission and run.submission.state in OPEN:
        last = Queue(run.submission.queue).cancel(run.id, user())
        if last is None:
            return _not_cancelled(f"run {run.id} has ended")
        when = "within a few seconds" if run.submission.cancelled_by else _when("")
        agent = f"; its agent {last.agent} stops it {when}" if last.state == RUNNING else ""
        answer(f"run {run.id} is cancelled{agent}")
        return 0
    if run.journal is None or not journal.is_held(run.journal):
        return _not_cancelled(f"run {run.id} has ended")
    host, pid = run.begun.get("host"), run.begun.get("pid")
    if host != socket.gethostname():
        return _not_cancelled(f"run {run.id} is under way on {host}; there: python -m pipeline runs cancel {run.id}")
    if not isinstance(pid, int) or not _has_open(pid, run.journal):
        if not journal.is_held(run.journal):
            return _not_cancelled(f"run {run.id} has ended")
        return _not_cancelled(f"run {run.id} is under way, but not in process {pid}, which began it; end it by hand")
    run.read()
    journal.append(run.journal, "cancelled", by=user())
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        return _not_cancelled(f"run {run.id} is process {pid} of another user, who alone may stop it")
    except ProcessLookupError:
        return _not_cancelled(f"run {run.id} has ended")
    answer(f"run {run.id} is cancelled; process {pid} ends {_when(run.cancelled_by)}")
    return 0


def _when(cancelled_by: str) -> str:
    return "at once" if cancelled_by else "after the stages that are running"


def _not_cancelled(why: str) -> int:
    say(f"error: {why}", error=True)
    return 1


def _named(text: str) -> Run:
    known = _known()
    near = [text] if text in known else [name for name in known if name.startswith(text)]
    if not near:
        raise UsageError(f"there is no run {text}; `python -m pipeline runs` lists them")
    if len(near) > 1:
        raise UsageError(f"{text} may be any of {', '.join(sorted(near)[:5])}; write more of the id")
    return known[near[0]]


def _has_open(pid: int, file: Path) -> bool:
    """Whether a process has the file open. Its number alone may be that of another process by now."""
    if Path("/proc/self/fd").is_dir():
        try:
            return any(_is_same(descriptor, file) for descriptor in Path(f"/proc/{pid}/fd").iterdir())
        except PermissionError:
            return True  # another user's: the signal will tell
        except OSError:
            return False
    try:
        found = subprocess.run(["lsof", "-t", "--", str(file)], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return str(pid) in found.stdout.split()


def _is_same(descriptor: Path, file: Path) -> bool:
    try:
        return descriptor.samefile(file)
    except OSError:
        return False  # closed meanwhile


# -- words -----------------------------------------------------------------------------------------


def _seconds(moment: str) -> float | None:
    """Seconds since 1970 of a time as queues have it."""
    return time.time() - seconds_since(moment) if moment else None


def _local(seconds: float | None) -> str:
    try:
        return "" if seconds is None else f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M %Z}"
    except (ValueError, OverflowError, OSError):
        return "?"


def _utc(seconds: float | None) -> str | None:
    try:
        return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
