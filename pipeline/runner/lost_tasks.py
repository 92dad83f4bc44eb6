"""Tasks whose status in the scheduler is wrong: forgotten, marked as done, or running in a process that is gone.

The scheduler forgets tasks when luigid loses its state, and anybody can mark a task as done on its page. A run trusts
what it finds itself, and announces again what it needs.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import luigi
from luigi.task_status import DISABLED, DONE, PENDING, UNKNOWN

from .. import remote
from ..errors import PipelineError
from ..planning.state import CachedState
from ..planning.task_state import is_complete
from ..reporting import journal
from .failures import Failures
from .task_list import TaskList, is_external

LOGGER = logging.getLogger("pipeline")

#: Limit for announcing one task again in one run, for a scheduler that loses it each time.
ANNOUNCEMENTS = 20


class LostTasks:
    """Corrects the scheduler's view of one run's tasks, by ``announce``, which tells it of tasks and their needs."""

    def __init__(self, tasks: TaskList, failures: Failures, announce: Callable[[Iterable[luigi.Task]], None]) -> None:
        self._tasks = tasks
        self._failures = failures
        self._announce = announce
        self._announcements: Counter[str] = Counter()
        self.is_all_done = False  # whatever the scheduler says that is pending

    def reannounce_forgotten(self, known: Mapping[str, dict[str, Any]], is_end: bool = False) -> bool:
        """Note what others have done of this run, and announce all again if the scheduler has lost some of it.

        It forgets a worker that it has not heard of for ``[scheduler] worker_disconnect_delay`` seconds, and all of
        them if luigid lost its state. It gives a task to nobody whose host was gone before it could say what became of
        it. And it believes those done that somebody has marked so. ``known`` is what it knows of the run now. Returns
        whether anything was lost.
        """
        last = self._tasks.last()
        done = self._note_done(
            task
            for task_id, (task, status) in last.items()
            if (status == PENDING and is_end) or (status != DONE and _status(known.get(task_id)) == DONE)
        )
        left = {
            task_id: task
            for task_id, (task, status) in last.items()
            if status == PENDING and task_id not in done and not is_external(task)
        }
        lost = [task for task_id, task in left.items() if self._is_never_offered(known.get(task_id))]
        lost += [task for name, (task, status) in last.items() if status == DONE and _is_reopened(known.get(name))]
        lost = [task for task in lost if self._announcements[task.task_id] < ANNOUNCEMENTS]
        enabled = {name for name in left if known.get(name, {}).get("re_enable_able") and self._failures.enable(name)}
        self.is_all_done = not lost and all(status == DONE or name in done for name, (_, status) in last.items())
        if lost:
            self._announcements.update(task.task_id for task in lost)
            LOGGER.info("the scheduler had forgotten tasks of this run; %s are left to do", f"{len(left):,}")
            self._announce([*self._tasks.roots.values(), *lost])
        elif is_end:
            for task_id in left:
                if _status(known.get(task_id)) == DISABLED and task_id not in self._failures.given_up | enabled:
                    self._failures.give_up_elsewhere(task_id)
            self._tasks.forget_running(except_for=left)
        return bool(lost or enabled)

    def _is_never_offered(self, shown: Mapping[str, Any] | None) -> bool:
        """Whether the scheduler will never give this run a task that is left to do, by what it shows of the task."""
        status = _status(shown)
        is_for_others = status == PENDING and shown is not None and self._tasks.worker_id not in shown["workers"]
        return is_for_others or status in (UNKNOWN, DONE)

    def reannounce_orphans(self, running: list[dict[str, Any]], is_late: bool) -> bool:
        """Correct a scheduler that waits for tasks to be ended by runs that are gone, or have nothing to do with them.

        It may have restarted with an old state. It gives up a silent run by itself after some seconds, which are a
        setting of its own; ``is_late`` says that we have waited longer than that. Returns whether there was
        something to correct.
        """
        last, scheduled = self._tasks.last(), self._tasks.scheduled
        theirs = {shown["task_id"]: shown for shown in running if shown["task_id"] in scheduled}
        done = {task_id for task_id in theirs if last.get(task_id, (None, ""))[1] == DONE}
        if is_late:
            done |= self._note_done([scheduled[task_id] for task_id in theirs.keys() - done])
        gone = {task_id for task_id in theirs.keys() - done if is_late and _is_gone(theirs[task_id])}
        gone = {task_id for task_id in gone if self._announcements[task_id] < ANNOUNCEMENTS}
        for task_id in done | gone:
            LOGGER.info("the scheduler lists %s as running in a process that has ended", self._tasks.name(task_id))
            self._tasks.scheduler.mark_as_done(task_id=task_id)  # the one way to end it, and to offer it again
        self._announcements.update(gone)
        if gone:
            self._announce([scheduled[task_id] for task_id in gone])
        return bool(done | gone)

    def are_all_external(self) -> bool:
        """Whether all that is left needs external data, of somebody else's tasks, which no worker makes."""
        left = {name: task for name, (task, status) in self._tasks.last().items() if status != DONE}
        stuck = {name for name, task in left.items() if is_external(task)}
        if not stuck:
            return False
        stuck |= self._failures.given_up & left.keys()
        before = 0
        while len(stuck) > before:
            before = len(stuck)
            stuck |= {name for name, task in left.items() if any(needed.task_id in stuck for needed in task.deps())}
        return stuck >= left.keys()

    def _note_done(self, tasks: Iterable[luigi.Task]) -> set[str]:
        """Note those as done that are complete now, whoever did them. Returns their ids."""
        done = set()
        with remote.planning(), CachedState() as state:  # not what was true before the run
            for task in tasks:
                try:
                    if not is_complete(task, state):
                        continue
                except PipelineError:
                    break  # nobody answers; to ask about all others would take as long each time
                except Exception:
                    continue
                done.add(task.task_id)
                self._tasks.note_done(task)
                if task.task_family == "MonthlyTrips":
                    journal.record_all_loaded(task.task_id, task.partition, task.warehouses)
        return done


def _status(shown: Mapping[str, Any] | None) -> str:
    """The status of a task by what the scheduler shows of it, which is nothing of a task that it does not know."""
    return str(shown["status"]) if shown is not None else UNKNOWN


def _is_reopened(shown: Mapping[str, Any] | None) -> bool:
    """Whether the scheduler waits for a task that is done, and gives it to nobody."""
    return shown is not None and (shown["status"] == UNKNOWN or (shown["status"] == PENDING and not shown["workers"]))


def _is_gone(worker: dict[str, Any]) -> bool:
    """Whether a worker that the scheduler shows was a process of this host and is none any more."""
    try:
        if worker.get("host") == socket.gethostname():
            os.kill(int(worker["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, LookupError, TypeError, ValueError, OverflowError):
        pass
    return False
