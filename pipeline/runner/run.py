"""A whole run, in the main process: begins it, notes its plan, judges it, and reports at its end; whoever starts it.

A run begins when one of our tasks takes part, and not before: somebody else's tasks that have nothing to do with ours
stay as Luigi has them. At its end it is judged once, and the verdict in the journal is what table, message and exit
code are made from.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import luigi
import luigi.worker
from luigi.execution_summary import LuigiStatusCode
from luigi.retcodes import retcode
from luigi.rpc import RPCError

from .. import code_version, remote, settings
from ..errors import UsageError
from ..planning.state import CachedState
from ..planning.task_state import give_state
from ..reporting import bars, console, end_of_run, journal, journal_reader, logs, notify, outcomes, streams
from ..tasks.base import JobTask
from ..tasks.range_monthly import RangeMonthly
from . import patches, preflight, verdict
from .exit_codes import MISTAKES, STOPPED, USAGE, code_of
from .own_command import again, own_command
from .sweep import sweep
from .task_list import TaskList
from .worker import Worker

#: What is said when luigid went away.
NO_LUIGID = "luigid does not answer any more; what is done is kept, the next call does the rest"


class Runs:
    """The runs of this process, one at a time; ``command_line.install`` makes the only object of this class.

    A task of a run may call ``luigi.build`` itself: that is a part of the run.
    """

    def __init__(self) -> None:
        self._current: Run | None = None
        #: The settings that the environment of Luigi's command had when it began; None in another program.
        self._command: Mapping[str, str] | None = None

    @contextmanager
    def as_command(self) -> Iterator[None]:
        """Within this context runs are those of Luigi's command, with bars, and with the settings that flags gave."""
        before, self._command = self._command, settings.given()
        try:
            with settings.restored():
                yield
        finally:
            self._command = before

    @property
    def is_command(self) -> bool:
        return self._command is not None

    def run_all(self, schedule_and_run: Callable[..., Any], tasks: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        """Let Luigi schedule and run root tasks, as one run with a report, for its command and for ``luigi.build``."""
        is_in_task = multiprocessing.parent_process() is not None and journal.BEGUN in os.environ
        outer = self._current
        if is_in_task or (outer is not None and outer.is_begun):
            return schedule_and_run(tasks, *args, **kwargs)
        chosen = kwargs.get("override_defaults") or {}
        has_logging = logs.are_configured() or not chosen.keys().isdisjoint(("log_level", "logging_conf_file"))
        self._current = Run(list(tasks), has_logging, self._command if outer is None else None)
        try:
            with self._current as run:
                run.begin_if_ours(run.roots)
                result = schedule_and_run(run.roots, *args, **kwargs)
                run.judge(result)
        finally:
            self._current = outer
        succeeded = result.status == LuigiStatusCode.SUCCESS
        if self.is_command and not run.is_begun and succeeded and not TaskList.of(result.worker).has_run:
            console.say("Nothing to do.")  # Luigi's own words are not shown; somebody's tasks that ran speak themselves
        return result

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool) -> Worker:
        """Make our worker. In Luigi's command, check the root tasks first: Luigi would show an error as a traceback."""
        run = self._current
        state = run.state if run is not None and run.state.is_open else CachedState()
        if run is not None and self.is_command:
            run.check_roots(state)
        return Worker(
            scheduler=scheduler,
            worker_processes=worker_processes,
            assistant=assistant,
            state=state,
            on_scheduled=run.on_scheduled if run is not None else None,
        )


def _is_ours(task: Any) -> bool:
    return isinstance(task, JobTask | RangeMonthly)


class Run:
    """Context around the scheduling and the work of some root tasks."""

    def __init__(self, roots: list[luigi.Task], has_logging: bool, command: Mapping[str, str] | None) -> None:
        """``command``: the settings that the environment of Luigi's command had; None for ``luigi.build``."""
        self.roots = roots
        self._has_logging = has_logging
        self._command = command
        self.is_begun = False
        self.state = CachedState()  # answers for all tasks while the run is planned
        self._tasks: TaskList | None = None
        self._is_first = False  # whether this process has begun the run, and not one that has started this process
        self._bars = bars.Bars()
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        self._stack.enter_context(self.state)
        return self

    def begin_if_ours(self, tasks: Iterable[Any]) -> None:
        """Begin, if that was not done before, when one of these tasks is ours."""
        if self.is_begun or not any(map(_is_ours, tasks)):
            return
        is_luigi = self._command is not None
        variables = settings.given() if self._command is None else self._command
        if not is_luigi:
            self._stack.enter_context(settings.restored())
            settings.export_to_environment()
            journal.run_id()  # made here, so that all worker processes inherit the same
            self._stack.enter_context(streams.protected())
            if not self._has_logging:
                self._stack.enter_context(patches.logging_left_alone())
            self._stack.enter_context(logs.of_program(self._has_logging))
        self._is_first = journal.begin(own_command(is_luigi), again(variables, is_luigi))
        self.is_begun = True
        if self._is_first:
            code_version.export_to_environment()
            notify.notify_of_killed_runs()
        if is_luigi:
            self._bars.start()

    def check_roots(self, state: CachedState) -> None:
        """Of root tasks that are not complete: nothing that they would do may be refused in the end, and the publisher
        must answer."""
        for root in filter(_is_ours, self.roots):
            with remote.planning():
                give_state(root, state)
                if root.complete():
                    continue
                preflight.check(root)
                if isinstance(root, JobTask):
                    root.check_fetchable()

    def on_scheduled(self, worker: Worker) -> None:
        """Called by our worker before it runs the first task."""
        self.note_scheduled(worker)
        preflight.check_scheduled(worker.state, worker.tasks.pending())

    def note_scheduled(self, worker: luigi.worker.Worker) -> None:
        """Note in the journal what is to be done, once Luigi has scheduled it and before it runs the first task."""
        if self._tasks is not None:
            return
        self._tasks = tasks = TaskList.of(worker)
        self.begin_if_ours(tasks.scheduled.values())
        if self.is_begun:
            for event in verdict.plan_events(tasks.history):
                journal.record("plan", **event)

    def judge(self, result: Any) -> None:
        """Decide the outcome of the run, and give Luigi the exit code of it."""
        self.note_scheduled(result.worker)  # if the program has a worker of its own
        if self.is_begun:
            judged = verdict.judge(result.worker, self.roots, journal_reader.events()[0])
            journal.record("judged", **judged)
            result.exit_code = judged["code"]
            result.scheduling_succeeded = judged["code"] == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if not self.is_begun:
                return
            if error is not None:
                journal.record("judged", **_verdict_of(error))
            self._bars.stop()
            outcome = outcomes.summarize(journal_reader.events()[0])
            # What ended the run is said where the error is caught.
            if not isinstance(error, UsageError):  # of a run that was refused there is no more to say
                end_of_run.show(outcome, self._places(), is_said=error is not None)
            if self._is_first:
                if not isinstance(error, KeyboardInterrupt):  # somebody at the keyboard knows
                    notify.notify_of_run(outcome)
                journal.end()
                if error is None:
                    has_worked = self._tasks is not None and bool(self._tasks.pending())
                    sweep({task.job for task in self._ours()}, has_worked)

    def _ours(self) -> list[JobTask]:
        """The tasks of the run that are ours, root tasks first; a range is represented by its first month."""
        tasks = [*self.roots, *(self._tasks.scheduled.values() if self._tasks else ())]
        ours = [getattr(task, "first_task", task) for task in tasks if _is_ours(task)]
        return [task for task in ours if isinstance(task, JobTask)]

    def _places(self) -> end_of_run.Places | None:
        """Lake and warehouses of the first task of ours that has a warehouse, or else of the first one."""
        ours = self._ours()
        task = next((task for task in ours if hasattr(task, "warehouse")), next(iter(ours), None))
        if task is None:
            return None
        warehouses = [label for label in getattr(task, "warehouse", "").split(",") if label]
        return end_of_run.Places(task.job.lake_url, warehouses, task.job.publisher.is_synthetic)


def _verdict_of(error: BaseException) -> dict[str, Any]:
    """The event "judged" of a run that an error has ended."""
    code, result = retcode().unhandled_exception, outcomes.FAILED
    failure = f"{type(error).__name__}; the log has the traceback"
    if isinstance(error, KeyboardInterrupt):
        code, result, failure = STOPPED, outcomes.STOPPED, ""
    elif isinstance(error, luigi.interface.PidLockAlreadyTakenExit):
        code, result, failure = retcode().already_running, outcomes.REFUSED, "the same command is running already"
    elif isinstance(error, RPCError):
        failure = NO_LUIGID
    elif isinstance(error, MISTAKES):
        code, failure = code_of(error), str(error)
        result = outcomes.REFUSED if code == USAGE else outcomes.PLANNING_FAILED
    return {"code": code, "result": result, "failure": failure}
