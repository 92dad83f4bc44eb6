"""What surrounds a task while it runs, mostly in a worker process: its state, log, signals and settings."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from .. import job, settings
from ..planning.state import State
from ..planning.task_state import UsesState, give_state
from ..reporting import journal, logs, streams
from ..storage import open_store
from . import rpc
from .signals import STOPS, exit_with_main_process

#: Time-out in seconds of a progress report to luigid.
REPORT_TIMEOUT = 5.0


def modules_of_workers() -> list[str]:
    """Modules that the fork server loads once, so that not every worker process, one per task, loads them again."""
    stores = {job.lake_url(), job.workspace_url()}
    used = [open_store(url) for url in stores] + [job.open_warehouse(label) for label in job.warehouses()]
    return [
        "pipeline",
        "pipeline.cleaning.cleaner",
        "pipeline.runner.task_context",
        "pandas",  # pyarrow loads it as soon as it makes an array of a list
        "pyarrow.pandas_compat",
        "pyarrow.parquet",
        "tenacity",
        *sorted({type(thing).__module__ for thing in used}),
    ]


class TaskContext:
    """Gives the task a new state, sets up the log, and ends a worker process with its main process.

    Luigi leaves the children of a killed worker alive; they would go on writing while another host does the same task.
    The kernel's own way to end them (PR_SET_PDEATHSIG) sees only the fork server, which outlives its children.
    """

    def __init__(self, task_process: Any) -> None:
        self._task_process = task_process
        self._stack = ExitStack()

    def __enter__(self) -> TaskContext:
        if multiprocessing.parent_process() is not None:  # with one worker tasks run in the main process
            self._prepare_process()
        reporter = self._task_process.status_reporter  # no stage waits for minutes because luigid is away
        reporter._scheduler = rpc.asked_once(reporter._scheduler, REPORT_TIMEOUT)
        self._answer_afresh()
        if inner := getattr(self._task_process, "inner_context", None):  # [worker] task_process_context of luigi.cfg
            self._stack.enter_context(pkgutil.resolve_name(inner)(self._task_process))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return bool(self._stack.__exit__(kind, error, traceback))

    def _prepare_process(self) -> None:
        """Give a new worker process the settings and the log of the run, and let the main process alone end it."""
        exit_with_main_process()
        streams.protect()
        if (variables := getattr(self._task_process, "settings", None)) is not None:  # of our own worker
            settings.take_over(variables)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the main process, and that stops this one
        # A stage is finished when the whole process group gets the signal, as from systemd or a closed terminal.
        # SIG_IGN would be inherited by a program that a task starts.
        for number in STOPS:
            signal.signal(number, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *STOPS})  # the mask would be inherited too
        if journal.BEGUN in os.environ:  # one of our tasks takes part in the run
            logs.configure(to_file=True)

    def _answer_afresh(self) -> None:
        """Let the task, and all that it requires, answer from one new state while it runs."""
        process, task = self._task_process, self._task_process.task
        if isinstance(task, UsesState):
            state = self._stack.enter_context(task.fresh_state())
        else:
            state = self._stack.enter_context(State())
        is_complete = process.check_complete

        def check_complete(asked: Any) -> Any:
            if asked is not task:
                give_state(asked, state)
                return is_complete(asked)
            with State() as now:  # Luigi asks the task itself when it has run
                give_state(task, now)
                return is_complete(task)

        process.check_complete = check_complete
