"""``python -m pipeline runs``: list every run that left a journal here or was submitted; ``runs cancel`` stops one."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import job
from ..agents.queue import Queue, queue_names
from ..agents.records import OPEN, RUNNING, WAITING, Submission, seconds_of, user
from ..agents.runs import KILLED, NOT_FAILED, Run, known_runs, named
from ..errors import UsageError
from ..reporting import journal, journal_reader, outcomes, tables
from ..reporting.console import say, say_json
from ..reporting.tables import Column
from ..sanitize import one_line, printable
from ..storage import is_local
from . import arguments

HELP = "list every run: start, duration, how it was started, result; or cancel one"

#: Failed months of one run whose reasons are listed, and hosts that refuse it; characters of a line for people.
REASONS, LONGEST = 5, 2000

#: Id, start, duration, state, and how it was started.
COLUMNS = [Column(width=22), Column(width=20), Column(width=7, is_number=True), Column(width=9), Column(is_folded=True)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("cancel",), help="stop a run, or remove it from its queue")
    parser.add_argument("id", nargs="?", help="id of the run to cancel, or an unambiguous beginning of it")
    parser.add_argument("--queue", **arguments.QUEUE, help="only runs submitted to this queue; default: all runs")
    parser.add_argument("--last", type=arguments.whole(1), default=20, metavar="N", help="the newest N; default 20")
    parser.add_argument("--failed", action="store_true", help="only runs that did not end well")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """List the runs, or cancel one."""
    if args.action == "cancel":
        if not args.id:
            raise UsageError("runs cancel takes the id of a run, such as: runs cancel 20210401T050000-3fa2c1")
        return _cancel(args.id)
    known = sorted(known_runs(args.queue).values(), key=lambda run: run.order)
    found = known if args.failed else known[-args.last :]
    for run in found:
        run.read()
    if args.failed:
        known = [run for run in known if run.state not in NOT_FAILED]
        found = known[-args.last :]
    if args.json:
        say_json([_plain(run) for run in found])
        return 0
    for run in found:
        tables.show(COLUMNS, [[_shown(cell) for cell in _row(run)]])
        for line in _lines(run):
            say(f"    {_shown(line)}")
    counted = f"{len(found):,} of {len(known):,}" if len(found) < len(known) else f"{len(known):,}"
    what = ("failed " if args.failed else "") + ("run" if len(known) == 1 else "runs")
    say("; ".join([f"{counted} {what}", *_remarks(len(known) - len(found))]))
    return 0


def _remarks(left: int) -> Iterator[str]:
    if left:
        yield "--last N shows more"
    if not is_local(job.workspace_url()):
        yield f"of this host ({socket.gethostname()}) and submitted ones"
    paused = [name for name in queue_names() if Queue(name).is_paused]
    if paused:
        yield f"paused: {', '.join(paused)}"


# -- the list ---------------------------------------------------------------------------------------


def _plain(run: Run) -> dict[str, Any]:
    """For programs."""
    one, outcome = run.submission, run.outcome
    return {
        "id": run.id,
        "how": run.how,
        "state": run.state,
        "started_at": _utc(run.start),
        "ended_at": _utc(run.end),
        "heard_at": _utc(run.heard),
        "seconds": None if run.seconds is None else round(run.seconds, 1),
        "command": shlex.join(run.command),
        "host": str(run.begun.get("host", "")),
        "exit_code": one.exit_code if one else outcome.exit_code if outcome else None,
        "failure": outcome.failure if outcome else "",
        "summary": run.summary,
        "loaded": [month.title for month in outcome.new if month.loaded is not None] if outcome else [],
        "in_lake": [month.title for month in outcome.new if month.loaded is None] if outcome else [],
        "failed": {month.title: month.why for month in outcome.failures} if outcome else {},
        "missing": [month.title for month in outcome.having(outcomes.MISSING)] if outcome else [],
        "rows": outcome.total("rows") if outcome else None,
        "rejected": sum(outcome.rejected.values()) if outcome else None,
        "cancelled_by": one.cancelled_by if one else run.cancelled_by,
        "log": run.log,
        "journal": str(run.journal or ""),
        "queue": one.queue if one else "",
        "submitter": one.submitter if one else "",
        "submitted_at": _utc(seconds_of(one.submitted_at)) if one else None,
        "agent": one.agent if one else "",
        "attempts": one.attempts if one else 1,
        "message": one.message if one else "",
        "refusals": one.refusals if one else {},
    }


def _row(run: Run) -> list[str]:
    """The row of the table; it fits into 80 columns."""
    start = _local(run.start) if run.state != WAITING else "not yet"
    took = "" if run.seconds is None else str(dt.timedelta(seconds=int(run.seconds)))
    return [run.id, start, took, run.state, run.how]


def _lines(run: Run) -> Iterator[str]:
    """The lines below the row."""
    if run.summary:
        yield run.summary
    if run.command:
        yield shlex.join(run.command)
    if run.submission:
        yield from _about_submission(run.submission, run.outcome.why if run.outcome else "")
    if run.state == KILLED and run.heard is not None:
        yield f"last heard of {_local(run.heard)}"
    if run.is_alive and (by := run.cancelled_by):
        yield f"{by} has told it to stop"
    if run.outcome and run.state not in NOT_FAILED:
        if run.outcome.failure:
            yield one_line(run.outcome.failure)
        failed = run.outcome.failures
        yield from (f"{month.title}: {one_line(month.why)}" for month in failed[:REASONS])
        if len(failed) > REASONS:
            yield f"... and {len(failed) - REASONS:,} more"
    if run.log and run.state not in (WAITING, outcomes.COMPLETE):
        yield f"log {run.log}"


def _about_submission(one: Submission, shown_below: str) -> Iterator[str]:
    submitted = _local(seconds_of(one.submitted_at))
    yield f"submitted by {one.submitter} {submitted}{f', agent {one.agent}' if one.agent else ''}".rstrip()
    if one.message and one.message != shown_below:
        yield one_line(one.message)
    if one.state == RUNNING and one.cancelled_by:
        yield f"{one.cancelled_by} has told its agent to stop it"
    if one.state == WAITING:
        refusals = list(one.refusals.items())
        yield from (f"refused by {host}: {one_line(why)}" for host, why in refusals[:REASONS])
        if len(refusals) > REASONS:
            yield f"... and by {len(refusals) - REASONS:,} more"


def _shown(line: str) -> str:
    """A line as it is printed. A queue file may contain a line of a million characters."""
    return printable(line if len(line) <= LONGEST else f"{line[:LONGEST]}...")


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


# -- runs cancel -----------------------------------------------------------------------------------


def _cancel(text: str) -> int:
    """Cancel the run with that id, or the only one whose id begins so. Returns 1 if there is nothing to stop here."""
    run = named(text)
    ended = f"run {run.id} has ended"
    if run.submission and run.submission.state in OPEN:
        last = Queue(run.submission.queue).cancel(run.id, user())
        if last is None:
            return _not_cancelled(ended)
        when = "within a few seconds" if run.submission.cancelled_by else _when("")
        agent = f"; its agent {last.agent} stops it {when}" if last.state == RUNNING else ""
        say(f"run {run.id} is cancelled{agent}")
        return 0
    if run.journal is None or not journal_reader.is_held(run.journal):
        return _not_cancelled(ended)
    host, pid = run.begun.get("host"), run.begun.get("pid")
    if host != socket.gethostname():
        return _not_cancelled(f"run {run.id} is under way on {host}; there: python -m pipeline runs cancel {run.id}")
    if not isinstance(pid, int) or not _has_open(pid, run.journal):
        if not journal_reader.is_held(run.journal):
            return _not_cancelled(ended)
        return _not_cancelled(f"run {run.id} is under way, but not in process {pid}, which began it; end it by hand")
    run.read()
    journal.append(run.journal, "cancelled", by=user())
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        return _not_cancelled(f"run {run.id} is process {pid} of another user, who alone may stop it")
    except ProcessLookupError:
        return _not_cancelled(ended)
    say(f"run {run.id} is cancelled; process {pid} ends {_when(run.cancelled_by)}")
    return 0


def _when(cancelled_by: str) -> str:
    return "at once" if cancelled_by else "after the stages that are running"


def _not_cancelled(why: str) -> int:
    say(f"error: {why}", error=True)
    return 1


def _has_open(pid: int, file: Path) -> bool:
    """Whether a process has the file open. Its process id alone may have been reused."""
    if Path("/proc/self/fd").is_dir():
        try:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):  # closed meanwhile
                    if descriptor.samefile(file):
                        return True
            return False
        except PermissionError:
            return True  # another user's process: sending the signal will fail
        except OSError:
            return False
    try:
        found = subprocess.run(["lsof", "-t", "--", str(file)], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return str(pid) in found.stdout.split()
