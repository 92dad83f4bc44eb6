"""Signals that stop a run and its worker processes, and the end of a process together with the one that started it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Environment variable with the process id of the parent, for a process that must not outlive it.
PARENT = "PIPELINE_PARENT_PID"

#: Signals at which a run finishes its running tasks and takes no more: from systemd and others, and from a terminal
#: that is closed.
STOPS = (signal.SIGTERM, signal.SIGHUP)

#: Seconds between two checks of whether the parent is there.
WATCH_EVERY = 0.5


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start worker processes with Ctrl-C and ``STOPS`` blocked until ``TaskContext`` handles them: the signals stop the
    main process, and that stops its workers. A Ctrl-C within this context takes effect at its end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    multiprocessing.resource_tracker.ensure_running()  # at its own start it would let interrupts through again
    heard: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    # The mask is for the children. Another thread may still take the signal, and Python would raise its exception in
    # this one: between the two halves of a message to the fork server.
    handler = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number)) if is_main else None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *STOPS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)


def exit_with_main_process() -> None:
    """End this worker process when the main process of its run ends, however that ends."""
    main = multiprocessing.parent_process()
    assert main is not None, "only for worker processes"
    _exit_after(main.join)  # which returns at once if the process ended before


def exit_with_agent(pid: int) -> None:
    """End this process when its parent ``pid`` ends, however that ends; for a process that an agent has started."""

    def watch() -> None:
        while os.getppid() == pid:
            time.sleep(WATCH_EVERY)

    _exit_after(watch)


def _exit_after(wait: Callable[[], None]) -> None:
    """End this process at once when ``wait``, which runs in a thread, returns."""

    def wait_and_exit() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_exit, name="exit with parent", daemon=True).start()


def interrupt_finalizers_too() -> None:
    """Let Ctrl-C stop this process even while a finalizer runs, where Python prints and drops the exception."""
    report, main = sys.unraisablehook, threading.main_thread().ident
    assert main is not None, "it has begun"

    def interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            # After the finalizer. Only a signal wakes up a waiting main thread.
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        else:
            report(unraisable)

    sys.unraisablehook = interrupt_again
