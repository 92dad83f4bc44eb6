"""``agent``, ``submit``, ``runs`` and ``queue``: work that is handed over and done though its submitter is gone.

An agent runs what was submitted with the real ``luigi``, in a process of its own and under the submitter's run id. It
refuses what would come to something else on its host than where it was submitted.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import IO

from luigi.cmdline_parser import CmdlineParser

from .. import settings
from ..errors import ConflictError, PipelineError, TransientError, UsageError
from . import journal, process
from .queue import DONE, FAILED, RENEW, RUNNING, WAITING, Entry, Queue, Submission, names, now

LOGGER = logging.getLogger("pipeline")

#: Times that a run may end its agent or be ended by a signal; a host with too little memory would do so for ever.
ATTEMPTS = 3


@cache
def code_version() -> str:
    """The version of the package and a digest of its source files, such as ``0.1.0+3fa2c1d09b7e``."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return f"{version('nyc-trips-pipeline')}+{digest.hexdigest()[:12]}"


def meaning(command: list[str]) -> dict[str, str]:
    """What a luigi command comes to on this host: code, and the settings with the flags of the command in force."""
    with CmdlineParser.global_instance(["--module", "pipeline", *command], allow_override=True):
        return {
            "code": code_version(),
            "publisher": settings.publisher_label(),
            "rules": settings.rules_text(),
            "lake": settings.lake_url(),
            "workspace": settings.workspace_url(),
            "warehouses": settings.warehouse_labels(),
        }


def difference(submission: Submission) -> str:
    """In what this host differs from the submitter's; empty if in nothing that matters."""
    here = {"code": code_version()}
    if submission.meaning.get("code") == here["code"]:  # other code may not even know the flags
        try:
            here = meaning(submission.command)
        except (PipelineError, SystemExit):
            return "its command is not understood here"
    return "; ".join(
        f"{name} is {submission.meaning.get(name) or 'none'} there and {value or 'none'} here"
        for name, value in here.items()
        if submission.meaning.get(name) != value
    )


# -- the verbs -------------------------------------------------------------------------------------


def submit(args: argparse.Namespace) -> int:
    """Hand a luigi command over to a queue. What is wrong with it is said now, not by the agent."""
    if not args.task:
        raise UsageError("submit takes a task as luigi does, such as: submit RangeMonthly --start 2021-01")
    if any(re.search(r"://[^/@\s]*:[^/@\s]+@", word) for word in args.task):
        raise UsageError("a password does not belong into a queue; leave the URL to the agent's own settings")
    with CmdlineParser.global_instance(["--module", "pipeline", *args.task]) as parser:
        parser.get_task_obj()
    Queue(args.queue).submit(
        Submission(
            id=journal.run_id(),
            queue=args.queue,
            command=args.task,
            meaning=meaning(args.task),
            submitter=f"{getpass.getuser()}@{socket.gethostname()}",
            submitted_at=now(),
        )
    )
    print(f"{journal.run_id()} waits in queue {args.queue}")
    return 0


def runs(args: argparse.Namespace) -> int:
    """Print what was submitted, by whom, its state and its log, the newest last."""
    found = [
        entry.submission
        for name in ([args.queue] if args.queue else names())
        for entry in (*Queue(name).ended(), *Queue(name).open())
    ]
    found.sort(key=lambda submission: submission.id)
    if args.json:
        print(json.dumps([{**vars(one), "command": shlex.join(_shown(one))} for one in found], indent=1))
        return 0
    for one in found:
        print(f"{one.id}  {one.state:8}  {one.queue}  {one.submitter}  {one.submitted_at}  {shlex.join(_shown(one))}")
        about = [f"agent {one.agent}"] * bool(one.agent) + [f"log {one.log}"] * bool(one.log) + [one.message]
        about += [f"refused by {name}: {why}" for name, why in one.refusals.items() if one.state == WAITING]
        for line in filter(None, about):
            print(f"    {line}")
    paused = [name for name in names() if Queue(name).is_paused]
    print(f"{len(found):,} runs" + (f"; paused: {', '.join(paused)}" if paused else ""))
    return 0


def queue(args: argparse.Namespace) -> int:
    """Pause a queue, so that no agent takes anything from it, or resume it. What runs already is not touched."""
    if args.action == "pause":
        Queue(args.name).pause()
    else:
        Queue(args.name).resume()
    print(f"queue {args.name} is {'paused' if args.action == 'pause' else 'open'}")
    return 0


def agent(args: argparse.Namespace) -> int:
    """Take runs from a queue until told to stop, or with ``--drain`` until there is none left for this host."""
    return Agent(args.queue, args.workers, args.scheduler_url, args.poll, args.drain).serve()


def _shown(submission: Submission) -> list[str]:
    return journal.without_addresses(submission.command)


# -- the agent -------------------------------------------------------------------------------------


class Agent:
    """One agent: one run at a time, with ``workers`` tasks at once."""

    def __init__(self, queue: str, workers: int, scheduler_url: str | None, poll: float, drain: bool) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._queue = Queue(queue)
        self._options = ["--workers", str(workers)]
        self._options += ["--scheduler-url", scheduler_url] if scheduler_url else ["--local-scheduler"]
        self._poll, self._drain = poll, drain
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._last_words = ""

    def serve(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        LOGGER.info("agent %s takes from queue %s of %s", self.name, self._queue.name, settings.workspace_url())
        while not self._stopping.is_set():
            try:
                entry, are_some = self._claim()
            except TransientError as error:
                LOGGER.warning("%s", error)
                entry, are_some = None, True
            if entry is not None:
                self._run(entry)
            elif self._drain and not are_some:
                break
            else:
                self._stopping.wait(self._poll)
        LOGGER.info("agent %s ends", self.name)
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Finish the running tasks and hand back the rest; told so twice, end at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if self._stopping.is_set() else signal.SIGUSR1)
        self._stopping.set()

    def _claim(self) -> tuple[Entry | None, bool]:
        """The oldest run that is free and means the same here, made ours; and whether others may become free."""
        if self._queue.is_paused:
            return None, False
        are_some = False
        for entry in self._queue.open():
            submission = entry.submission
            if not self._queue.is_free(entry):
                are_some = True
                continue
            with contextlib.suppress(ConflictError):  # another agent was faster
                if why := difference(submission):
                    host = socket.gethostname()
                    if submission.refusals.get(host) != why:
                        LOGGER.warning("run %s is refused: %s", submission.id, why)
                        self._queue.replace(entry, refusals={**submission.refusals, host: why})
                    continue
                if submission.state == RUNNING and submission.attempts >= ATTEMPTS:
                    self._queue.end(entry, state=FAILED, message=f"{ATTEMPTS} agents ended in its midst without a word")
                    continue
                log = str(journal.folder() / f"{submission.id}.log")
                attempts = submission.attempts + 1
                return self._queue.replace(
                    entry, state=RUNNING, agent=self.name, attempts=attempts, log=log, message=""
                ), True
        return None, are_some

    def _run(self, entry: Entry) -> None:
        submission = entry.submission
        LOGGER.info("run %s of %s: luigi %s", submission.id, submission.submitter, shlex.join(_shown(submission)))
        code, entry = self._luigi(entry)
        if code is None:
            LOGGER.warning("run %s was taken over by another agent", submission.id)
            return
        self._process = None
        try:
            if code == 0:
                self._queue.end(entry, state=DONE, exit_code=0, message="")
            elif self._stopping.is_set() or (code < 0 and submission.attempts < ATTEMPTS):
                how = f"ended by {signal.Signals(-code).name}" if code < 0 else "stopped"
                attempts = submission.attempts - (code >= 0)  # handing back is no failure
                message = f"{how} at {self.name}; waits again"
                self._queue.replace(entry, state=WAITING, agent="", attempts=attempts, message=message)
            else:
                self._queue.end(entry, state=FAILED, exit_code=code, message=self._last_words)
            self._queue.prune()
        except (ConflictError, TransientError) as error:
            LOGGER.warning("run %s: %s", submission.id, error)
        LOGGER.info("run %s: exit code %d", submission.id, code)

    def _luigi(self, entry: Entry) -> tuple[int | None, Entry]:
        """Run the command and renew the lease meanwhile. Returns its exit code, None if another agent has the run."""
        submission = entry.submission
        environment = {name: value for name, value in os.environ.items() if name != journal.BEGUN}
        environment |= {journal.RUN_ID: submission.id, journal.AGENT: self.name, "PYTHONUNBUFFERED": "1"}
        environment |= {process.PARENT: str(os.getpid())}
        self._last_words = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "luigi", "--module", "pipeline", *submission.command, *self._options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        reader = threading.Thread(target=self._copy, args=(self._process.stdout,), daemon=True)
        reader.start()
        while True:
            try:
                code = self._process.wait(RENEW)
                reader.join(RENEW)
                return code, entry
            except subprocess.TimeoutExpired:
                pass
            try:
                entry = self._queue.replace(entry)
            except ConflictError:
                self._process.kill()
                self._process.wait()
                return None, entry
            except TransientError as error:
                LOGGER.warning("%s", error)  # who takes the run over finds its months locked, and then done

    def _copy(self, output: IO[str]) -> None:
        with output:
            for line in output:
                print(line, end="", flush=True)
                if line.startswith("error: ") or " ERROR " in line:
                    self._last_words = line.strip().removeprefix("error: ")[:300]
