"""How far a stage is: told to the run's journal, to luigid, and from there to people."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from . import journal

if TYPE_CHECKING:
    from ..stages.base import MonthTask

#: Seconds between two reports of one stage; a report to luigid is a request.
INTERVAL = 0.5

LOGGER = logging.getLogger("pipeline")


class StageProgress:
    """Called by a stage with what it has done; passes on as much as anyone can read."""

    def __init__(self, task: MonthTask) -> None:
        self._task = task
        self._next = 0.0
        self._about = {
            "task": task.task_id,
            "stage": task.task_family,
            "dataset": task.dataset,
            "month": f"{task.month:%Y-%m}" if task.month else None,
            "warehouse": getattr(task, "warehouse", None),
        }

    def started(self) -> None:
        journal.record("stage", state="started", **self._about)

    def __call__(self, done: int, total: int, unit: str = "rows", note: str = "") -> None:
        """``done`` of ``total`` units; a total of 0 means that nobody knows. Cheap: most calls do nothing."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        journal.record("stage", state="running", done=done, total=total, unit=unit, note=note, **self._about)
        tell = getattr(self._task, "set_status_message", None)  # set by Luigi while the task runs
        if tell:
            tell(f"{done:,} of {total:,} {unit}{note}" if total else f"{done:,} {unit}{note}")
        percentage = getattr(self._task, "set_progress_percentage", None)
        if percentage and total:
            percentage(min(100, done * 100 // total))

    def done(self, details: dict[str, Any], seconds: float) -> None:
        journal.record("stage", state="done", seconds=seconds, **details, **self._about)
        shown = ", ".join(
            f"{value:,} {name.replace('_', ' ')}" for name, value in details.items() if isinstance(value, int)
        )
        LOGGER.info("%s: %s, %.1f s", self._task.title, shown or "done", seconds)

    def failed(self, error: BaseException, seconds: float) -> None:
        journal.record(
            "stage", state="failed", seconds=seconds, error=type(error).__name__, message=str(error), **self._about
        )
