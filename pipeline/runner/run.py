"""One run from its first task to its last line, whoever starts it: luigi's command, ``luigi.build`` or a verb.

A run begins when one of our tasks takes part, and not before: somebody else's tasks that have nothing to do with ours
stay as Luigi has them. At its end it is judged once, and the verdict in the journal is what table, message and exit
code are made from.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import luigi
import luigi.worker
from luigi.execution_summary import LuigiStatusCode
from luigi.parameter import ParameterException
from luigi.retcodes import retcode
from luigi.rpc import RPCError
from luigi.task_register import TaskClassException
from luigi.task_status import PENDING

from .. import code_version, settings
from ..errors import PipelineError, UsageError
from ..planning.state import CachedState
from ..reporting import bars, console, end_of_run, journal, journal_reader, locations, logs, notify, outcomes, streams
from ..tasks.base import JobTask
from ..tasks.range_monthly import RangeMonthly
from . import start, verdict
from .sweep import sweep

#: Exit code of a mistake on the command line or in the settings, as argparse has it.
USAGE = 2

#: Exit code of a plan that could not be made, where luigi.cfg has none.
PLANNING_FAILED = 35

#: Exit code after Ctrl-C, as shells have it.
STOPPED = 130

#: What is said when luigid went away.
NO_LUIGID = "luigid does not answer any more; what is done is kept, the next call does the rest"

#: Errors whose text says what is wrong: ours, and those of Luigi about flags and tasks.
MISTAKES = (PipelineError, ParameterException, TaskClassException)

_current: Run | None = None

#: Whether Luigi's command runs, which has the terminal and the logging to itself, and not somebody's program.
_is_command = False

#: The settings that its environment had when Luigi's command began, before it handed down its own.
_variables: dict[str, str] = {}


@contextmanager
def as_command() -> Iterator[None]:
    """Within this context runs are those of Luigi's command, with bars, and with the settings that flags gave it."""
    global _is_command, _variables
    before, _is_command = _is_command, True
    _variables = settings.given()
    try:
        with settings.restored():
            yield
    finally:
        _is_command = before


def is_command() -> bool:
    return _is_command


def planning_state() -> CachedState:
    """What the run that is being planned has found so far."""
    return _current.state if _current is not None and _current.state.is_open else CachedState()


def roots_of_command() -> list[luigi.Task]:
    """The root tasks of the run that is Luigi's command, if they are ours."""
    return [root for root in _current.roots if _is_ours(root)] if _is_command and _current is not None else []


def with_report(schedule_and_run: Any) -> Any:
    """Wrap Luigi's function that schedules and runs root tasks: both its command and ``luigi.build`` call it."""

    def run_with_report(tasks: Any, *args: Any, **kwargs: Any) -> Any:
        # A task of a run may call luigi.build itself: that is a part of the run.
        is_in_task = multiprocessing.parent_process() is not None and journal.BEGUN in os.environ
        if is_in_task or (_current is not None and _current.is_begun):
            return schedule_and_run(tasks, *args, **kwargs)
        chosen = kwargs.get("override_defaults") or {}
        has_logging = logs.are_configured() or not chosen.keys().isdisjoint(("log_level", "logging_conf_file"))
        with Run(list(tasks), has_logging) as run:
            result = schedule_and_run(run.roots, *args, **kwargs)
            run.judge(result)
        if _is_command and not run.is_begun and result.status == LuigiStatusCode.SUCCESS and not _has_run(result):
            console.say("Nothing to do.")  # Luigi's own words are not shown; somebody's tasks that ran speak themselves
        return result

    return run_with_report


def _has_run(result: Any) -> bool:
    return any(response["task_id"] for response in result.worker._get_work_response_history)


def scheduled(worker: Any) -> None:
    """Called by the worker before it runs the first task."""
    if _current is not None:
        _current.scheduled(worker)
        start.check_scheduled(worker.state, (task for task, status, _ in worker._add_task_history if status == PENDING))


def begin_if_ours(tasks: Iterable[Any]) -> None:
    """Begin the current run, if it has not begun yet, when one of these tasks is ours."""
    if _current is not None and any(map(_is_ours, tasks)):
        _current.begin()


def _is_ours(task: Any) -> bool:
    return isinstance(task, JobTask | RangeMonthly)


class Run:
    """Context around the scheduling and the work of some root tasks."""

    def __init__(self, roots: list[luigi.Task], has_logging: bool) -> None:
        self.roots = roots
        self._has_logging = has_logging
        self.is_begun = False
        self._outer = _current
        self._is_command = _is_command and self._outer is None
        self._is_scheduled = False
        self.state = CachedState()  # one look at lake and warehouses answers for all tasks while the run is planned
        self._worker: Any = None
        self._is_first = False  # whether this process has begun the run, and not one that has started this process
        self._bars = bars.Bars()
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        global _current
        _current = self
        self._stack.enter_context(self.state)
        try:
            begin_if_ours(self.roots)
        except BaseException:
            _current = self._outer
            raise
        return self

    def begin(self) -> None:
        if self.is_begun:
            return
        variables = _variables if self._is_command else settings.given()
        if not self._is_command:
            self._stack.enter_context(settings.restored())
            settings.export_to_environment()
            journal.run_id()  # made here, so that all worker processes inherit the same
            self._stack.enter_context(streams.protected())
            self._stack.enter_context(logs.of_program(self._has_logging))
        self._is_first = journal.begin(command(self._is_command), again(variables, self._is_command))
        self.is_begun = True
        if self._is_first:
            code_version.export_to_environment()
            notify.notify_of_killed_runs()
        if self._is_command:
            self._bars.start()

    def scheduled(self, worker: Any) -> None:
        """Note in the journal what is to be done, once Luigi has scheduled it."""
        if self._is_scheduled:
            return
        self._is_scheduled = True
        self._worker = worker
        begin_if_ours(worker._scheduled_tasks.values())
        if self.is_begun:
            for event in verdict.plan_events(worker._add_task_history):
                journal.record("plan", **event)

    def judge(self, result: Any) -> None:
        """Decide what the run came to, and let Luigi say the same."""
        self.scheduled(result.worker)  # if the program has a worker of its own
        if self.is_begun:
            judged = verdict.judge(result.worker, self.roots, journal_reader.events()[0])
            journal.record("judged", **judged)
            result.exit_code = judged["code"]
            result.scheduling_succeeded = judged["code"] == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        _current = self._outer
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
                    sweep(self._all_tasks(), self._has_worked())

    def _all_tasks(self) -> list[Any]:
        """All tasks of the run that have been looked at, those of a range's months in the place of the range."""
        tasks = [*self.roots, *(self._worker._scheduled_tasks.values() if self._worker else ())]
        return [getattr(task, "_first", task) for task in tasks if _is_ours(task)]

    def _has_worked(self) -> bool:
        return self._worker is not None and any(status == PENDING for _, status, _ in self._worker._add_task_history)

    def _tasks(self) -> list[luigi.Task]:
        """The root tasks if one of them is ours, or else those of ours that somebody's tasks need."""
        if any(map(_is_ours, self.roots)) or self._worker is None:
            return self.roots
        return [task for task in self._worker._scheduled_tasks.values() if _is_ours(task)]

    def _places(self) -> end_of_run.Places | None:
        """Lake and warehouses of the first task of ours that has a warehouse, or else of the first one."""
        ours = [task for root in self._tasks() if isinstance(task := getattr(root, "_first", root), JobTask)]
        task = next((task for task in ours if hasattr(task, "warehouse")), next(iter(ours), None))
        if task is None:
            return None
        warehouses = [label for label in getattr(task, "warehouse", "").split(",") if label]
        return end_of_run.Places(task.job.lake, warehouses, task.job.publisher_object.is_synthetic)


def command(is_luigi: bool = False) -> list[str]:
    """The command that this process was started with, as a person would write it; empty where there is none."""
    program = Path(sys.argv[0] if sys.argv else "")
    if program.name == "__main__.py" and program.parent.name == "pipeline":
        return ["python", "-m", "pipeline", *sys.argv[1:]]
    if is_luigi:
        return ["luigi", *sys.argv[1:]]
    is_script = program.suffix == ".py" and "ipykernel" not in sys.modules
    return ["python", *sys.argv] if is_script else []


def again(variables: Mapping[str, str], is_luigi: bool = False) -> str:
    """What a person types in this folder to start the same: with the program as it was called, and the settings that
    its environment had. What may be a secret is left out.
    """
    words = command(is_luigi)
    if not words:
        return ""
    if words[0] == "luigi":
        words[:1] = _luigi(sys.argv[0])
    else:
        words[0] = _python()
    assignments = (
        f"{name}={shlex.quote(shown)}"
        for name, value in variables.items()
        if name != settings.variable("notify", "urls")
        for shown in journal.without_addresses([f"--{name}={value}"])[0].partition("=")[2:]
    )
    return " ".join([*assignments, shlex.join(journal.without_addresses(words))])


def _luigi(program: str) -> list[str]:
    if Path(program).name == "__main__.py":
        return [_python(), "-m", "luigi"]
    found = shutil.which("luigi")
    if "/" not in program or (found and os.path.exists(program) and os.path.samefile(found, program)):
        return ["luigi"]
    short = locations.short(program)
    return [short if "/" in short else f"./{short}"]


def _python() -> str:
    """This Python by the name that PATH finds it by, or else by its path; a link may lead to another environment."""
    here = os.path.dirname(sys.executable)
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and os.path.samefile(found, sys.executable) and os.path.samefile(os.path.dirname(found) or ".", here):
            return name
    return locations.short(sys.executable)


def _verdict_of(error: BaseException) -> dict[str, Any]:
    """The event "judged" of a run that an error has ended."""
    codes = retcode()
    match error:
        case KeyboardInterrupt():
            return {"code": STOPPED, "result": outcomes.STOPPED}
        case luigi.interface.PidLockAlreadyTakenExit():
            failure = "the same command is running already"
            return {"code": codes.already_running, "result": outcomes.REFUSED, "failure": failure}
        case RPCError():
            return {"code": codes.unhandled_exception, "result": outcomes.FAILED, "failure": NO_LUIGID}
    if not isinstance(error, MISTAKES):
        failure = f"{type(error).__name__}; the log has the traceback"
        return {"code": codes.unhandled_exception, "result": outcomes.FAILED, "failure": failure}
    code = code_of(error)
    result = outcomes.REFUSED if code == USAGE else outcomes.PLANNING_FAILED
    return {"code": code, "result": result, "failure": str(error)}


def code_of(error: BaseException) -> int:
    """The exit code of an error that kept a command from its work: of a mistake, or of what it cannot reach or use."""
    is_mistake = isinstance(error, UsageError) or not isinstance(error, PipelineError)
    return USAGE if is_mistake else int(retcode().scheduling_error or PLANNING_FAILED)
