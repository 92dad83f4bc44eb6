"""Failed tasks of one run: why they failed, which the scheduler may offer again, and which are disabled.

The scheduler does not see the class of an error and repeats every failed task. Therefore the run disables the tasks
that would fail again. Unlike a task that the scheduler disables, such a task runs at once in a later run.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Container, Mapping
from typing import Any

import luigi.scheduler
from luigi.task_status import DISABLED, FAILED, PENDING

from ..partition import format_month
from ..reporting import journal
from ..reporting.explanations import NOT_AGAIN, error_of, text_of
from .task_list import TaskList

LOGGER = logging.getLogger("pipeline")

#: Longest wait in seconds for the scheduler to offer a failed task again. Ours does so after a few seconds; one with
#: other settings may take a quarter of an hour, each time.
OFFERED_WITHIN = 60


class Failures:
    """The failures of one run, and what the scheduler does about them."""

    def __init__(self, tasks: TaskList) -> None:
        self._tasks = tasks
        self._counts: Counter[str] = Counter()
        self._explanations: dict[str, str] = {}  # of the last failure of each task
        self._failed_at: dict[str, float] = {}  # tasks that wait to be offered again
        self._failed_elsewhere: dict[str, float] = {}  # the same for tasks of other runs, by when they were first seen
        self._enabled: set[str] = set()  # in this run, after the scheduler had disabled them by itself
        self.given_up: set[str] = set()

    def note(self, task_id: str, explanation: str) -> None:
        """A task of this run has failed: let the scheduler offer it again, or disable it if it would fail again."""
        self._counts[task_id] += 1
        self._failed_at[task_id] = time.monotonic()
        explanation = self._explanations[task_id] = text_of(explanation)
        error, message = self._error_of(task_id)
        if message and not error:  # the process of the task logs errors of our own classes
            LOGGER.error("%s: %s", self._tasks.name(task_id), message)
        is_for_good = explanation.endswith(NOT_AGAIN)
        is_enough = self._counts[task_id] >= luigi.scheduler.scheduler().retry_count
        if is_for_good or is_enough:
            self._disable(task_id, {FAILED, PENDING, DISABLED})
        elif not self.enable(task_id):
            self._disable(task_id, {DISABLED})

    def is_offered_again(self, task_id: str) -> None:
        self._failed_at.pop(task_id, None)

    def is_done(self, task_id: str) -> None:
        """The task was done after all, or somebody marked it as done."""
        self.given_up.discard(task_id)

    def give_up_late(self) -> None:
        """Disable those that the scheduler has not offered again for too long."""
        for task_id, since in list(self._failed_at.items()):
            if time.monotonic() - since > OFFERED_WITHIN:
                self._failed_at[task_id] = time.monotonic()
                self._disable(task_id, {FAILED})

    def give_up_waiting(self) -> None:
        """Give up all failed tasks at the end of the run."""
        for task_id in list(self._failed_at):
            self._note_given_up(task_id)

    def give_up_elsewhere(self, task_id: str) -> None:
        """Give up a task that another run has disabled."""
        told = text_of(self._tasks.scheduler.fetch_error(task_id=task_id)["error"] or "")
        self._explanations[task_id] = told or "the hosts that did it died"
        self._note_given_up(task_id)

    def hurry(self, known: Mapping[str, dict[str, Any]], now: float) -> None:
        """Let the scheduler offer tasks that failed in other runs as early as our own: their host may have died."""
        failed = {task_id for task_id, task in known.items() if task["status"] == FAILED} - set(self._failed_at)
        self._failed_elsewhere = {task_id: self._failed_elsewhere.get(task_id, now) for task_id in failed}
        for task_id, since in self._failed_elsewhere.items():
            if now - since > OFFERED_WITHIN:
                self._tasks.scheduler.forgive_failures(task_id=task_id)

    def enable_again(self) -> None:
        """Let the scheduler offer tasks again that it disabled in earlier runs, because hosts died with them."""
        scheduler = self._tasks.scheduler
        for task_id, task in scheduler.task_list(status=DISABLED, upstream_status="").items():
            if task_id in self._tasks.scheduled and task.get("re_enable_able"):
                scheduler.re_enable_task(task_id=task_id)
                scheduler.forgive_failures(task_id=task_id)

    def enable(self, task_id: str) -> bool:
        """Let the scheduler offer a task again that it has disabled; once per run.

        It counts the failures of all runs within an hour, including earlier runs. A task that it disables once more is
        given up, as it may kill each host that runs it.
        """
        if task_id in self._enabled or not self._tasks.scheduler.re_enable_task(task_id=task_id):
            return False
        self._enabled.add(task_id)
        self._tasks.scheduler.forgive_failures(task_id=task_id)
        return True

    def _error_of(self, task_id: str) -> tuple[str, str]:
        return error_of(self._explanations.get(task_id, ""), self._tasks.name(task_id))

    def _disable(self, task_id: str, states: Container[str]) -> None:
        """Disable a task, if the scheduler has it in one of the states, until a later run asks for it.

        A task that the scheduler has disabled itself is disabled again, or it would not run in a later run.
        """
        scheduler = self._tasks.scheduler
        for status, tasks in scheduler.task_search(task_str=task_id).items():
            if task_id in tasks and status in states:
                link = tasks[task_id]["tracking_url"]
                scheduler.add_task(
                    task_id=task_id, worker=self._tasks.worker_id, status=DISABLED, runnable=False, tracking_url=link
                )
                self._note_given_up(task_id)
                scheduler.set_task_status_message(
                    task_id=task_id, status_message=": ".join(filter(None, self._error_of(task_id)))
                )

    def _note_given_up(self, task_id: str) -> None:
        """Record in the journal that a task is not tried again in this run, and its last error."""
        self._failed_at.pop(task_id, None)
        self.given_up.add(task_id)
        task = self._tasks.scheduled.get(task_id)  # None if it is another run's that cannot be loaded here
        error, message = self._error_of(task_id)
        month = getattr(task, "month", None)
        journal.record(
            "given up",
            task=task_id,
            family=getattr(task, "task_family", task_id.partition("_")[0]),
            dataset=getattr(task, "dataset", None),
            month=format_month(month) if isinstance(month, dt.date) else None,
            warehouse=getattr(task, "warehouse", None),
            error=error,
            message=message,
        )
