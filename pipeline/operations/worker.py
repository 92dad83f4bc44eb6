"""Luigi's worker, which also knows what failed for good, and that others may have done its tasks or forgotten it.

The scheduler never sees the class of an error: it would repeat whatever failed. What failed for good is therefore
disabled by the worker itself. Unlike a task that the scheduler disables, such a one runs at once when a later call asks
for it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import traceback
from collections import Counter
from types import FrameType
from typing import Any

import luigi.scheduler
import luigi.worker
from luigi.rpc import RemoteScheduler
from luigi.task_status import DISABLED, DONE, FAILED, PENDING

from .. import completeness
from ..errors import PipelineError, TransientError
from . import journal
from .rpc import Announcer

LOGGER = logging.getLogger("pipeline")

#: The end of an explanation of an error that the same run would meet again.
NOT_AGAIN = "(not tried again in this run)"

#: Seconds between two looks, while nothing can be done, for tasks that lost their host.
LOOK_EVERY = 5.0

#: Seconds that a run waits for the scheduler to offer a failed task again. Ours does so after a few; one that was
#: started with other settings may want to wait for a quarter of an hour, and that for ever.
PATIENCE = 60


def explain(title: str, error: BaseException) -> str:
    """What luigid shows of a task that failed: one line with the month, and the traceback of what we did not foresee.

    Errors that may pass are tried again by the scheduler when the stage itself has given up, and so is a task whose
    dependency was taken away. Nobody has said of any other that another try would help.
    """
    if isinstance(error, RuntimeError) and str(error).startswith("Unfulfilled depend"):
        return f"{title}: {error}"
    if isinstance(error, TransientError):
        return f"{title}: {type(error).__name__}: {error}"
    if isinstance(error, PipelineError):
        return f"{title}: {type(error).__name__}: {error} {NOT_AGAIN}"
    return f"{title}: {''.join(traceback.format_exception(error))}{NOT_AGAIN}"


class Worker(luigi.worker.Worker):
    """One run's worker."""

    _scheduler: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pid = os.getpid()
        self._failures: Counter[str] = Counter()
        self._next_look = 0.0
        self._failed_at: dict[str, float] = {}  # those that wait to be offered again
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._stop_gently)

    def _stop_gently(self, number: int, frame: FrameType | None) -> None:
        """Finish the running tasks and take no more; told so twice, end at once. Child processes end at once."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() == self._pid:
            self._start_phasing_out()
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    # -- planning ----------------------------------------------------------------------------------

    def add(self, *args: Any, **kwargs: Any) -> bool:
        """As Luigi has it, with several tasks on their way to luigid at once: it is told of thousands, one by one."""
        scheduler = self._scheduler
        if not isinstance(scheduler, RemoteScheduler):
            return bool(super().add(*args, **kwargs))
        try:
            with Announcer(scheduler) as self._scheduler:
                return bool(super().add(*args, **kwargs))
        finally:
            self._scheduler = scheduler

    # -- failures ----------------------------------------------------------------------------------

    def _add_task(self, *args: Any, **kwargs: Any) -> None:
        super()._add_task(*args, **kwargs)
        if kwargs["status"] == FAILED:
            task_id = kwargs["task_id"]
            self._failures[task_id] += 1
            self._failed_at[task_id] = time.monotonic()
            is_for_good = json.loads(kwargs.get("expl") or '""').endswith(NOT_AGAIN)
            is_enough = self._failures[task_id] >= luigi.scheduler.scheduler().retry_count
            self._give_up(task_id, {FAILED, PENDING, DISABLED} if is_for_good or is_enough else {DISABLED})

    def _run_task(self, task_id: str) -> None:
        self._failed_at.pop(task_id, None)
        super()._run_task(task_id)

    def _give_up(self, task_id: str, states: set[str]) -> None:
        """Disable a task, if the scheduler has it in one of the states, until the next call asks for it.

        Done again by the worker for one that the scheduler has disabled by itself: that would not run at the next call.
        """
        for status, tasks in self._scheduler.task_search(task_str=task_id).items():
            if task_id in tasks and status in states:
                link = tasks[task_id]["tracking_url"]
                self._failed_at.pop(task_id, None)
                self._scheduler.add_task(
                    task_id=task_id, worker=self._id, status=DISABLED, runnable=False, tracking_url=link
                )

    # -- other hosts -------------------------------------------------------------------------------

    def run(self) -> bool:
        """Work until nothing is left; then look what others have done of it, and go on if the scheduler forgot us.

        It forgets a worker that it has not heard of for ``[scheduler] worker_disconnect_delay`` seconds, and all of
        them if luigid lost its state.
        """
        succeeded = bool(super().run())
        while not self._assistant and not self._stop_requesting_work and self._register_again(self._left_over()):
            succeeded = bool(super().run()) and succeeded
        return succeeded

    def _keep_alive(self, get_work_response: Any) -> bool:
        for task_id, since in list(self._failed_at.items()):
            if time.monotonic() - since > PATIENCE:
                self._failed_at[task_id] = time.monotonic()
                self._give_up(task_id, {FAILED})
        if not self._assistant and not get_work_response.running_tasks:
            self._adopt()
        # What could not be scheduled never becomes ready, and neither does what needs it.
        is_waiting = self.add_succeeded or bool(get_work_response.running_tasks)
        return bool(is_waiting and super()._keep_alive(get_work_response))

    def _adopt(self) -> None:
        """Tell the scheduler anew of tasks that it would give to nobody.

        Their host was at them or had just done them when this run was planned, so this run did not ask for them, and
        was gone before it could say so.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_EVERY
        known = self._scheduler.dep_graph(task_id=self._first_task)
        for name, task in list(self._scheduled_tasks.items()):
            if name in known and known[name]["status"] == PENDING and not known[name]["workers"]:
                with completeness.running():  # not what was true when the run was planned
                    list(self._add(task, _is_complete(task)))

    def _left_over(self) -> list[luigi.Task]:
        """Tasks of this run that nobody has done. Those that others have done are noted as done."""
        last = {task.task_id: (task, status) for task, status, _ in self._add_task_history}
        pending = {name: task for name, (task, status) in last.items() if status == PENDING}
        with completeness.running(), completeness.scheduling():  # not what was true when the run was planned
            done = {name for name, task in pending.items() if _is_complete(task)}
        for name in done:
            self._add_task_history.append((pending[name], DONE, None))
            task = pending[name]
            if task.task_family == "MonthlyTrips":
                journal.record_all_loaded(task)
        left = {name: task for name, task in pending.items() if name not in done}
        for response in self._get_work_response_history:  # from these Luigi tells what was left to others
            response["running_tasks"] = [task for task in response["running_tasks"] if task["task_id"] in left]
        return list(left.values())

    def _register_again(self, tasks: list[luigi.Task]) -> bool:
        """Tell the scheduler of those tasks that it does not know to be ours. Returns whether there were any."""
        if not tasks:
            return False
        known = self._scheduler.dep_graph(task_id=self._first_task)
        unknown = [task for task in tasks if self._id not in known.get(task.task_id, {}).get("workers", ())]
        for task in unknown:
            list(self._add(task, is_complete=False))
        if unknown:
            LOGGER.info("the scheduler had forgotten this run; %s tasks are left to do", f"{len(unknown):,}")
        return bool(unknown)


def _is_complete(task: luigi.Task) -> bool:
    try:
        return bool(task.complete())
    except PipelineError:
        return False
