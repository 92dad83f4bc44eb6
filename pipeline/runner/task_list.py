"""The list of a run's tasks with their statuses, as Luigi's worker and the scheduler know them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import luigi
import luigi.execution_summary
import luigi.worker
from luigi.task_status import DONE, PENDING, UNKNOWN

from ..reporting.explanations import title_of

#: A task, its status, and whether this run can do it (None for the outcome of a run), as Luigi's worker notes them.
Note = tuple[luigi.Task, str, bool | None]


@dataclass(frozen=True)
class TaskList:
    """A live view of a worker's tasks.

    ``scheduled`` has the tasks by id, ``history`` every status that the scheduler was told, ``answers`` what it said
    when it was asked for work, and ``roots`` the tasks that were asked for, by id. ``scheduler`` is Luigi's, or stands
    for luigid: its methods are the calls that luigid answers.
    """

    scheduler: Any
    worker_id: str
    scheduled: dict[str, luigi.Task]
    history: list[Note]
    answers: list[dict[str, Any]]
    roots: dict[str, luigi.Task] = field(default_factory=dict)

    @classmethod
    def of(cls, worker: luigi.worker.Worker) -> TaskList:
        return cls(
            worker._scheduler,
            worker._id,
            worker._scheduled_tasks,
            worker._add_task_history,
            worker._get_work_response_history,
        )

    def last(self) -> dict[str, tuple[luigi.Task, str]]:
        """Each task with the status that was noted last, by id."""
        return {task.task_id: (task, status) for task, status, _ in self.history}

    def pending(self) -> list[luigi.Task]:
        """Those that were to be done at some time of the run."""
        return [task for task, status, _ in self.history if status == PENDING]

    def note_done(self, task: luigi.Task) -> None:
        """Let Luigi's summary and exit code count a task as done."""
        self.history.append((task, DONE, None))

    def note_all_done(self) -> None:
        """The same for all tasks of the run."""
        self.history[:] = [note for note in self.history if note[1] != UNKNOWN]
        done = {task for task, status, _ in self.history if status == DONE}
        for task in {*self.pending()} - done:
            self.note_done(task)
        self.forget_running()

    def forget_running(self, except_for: Container[str] = ()) -> None:
        """Let Luigi's summary leave out tasks that other runs were doing, but for some by id."""
        for answer in self.answers:
            answer["running_tasks"] = [task for task in answer["running_tasks"] if task["task_id"] in except_for]

    @property
    def has_run(self) -> bool:
        """Whether the scheduler has offered any."""
        return any(answer["task_id"] for answer in self.answers)

    def known(self) -> dict[str, dict[str, Any]]:
        """What the scheduler knows of the run's tasks, by id."""
        known: dict[str, dict[str, Any]] = {}
        for root in self.roots:
            if root not in known:
                known.update(self.scheduler.dep_graph(task_id=root))
        return known

    def counts_as_done(self, task_id: str) -> bool:
        """Whether the scheduler believes that a task is done."""
        return task_id in self.scheduler.task_search(task_str=task_id).get(DONE, {})

    def name(self, task_id: str, shown: Mapping[str, Any] | None = None) -> str:
        """What people call a task, of this run or of another one that luigid ``shows``."""
        if task_id in self.scheduled:
            return title_of(self.scheduled[task_id])
        if shown is None:
            return task_id
        parameters = shown.get("params") or {}
        return " ".join(filter(None, (shown.get("name"), parameters.get("dataset"), parameters.get("month"))))


def summary_of(worker: luigi.worker.Worker) -> dict[str, Any]:
    """The tasks of a worker that has ended by what became of them, as Luigi's own summary and exit code have them."""
    found: dict[str, Any] = luigi.execution_summary._summary_dict(worker)
    return found


def was_stopped(worker: luigi.worker.Worker) -> bool:
    """Whether somebody told the worker to take no more tasks."""
    return bool(worker._stop_requesting_work)


def is_external(task: luigi.Task) -> bool:
    """Whether a task only stands for data that somebody else makes."""
    return bool(luigi.worker._is_external(task))
