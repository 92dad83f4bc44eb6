"""Every patch of Luigi: one function each, with the reason. Written for Luigi 3.8.1.

Luigi has no public hooks for these. Each patch puts a function of ours around one of Luigi's, or in its place; what
that does is said where it is defined. ``command_line.install`` applies those of the command once per process, and what
they rely on is tested in ``tests/unit/runner/test_patches.py``.

Subclasses of Luigi's classes are no patches: see ``worker``, ``task_process``, ``rpc`` and ``luigid``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import luigi.interface
from luigi.cmdline_parser import CmdlineParser
from luigi.setup_logging import InterfaceLogging

#: The version of Luigi that all of this was written for.
LUIGI = "3.8.1"

#: Called with Luigi's own function in front of the arguments that Luigi gives.
Around = Callable[..., Any]


def _around(original: Callable[..., Any], ours: Around) -> Callable[..., Any]:
    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return ours(original, *args, **kwargs)

    return patched


def is_first() -> bool:
    """Whether Luigi has not been patched in this process, maybe by another copy of this module; from now on it is."""
    before = getattr(luigi.interface, "_wrapped_by_pipeline", False)
    luigi.interface._wrapped_by_pipeline = True
    return not before


def around_command(ours: Around) -> None:
    """Because Luigi's command has no hook: its exit code comes from its own view of the tasks, and mistakes are
    tracebacks. ``luigi`` and ``run_with_retcodes`` call ``interface._run``."""
    luigi.interface._run = _around(luigi.interface._run, ours)


def around_runs(ours: Around) -> None:
    """Because Luigi has no hook for the begin and the end of a run. Its command and ``luigi.build`` both call
    ``_schedule_and_run`` with the root tasks."""
    luigi.interface._schedule_and_run = _around(luigi.interface._schedule_and_run, ours)


def around_parser(ours: Around) -> None:
    """Because Luigi's parser answers a mistake with the usage of a hundred flags, and takes abbreviations."""
    CmdlineParser._build_parser = staticmethod(_around(CmdlineParser._build_parser, ours))


def around_help(ours: Around) -> None:
    """Because Luigi meets a missing task, and exit codes that are none, only later and with a traceback. It looks for
    ``--help`` as soon as it knows the flags."""
    CmdlineParser._possibly_exit_with_help = staticmethod(_around(CmdlineParser._possibly_exit_with_help, ours))


def around_first_task(ours: Around) -> None:
    """Because Luigi builds the root task before anybody could check the settings that flags have changed."""
    CmdlineParser.get_task_obj = _around(CmdlineParser.get_task_obj, ours)


def connect_with(ours: Callable[[str], Any]) -> None:
    """Because Luigi alone is silent for minutes when no luigid answers."""

    def create_remote_scheduler(self: object, url: str) -> Any:
        return ours(url)

    luigi.interface._WorkerSchedulerFactory.create_remote_scheduler = create_remote_scheduler


def make_workers_with(ours: Callable[..., Any]) -> None:
    """Because Luigi has no setting for the class of its worker."""

    def create_worker(self: object, scheduler: Any, worker_processes: int, assistant: bool = False) -> Any:
        return ours(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)

    luigi.interface._WorkerSchedulerFactory.create_worker = create_worker


def hide_warnings_with_addresses() -> None:
    """Because Luigi reads some settings of [core] by a way of its own, and then calls them unknown, with their values.
    The address of a luigid may hold a password, and so may any other."""
    warnings.filterwarnings("ignore", message=".*'(rpc_retry_(attempts|wait)|default_scheduler_(host|port|url))'.*")
    warnings.filterwarnings("ignore", message="The configuration contains the parameter .*://")
    warnings.filterwarnings("ignore", message=r"The configuration contains the parameter [\s\S]*[^\x20-\x7e]")


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """Because ``luigi.build`` sets up logging of its own, unless it believes that this was done before."""
    before, InterfaceLogging._configured = InterfaceLogging._configured, True
    try:
        yield
    finally:
        InterfaceLogging._configured = before


def around_luigid_application(ours: Around) -> None:
    """Because luigid has no hook for who may talk to it: ``server.run`` makes its application by ``server.app``."""
    import luigi.server  # with a web server, which no run needs

    luigi.server.app = _around(luigi.server.app, ours)
