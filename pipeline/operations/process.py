"""What surrounds a task while it runs (named by ``[worker] task_process_context`` in luigi.cfg), and its run."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from .. import completeness
from . import logs


class TaskContext:
    """Looks afresh instead of trusting what was true while scheduling, logs, and dies with its parent.

    Luigi leaves the children of a killed worker alive; they would go on writing while another host does the same task.
    The kernel's own way to end them (PR_SET_PDEATHSIG) sees only the fork server, which outlives its children.
    """

    def __init__(self, task_process: Any) -> None:
        self._task_process = task_process
        self._stack = ExitStack()

    def __enter__(self) -> TaskContext:
        if multiprocessing.parent_process() is not None:  # with one worker tasks run in the main process
            die_with_parent()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the main process, and that stops this one
            logs.configure()
        self._stack.enter_context(completeness.running())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def die_with_parent() -> None:
    """End this worker process when the main process of its run ends, however that ends."""
    main = multiprocessing.parent_process()
    assert main is not None, "only for worker processes"
    threading.Thread(target=_end_after, args=(main,), name="die with parent", daemon=True).start()


def _end_after(main: Any) -> None:
    main.join()  # returns at once if it ended before we asked
    os.kill(os.getpid(), signal.SIGKILL)


def hear_every_interrupt() -> None:
    """Let Ctrl-C stop this process even if it comes while a finalizer runs, where Python reports and drops it."""
    report = sys.unraisablehook

    def interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.05, _thread.interrupt_main).start()  # by then the finalizer is through
        else:
            report(unraisable)

    sys.unraisablehook = interrupt_again
