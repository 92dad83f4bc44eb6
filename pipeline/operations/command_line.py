"""What the ``luigi`` command does around our tasks: settings first, mistakes in one line, a table at the end.

Luigi has no public hooks for these, so six of its functions are replaced, all of them here and each with a test through
the real command. Nothing of this touches ``luigi.build`` in somebody's own program.
"""

from __future__ import annotations

import difflib
import multiprocessing
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from typing import Any, NoReturn

import luigi.interface
from luigi.cmdline_parser import CmdlineParser
from luigi.parameter import ParameterException
from luigi.retcodes import retcode
from luigi.rpc import RPCError
from luigi.task_register import Register, TaskClassException, TaskClassNotFoundException

from .. import completeness, reach, settings
from ..errors import PipelineError, UsageError
from ..stages.base import JobTask
from . import console, journal, logs, process
from .rpc import Luigid
from .worker import Worker

#: Exit code of a mistake on the command line or in the settings, as argparse has it.
USAGE = 2

#: Exit code of a plan that could not be made, where luigi.cfg has none.
PLANNING_FAILED = 35

#: Exit code after Ctrl-C, as shells have it.
STOPPED = 130

#: Whether Luigi's command runs, not one of its tools that only look at tasks.
_is_running = False

#: Whose text says what is wrong: ours, and those of Luigi about flags and tasks.
MISTAKES = (PipelineError, ParameterException, TaskClassException)


def install() -> None:
    """Wrap Luigi's functions, once per process."""
    if getattr(luigi.interface, "_wrapped_by_pipeline", False):
        return
    luigi.interface._wrapped_by_pipeline = True
    # Luigi reads some settings of [core] by a way of its own, and then calls them unknown, with their values. The
    # address of a luigid may hold a password, and so may any other.
    warnings.filterwarnings("ignore", message=".*'(rpc_retry_(attempts|wait)|default_scheduler_(host|port|url))'.*")
    warnings.filterwarnings("ignore", message="The configuration contains the parameter .*://")
    luigi.interface._run = _with_report(luigi.interface._run)
    CmdlineParser.get_task_obj = _with_valid_settings(CmdlineParser.get_task_obj)
    CmdlineParser._build_parser = staticmethod(_with_short_errors(CmdlineParser._build_parser))
    factory = luigi.interface._WorkerSchedulerFactory
    factory.create_remote_scheduler = _connect
    factory.create_worker = _with_first_question(_create_worker)


def exit_with(error: BaseException) -> NoReturn:
    """Say what is wrong in one line and end, with the code of ``code_of``."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code_of(error))


def code_of(error: BaseException) -> int:
    """The exit code of an error that kept a command from its work: of a mistake, or of what it cannot reach or use."""
    is_mistake = isinstance(error, UsageError) or not isinstance(error, PipelineError)
    return USAGE if is_mistake else int(retcode().scheduling_error or PLANNING_FAILED)


def _with_report(run: Any) -> Any:
    """Show progress while the run lasts, and a table at its end; tell who wants to be told.

    Gaps at a publisher have their own exit code.
    """

    def run_with_report(*args: Any, **kwargs: Any) -> Any:
        global _is_running
        failure, _is_running = "", True
        process.hear_every_interrupt()
        try:
            # One look at lake and warehouses answers for all tasks while Luigi schedules; TaskContext ends that.
            with completeness.scheduling(), console.report() as report:
                result = run(*args, **kwargs)
                _keep_plan(report.root)
                report.finished(result.worker)
            failure = _failure_of(report, result)
        except MISTAKES as error:
            failure = str(error)
            exit_with(error)
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            sys.exit(STOPPED)
        except RPCError:
            failure = "luigid does not answer any more; what is done is kept, the next call does the rest"
            print(f"error: {failure}", file=sys.stderr)
            sys.exit(retcode().unhandled_exception)
        except Exception as error:
            failure = f"{type(error).__name__}; the log has the traceback"
            raise
        finally:
            _is_running = False
            _end(failure)
        if report.only_missing:
            sys.exit(retcode().missing_data)
        return result

    return run_with_report


def _keep_plan(root: Any) -> None:
    """Write into the journal which months the run found in which state."""
    plan = getattr(root, "__dict__", {}).get("plan")
    if plan is not None:
        entries = [
            (entry.dataset, f"{entry.month:%Y-%m}" if entry.month else None, entry.state, entry.reason)
            for entry in plan.entries
        ]
        journal.record("plan", entries=entries)


def _failure_of(report: console.report, result: Any) -> str:
    """Why the run as a whole is not well, beside the stages that failed, which the journal knows; or nothing."""
    from luigi.execution_summary import _summary_dict

    from ..stages.base import Stage

    if not result.scheduling_succeeded:
        return "planning failed; the log says why"
    failed = _summary_dict(result.worker)["failed"]
    if report.root in failed and not report.only_missing and not isinstance(report.root, Stage):
        return f"{report.root.task_family} failed; the log says why"
    return ""


def _end(failure: str) -> None:
    """Tell of the run and end it, if this process has begun it and nobody at the keyboard has stopped it."""
    if journal.is_mine():
        stop = sys.exception()
        if not (isinstance(stop, SystemExit) and stop.code == STOPPED):
            from . import notify

            notify.tell_of_run(failure)
        journal.end()


def _with_valid_settings(get_task_obj: Any) -> Any:
    """Read all settings, while Luigi knows the flags and before it builds the first task."""

    def get_task_with_valid_settings(self: Any) -> Any:
        _check_flags(self.known_args)
        settings.validate()
        _check_core()
        settings.hand_down()
        journal.run_id()  # made here, so that all worker processes inherit the same
        logs.configure(to_file=_is_running)
        method = settings.process().start_method
        multiprocessing.set_start_method(method, force=True)
        if method == "forkserver":
            multiprocessing.set_forkserver_preload(process.modules_of_workers())
        task = get_task_obj(self)
        if isinstance(task, JobTask):
            task.check_offered()
        console.report.root = task
        if _is_running and process.PARENT in os.environ:
            process.end_with(int(os.environ.pop(process.PARENT)))
        if _is_running and journal.begin(["luigi", *sys.argv[1:]]):
            from . import notify

            notify.tell_of_killed_runs()
        return task

    return get_task_with_valid_settings


def _check_flags(given: Namespace) -> None:
    """Refuse a flag whose value its parameter cannot read. Of a setting, ``settings.validate`` says more."""
    sections = {section.get_task_family() for section in settings.SECTIONS}
    for family, is_without_section, name, parameter in Register.get_all_params():
        flags = {f"{family}_{name}": name if is_without_section else f"{family}_{name}"}
        if family == given.root_task:
            flags[name] = name
        for attribute, flag in flags.items():
            text = getattr(given, attribute)
            try:
                if text:
                    parameter.parse(text)
            except TaskClassNotFoundException:
                raise UsageError(f"--{flag.replace('_', '-')}: {_no_such_task(text)}") from None
            except PipelineError as error:
                if family not in sections:
                    raise UsageError(f"--{flag.replace('_', '-')}: {error}") from None
            except Exception as error:
                raise UsageError(f"--{flag.replace('_', '-')}: {text!r} cannot be read: {error}") from None


def _check_core() -> None:
    """Refuse a number of workers with which Luigi waits for ever."""
    workers = luigi.interface.core().workers
    if workers < 1:
        raise UsageError(f"--workers {workers} (or [core] workers): nothing would run; give at least 1")


def _no_such_task(name: str) -> UsageError:
    near = difflib.get_close_matches(name, Register.task_names(), 1)
    return UsageError(f"there is no task {name or repr(name)}" + (f"; did you mean {near[0]}?" if near else ""))


def _with_short_errors(build: Any) -> Any:
    """Let the parser say what is wrong in one line, without the usage of a hundred flags."""

    def build_parser(root_task: str | None = None, help_all: bool = False) -> ArgumentParser:
        if root_task is not None and root_task not in Register.task_names():
            exit_with(_no_such_task(root_task))
        parser: ArgumentParser = build(root_task, help_all)
        parser.allow_abbrev = False  # --warehouse is a flag of a task, not short for --warehouse-url

        def error(message: str) -> NoReturn:
            unknown = next((word for word in message.split() if word.startswith("--")), "").partition("=")[0]
            flags = [flag for action in parser._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown, flags, 1) if unknown not in flags else []
            exit_with(UsageError(message + (f"; did you mean {near[0]}?" if near else "")))

        parser.error = error  # type: ignore[method-assign]
        return parser

    return build_parser


def _create_worker(self: Any, scheduler: Any, worker_processes: int, assistant: bool = False) -> Worker:
    return Worker(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)


def _connect(self: Any, url: str) -> Luigid:
    """Ask luigid once before the first task: Luigi alone would be silent for minutes while it tries again."""
    import requests

    from . import arguments

    arguments.check_luigid_url(url)
    shown = url.rpartition("@")[2].rstrip("/")
    start = "start one with `python -m pipeline ui`"
    try:
        with requests.head(url, timeout=10, allow_redirects=False) as answer:
            code = answer.status_code
    except requests.RequestException:
        raise UsageError(f"no luigid answers at {shown}; {start}, or run with --local-scheduler") from None
    if code in (401, 403):
        raise UsageError(f"luigid at {shown} refuses user and password; give them as http://user:password@host:8082")
    if code >= 400:
        raise UsageError(f"what answers at {shown} is no luigid (HTTP {code}); {start}")
    return Luigid(url)


def _with_first_question(create: Any) -> Any:
    """Ask the root task whether it is complete before Luigi does, which shows an error in the answer as a traceback.

    If it is not, see that the publisher can be asked for what it needs.
    """

    def create_worker(self: Any, *args: Any, **kwargs: Any) -> Any:
        root = console.report.root
        if root is not None:
            with reach.planning():
                if not root.complete() and isinstance(root, JobTask):
                    root.check_source()
        return create(self, *args, **kwargs)

    return create_worker
