"""Our part of luigi's command, in the order of a run: settings, root task, plan, worker, and the exit code.

``flags`` checks the flags, ``run`` begins and judges the run, ``worker`` does the tasks.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from luigi.cmdline_parser import CmdlineParser
from luigi.retcodes import retcode
from luigi.rpc import RPCError

from .. import luigi_config, renamed, settings, validation
from ..reporting import console, journal, logs, streams
from ..tasks.base import JobTask
from . import flags, patches, rpc, run, signals
from .exit_codes import MISTAKES, STOPPED, exit_with
from .task_context import modules_of_workers


def install() -> None:
    """Patch Luigi, once per process. The patches are listed in the order in which a run comes to them.

    The last three also apply to ``luigi.build``, so that its runs are reported and get our worker.
    """
    if not patches.is_first():
        return
    runs = run.Runs()
    patches.hide_warnings_with_addresses()
    patches.around_command(partial(_run_command, runs))
    patches.around_parser(flags.build_parser)
    patches.around_help(flags.check_before_settings)
    patches.around_first_task(partial(_build_root_task, runs))
    patches.around_runs(runs.run_all)
    patches.connect_with(rpc.connect)
    patches.make_workers_with(runs.create_worker)


def _run_command(runs: run.Runs, luigi_run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Let Luigi's command end with the code of the run's outcome, and say mistakes in one line."""
    streams.protect()
    signals.interrupt_finalizers_too()
    try:
        with runs.as_command():
            result = luigi_run(*args, **kwargs)
    except MISTAKES as error:
        exit_with(error)
    except KeyboardInterrupt:
        console.say("stopped; the same command goes on from here", error=True)
        sys.exit(STOPPED)
    except RPCError:
        console.say(f"error: {run.NO_LUIGID}", error=True)
        sys.exit(retcode().unhandled_exception)
    if code := getattr(result, "exit_code", 0):
        sys.exit(code)
    return result


def _build_root_task(runs: run.Runs, get_task_obj: Callable[[CmdlineParser], Any], parser: CmdlineParser) -> Any:
    """Read all settings, while Luigi knows the flags and before it builds the first task."""
    root = parser.known_args.root_task
    renamed.take(
        vars(parser.known_args),
        lambda section, name: f"{section}_{name}",
        lambda section, name: f"--{name}".replace("_", "-") if section == root else renamed.flag(section, name),
    )
    flags.check_values(parser.known_args)
    validation.validate()
    flags.check_core()
    settings.export_to_environment()
    luigi_config.complete(luigi_config.COMMAND_DEFAULTS)
    journal.run_id()  # made here, so that all worker processes inherit the same
    logs.configure(to_file=runs.is_command)
    method = settings.ProcessSettings().start_method
    multiprocessing.set_start_method(method, force=True)
    if method == "forkserver":
        multiprocessing.set_forkserver_preload(modules_of_workers())
    flags.check_required(parser.known_args)
    task = get_task_obj(parser)
    if isinstance(task, JobTask):
        task.check_offered()
    if runs.is_command and signals.PARENT in os.environ:
        signals.exit_with_agent(int(os.environ.pop(signals.PARENT)))
    return task
