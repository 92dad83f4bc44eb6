"""What a run waits for while the scheduler has no task for it: reported, corrected, and limited to hours."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from luigi.task_status import DONE, FAILED, PENDING, RUNNING

from ..reporting import journal
from ..reporting.progress import RunProgress
from ..waiting import SAID_AFTER
from .failures import Failures
from .lost_tasks import LostTasks
from .task_list import TaskList

LOGGER = logging.getLogger("pipeline")

#: Seconds between two checks of the run's tasks in the scheduler while there is nothing to do.
LOOK_EVERY = 5.0

#: Seconds of waiting for a task of another run after which it is checked whether that run is alive, or the task done.
GONE_AFTER = 20.0

#: Longest wait in seconds for the same cause: a paused luigid, a resource that is 0 there, a task of another run.
WAITS_AT_MOST = 12 * 3600.0


class Idle:
    """Watches one run while it waits, and corrects the scheduler where the wait is in vain."""

    def __init__(
        self, tasks: TaskList, lost: LostTasks, failures: Failures, interval: float, stop: Callable[[], None]
    ) -> None:
        """``interval`` has the seconds between two questions for work; ``stop`` ends the run."""
        self._tasks = tasks
        self._lost = lost
        self._failures = failures
        self._interval = interval
        self._stop = stop
        self._next_look = 0.0
        self._since: float | None = None
        self._kind_told = ""
        self._cause_told, self._same_since = "", 0.0

    def look(self, response: Any) -> None:
        """The scheduler has answered ``response`` without a task: check whether that is right, and report why."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        waited, running = now - self._since, response.running_tasks
        known = {} if running else self._tasks.known()
        is_corrected = (
            self._lost.reannounce_orphans(running, is_late=waited > GONE_AFTER)
            if running
            else self._lost.reannounce_forgotten(known)
        )
        if is_corrected:
            return
        self._failures.hurry(known, now)
        if waited + self._interval >= SAID_AFTER:  # the next check is one interval later
            self._tell(*self._cause(response, known), now)

    def is_over(self) -> None:
        """The run goes on, or ends."""
        self._since = None
        self._cause_told = ""
        if self._kind_told:
            self._kind_told = ""
            RunProgress().waiting("")

    def _tell(self, kind: str, text: str, now: float) -> None:
        if text != self._cause_told:
            self._cause_told, self._same_since = text, now
        elif now - self._same_since > WAITS_AT_MOST:
            hours = f"{WAITS_AT_MOST / 3600:g}"
            LOGGER.error("this run %s; that has not changed for %s hours, and so the run ends", text, hours)
            self._stop()
        if kind != self._kind_told:
            self._kind_told = kind
            RunProgress().waiting(text)
        elif journal.is_mine():
            journal.record("waiting", text=text)

    def _cause(self, response: Any, known: Mapping[str, dict[str, Any]]) -> tuple[str, str]:
        """What this run waits for: the kind of cause, and a text."""
        name = self._tasks.name
        if self._tasks.scheduler.is_paused()["paused"]:
            return "paused", "waits because luigid is paused; the switch on its page lets it run again"
        if response.running_tasks:
            task = response.running_tasks[0]
            others = len(response.running_tasks) - 1
            more = f" and {others:,} more" if others else ""
            who = f"PID {task.get('pid')} on {task.get('host')}"
            return "others", f"waits for {name(task['task_id'])}{more}, which another run does ({who})"
        ready = {
            task_id: task
            for task_id, task in known.items()
            if task["status"] == PENDING
            and self._tasks.worker_id in task["workers"]
            and all(known.get(needed, {}).get("status") == DONE for needed in task["deps"])
        }
        for task_id, task in ready.items():
            for resource, amount in (task.get("resources") or {}).items():
                taken = self._taken(resource, amount)
                if taken:
                    return f"resource {resource}", f"waits to do {name(task_id)}: [resources] {resource}{taken}"
        if ready:
            return "ready", f"waits until luigid offers {name(next(iter(ready)))}; tasks of other runs come first"
        failed = [task_id for task_id, task in known.items() if task["status"] == FAILED]
        if failed:
            return "failed", f"waits to try {name(failed[0])} again, which has failed"
        return "rest", f"waits for luigid to offer {response.n_pending_tasks:,} tasks"

    def _taken(self, resource: str, amount: int) -> str:
        """By whom a resource is taken, if less than ``amount`` of it is left."""
        scheduler = self._tasks.scheduler
        totals = {found["name"]: found["num_total"] for found in scheduler.resource_list()}
        total = totals.get(resource, 1)
        if total < amount:
            return f" = {total} where the scheduler runs lets no such task run; raise it there"
        running = scheduler.task_list(status=RUNNING, upstream_status="")
        holders = {
            task_id: task
            for task_id, task in running.items()
            if isinstance(task, dict) and (task.get("resources_running") or {}).get(resource)
        }
        used = sum(task["resources_running"][resource] for task in holders.values())
        if used + amount <= total:
            return ""
        task_id, task = next(iter(holders.items()))
        who = dict(re.findall(r"(host|pid)=([^,)]+)", task.get("worker_running") or ""))
        more = f" and {len(holders) - 1:,} more" if len(holders) > 1 else ""
        name = self._tasks.name(task_id, task)
        return f" = {total} is taken by {name}{more} (PID {who.get('pid')} on {who.get('host')})"
