"""What surrounds a task while it runs: named by ``[worker] task_process_context`` in luigi.cfg."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from .. import completeness
from . import logs

_PR_SET_PDEATHSIG = 1


class TaskContext:
    """Looks afresh instead of trusting what was true while scheduling, logs, and dies with its parent.

    Luigi leaves the children of a killed worker alive; they would go on writing while another host does the same task.
    The kernel ends them where it can (Linux). Elsewhere atomic, idempotent outputs make the double work harmless.
    """

    def __init__(self, task_process: Any) -> None:
        self._task_process = task_process
        self._stack = ExitStack()

    def __enter__(self) -> TaskContext:
        if multiprocessing.parent_process() is not None:  # with one worker tasks run in the main process
            die_with_parent()
            logs.configure()
        self._stack.enter_context(completeness.running())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however that ends. Does nothing but on Linux."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)
