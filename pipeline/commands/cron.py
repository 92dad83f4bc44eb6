"""``python -m pipeline cron``: run a luigi command unattended.

Runs are serialised. Starting the same task twice exits with code 10 and names the running process. The log is rotated.
At the end the root task is asked whether it is complete: Luigi's exit code is about this process only, and each of two
hosts that share the work would report unfinished tasks.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import logging.handlers
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from .. import renamed, settings
from ..datasets import monthly_names
from ..errors import PipelineError, UsageError
from ..job import Job, warehouses
from ..lock_files import lock_within
from ..partition import add_months, format_month, months_between
from ..planning import planner
from ..planning.plan import COMPLETE
from ..planning.state import CachedState
from ..reporting import console, journal, journal_reader, logs, notify, outcomes
from ..runner import child
from ..runner.exit_codes import ALREADY_RUNNING, NOT_RUN, PLANNING_FAILED, USAGE
from ..runner.own_command import again
from ..safe_files import NOT_REGULAR
from . import arguments

HELP = "run luigi unattended: runs are serialised, the log is rotated"

#: The result of a luigi that ended before its run began, by its exit code.
_RESULTS = {0: COMPLETE, USAGE: outcomes.REFUSED, PLANNING_FAILED: outcomes.PLANNING_FAILED}

#: Bytes of the log file, and how many older ones are kept.
LOG_SIZE, LOGS_KEPT = 5_000_000, 9

#: Seconds between two tries to get a lock.
INTERVAL = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--last",
        type=arguments.whole(1, 1200),  # a century, as for ages
        metavar="N",
        help="all months from the oldest missing month of the last N",
    )
    parser.add_argument(
        "--dataset",
        type=arguments.all_or_some_datasets,
        help="with --last: all, or one or several, comma-separated; default: [range] datasets",
    )
    parser.add_argument("--datasets", type=arguments.all_or_some_datasets, help=argparse.SUPPRESS)
    parser.add_argument("--workers", **arguments.WORKERS, help="tasks at once; default 1")
    parser.add_argument("--scheduler-url", **arguments.LUIGID)
    parser.add_argument("--log", type=arguments.text, metavar="FILE", help="or - for stdout; default: runs/cron.log")
    parser.add_argument(
        "--wait",
        type=arguments.number(0, 744),  # then the next month's run is due
        default=12.0,
        metavar="HOURS",
        help="longest wait for another task's run; default 12",
    )
    parser.add_argument(
        "task",
        nargs=argparse.REMAINDER,
        metavar="TASK ...",
        help="instead of --last: a task of luigi's with its flags, such as Refresh --since 2024-01",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command unless the same task is running. Returns 0 if the root task is complete, else the run's code."""
    if bool(args.task) == bool(args.last):
        raise UsageError("cron takes either --last N or a task, such as: cron --last 6, cron Refresh")
    given = args.dataset or args.datasets
    if args.task and given:
        flag = "--dataset" if args.dataset else "--datasets"
        raise UsageError(f"{flag} goes with --last; a task has flags of its own, after its name")
    if args.datasets:
        renamed.note("--datasets", "--dataset now")
        renamed.warn()
    names = monthly_names(given or settings.RangeSettings().datasets)
    try:
        with _serialised(args.task[0] if args.task else "RangeMonthly", args.wait * 3600) as locks:
            return _Run(args, names, locks).run()
    except _Busy as busy:
        console.say(f"{busy}; nothing was started")
        return ALREADY_RUNNING


def luigi_arguments(last: int, names: list[str], today: dt.date) -> list[str]:
    """The luigi command for all months of the datasets from the oldest missing one of the ``last`` before this one.

    The publisher is not asked which months are missing. If none is missing, the range has all of them: the run then
    finds republished months, as far as ``[publisher] max_age`` allows it to ask.
    """
    stop = today.replace(day=1)
    start = add_months(stop, -last)
    wanted = ",".join(names)
    plan = planner.plan_range(
        CachedState(), Job.configured(), names, months_between(start, stop), warehouses(), ask=False
    )
    missing = [entry.partition.month for entry in plan if entry.partition.month and entry.state != COMPLETE]
    return [
        *("RangeMonthly", "--of", "AllTrips", "--of-params", json.dumps({"dataset": wanted})),
        *("--start", format_month(min(missing, default=start)), "--stop", format_month(stop)),
    ]


class _Run:
    """One run of luigi: its process, its log and its outcome."""

    def __init__(self, args: argparse.Namespace, names: list[str], locks: tuple[int, ...]) -> None:
        self._args = args
        self._names = names
        self._locks = locks
        self._log_path = "stdout" if args.log == "-" else str(args.log or journal.folder() / "cron.log")
        self._log = _open_log(self._log_path)
        self._last_words = ""

    def run(self) -> int:
        journal.begin(["python", "-m", "pipeline", *sys.argv[1:]], again(settings.given()))
        notify.notify_of_killed_runs()
        try:
            self._run()
        except KeyboardInterrupt:
            journal.end()
            raise
        outcome = outcomes.summarize(journal_reader.events()[0])
        log_path = "" if self._args.log == "-" and logs.path().exists() else self._log_path
        message = notify.notify_of_run(outcome, log_path)
        title = message.title if message else "NYC trips: nothing was done"
        self._log.info("%s %s", _now(), title)
        journal.end()
        if outcome.result == COMPLETE:
            return 0
        reason = f": {' '.join(why.split())}" if (why := outcome.why) else ""
        place = "" if self._args.log == "-" else f"; log {self._log_path}"
        console.say(f"error: {title}{reason}; run {journal.run_id()}{place}", error=True)
        return outcome.exit_code or NOT_RUN

    def _run(self) -> None:
        """Run luigi, which records its own verdict. What it cannot know is added to the journal as a later verdict."""
        code, failure = PLANNING_FAILED, ""
        try:
            arguments = self._args.task or luigi_arguments(self._args.last, self._names, dt.date.today())
            code = self._luigi(arguments)
            # Another host may have done it since. After a failed plan this would wait for the same server again.
            if code not in (0, USAGE, PLANNING_FAILED) and _is_complete(arguments):
                code = 0
        except PipelineError as error:
            failure = str(error)
            code = USAGE if isinstance(error, UsageError) else code or PLANNING_FAILED
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            code = code or PLANNING_FAILED
        outcome = outcomes.summarize(journal_reader.events()[0])
        if code < 0:
            _judge(128 - code, outcomes.CRASHED, f"luigi was {child.how_ended(code)}")
        elif failure or code != outcome.exit_code:
            result = _RESULTS.get(code, outcomes.FAILED)
            _judge(code, result, "" if code == 0 else failure or self._last_words)
        elif outcome.result == outcomes.UNFINISHED and not outcome.failure:
            why = f"not complete when checked again (luigi exited with {code}); another host may still be working on it"
            _judge(code, outcome.result, why)

    def _luigi(self, arguments: list[str]) -> int:
        """Run luigi and log what it says. Returns its exit code, negative if a signal has ended it."""
        url = self._args.scheduler_url
        is_given = any(word.startswith("--scheduler-") for word in arguments)
        scheduler = ["--scheduler-url", url] if url else [] if is_given else ["--local-scheduler"]
        # Ours first: of two flags the last one counts.
        words = ["--workers", str(self._args.workers), *scheduler, *arguments]
        shown = shlex.join(journal.without_addresses(["luigi", "--module", "pipeline", *words]))
        self._log.info("%s run %s: %s", _now(), journal.run_id(), shown)
        # The child holds the locks too, in case it outlives this process.
        luigi = child.Luigi(words, os.environ, partial(self._log.info, "%s"), (*self._locks, *journal.held()))
        with luigi.ended_with_us():
            code = luigi.wait()
        self._last_words = luigi.last_words
        assert code is not None, "the wait has no limit"
        return code


def _judge(code: int, result: str, failure: str) -> None:
    journal.record("judged", code=code, result=result, failure=failure)


def _is_complete(arguments: list[str]) -> bool:
    """Ask the root task of a luigi command, in this process, what it says now."""
    from luigi.cmdline_parser import CmdlineParser

    with CmdlineParser.global_instance(["--module", "pipeline", *arguments]) as parser:
        return bool(parser.get_task_obj().complete())


class _Busy(Exception):
    """Another process holds the lock; the text names it."""


@contextmanager
def _serialised(task: str, longest: float) -> Iterator[tuple[int, ...]]:
    """Runs are serialised: hold the lock of this task and the one of all. Raises _Busy if the same task runs already.

    A run of another task is waited for, at most ``longest`` seconds: the monthly run must not be skipped because the
    nightly refresh takes longer than usual. Yields the descriptors of the locks.
    """
    with ExitStack() as stack:
        held = []
        try:
            journal.ensure_folder()
            own = re.sub(r"\W", "-", task, flags=re.ASCII)[:100]  # whatever the word is, the lock stays in this folder
            for name, wait in ((f"cron.{own}", 0.0), ("cron", longest)):
                held.append(_lock(journal.folder() / f"{name}.lock", wait, task))
                stack.callback(os.close, held[-1])
        except OSError as error:
            raise journal.not_writable(error) from None
        yield tuple(held)


def _lock(path: Path, longest: float, task: str) -> int:
    descriptor = journal.open_file(path, os.O_RDWR | os.O_CREAT)
    if not lock_within(descriptor, longest, INTERVAL):
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another cron run"
        os.close(descriptor)
        raise _Busy(f"{holder} is running already")
    about = f"{task} (run {journal.run_id()}, process {os.getpid()} on {socket.gethostname()}, since {_now()})"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, about.encode(errors="replace"), 0)
    return descriptor


class _Rotated(logs.SaysOnce, logging.handlers.RotatingFileHandler):
    """The log in a file that is rotated when it is full."""


class _Stdout(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.say(self.format(record), keep="\t")


def _open_log(path: str) -> logging.Logger:
    """The logger of the run: plain lines, on stdout or in a rotated file."""
    log = logging.getLogger("pipeline.cron")
    log.propagate = False
    log.setLevel(logging.INFO)
    try:
        handler = (
            _Stdout()
            if path == "stdout"
            else _Rotated(path, maxBytes=LOG_SIZE, backupCount=LOGS_KEPT, encoding="utf-8")
        )
    except OSError as error:
        if error.errno in NOT_REGULAR and Path(path).parent == journal.folder():
            raise journal.not_writable(error) from None
        raise UsageError(f"--log {path}: {error.strerror}; name a file that can be written, or -") from None
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    return log


def _now() -> str:
    return f"{dt.datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}"
