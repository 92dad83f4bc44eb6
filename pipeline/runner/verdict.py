"""The verdict on a run that Luigi's worker has ended: its exit code and result. Also its plan, as journal events.

The verdict knows what the journal of the stages cannot: somebody else's tasks, and what another host did meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import luigi
from luigi.retcodes import retcode
from luigi.task_status import DONE as TASK_DONE

from .. import remote
from ..errors import MissingAtPublisher
from ..partition import Partition
from ..planning.plan import COMPLETE, TO_DO, Plan
from ..planning.state import CachedState
from ..planning.task_state import is_complete
from ..reporting.outcomes import FAILED, GAPS, GOALS, PLANNING_FAILED, STOPPED, UNFINISHED
from .task_list import Note, TaskList, summary_of, was_stopped


def plan_events(history: Iterable[Note]) -> list[dict[str, Any]]:
    """The events "plan" of the tasks that a worker has scheduled: one for the months that have the same goal.

    Ranges and other wrappers bring their plan; a month that was asked for by itself is complete or to do.
    """
    history = list(history)
    plans = [plan for task, _, _ in history if isinstance(plan := getattr(task, "__dict__", {}).get("plan"), Plan)]
    planned = {entry.partition: (entry.state, entry.reason) for plan in plans for entry in plan}
    goals = _goals(history)
    events: dict[tuple[str, str], dict[str, Any]] = {}
    for partition in {**planned, **goals}:
        goal, warehouses, state = goals.get(partition, (GOALS[-1], "", TO_DO))
        labels = [label for label in warehouses.split(",") if label]
        event = events.setdefault((goal, warehouses), {"goal": goal, "warehouses": labels, "entries": []})
        entry = planned.get(partition, (state, ""))
        event["entries"].append((partition.dataset, partition.month_text, *entry))
    return list(events.values())


def _goals(history: Iterable[Note]) -> dict[Partition, tuple[str, str, str]]:
    """For each month the last stage that is asked for, its warehouses, and whether the month is complete or to do."""
    found: dict[Partition, list[tuple[Any, str]]] = {}
    for task, status, _ in history:
        if task.task_family in GOALS and hasattr(task, "partition"):
            found.setdefault(task.partition, []).append((task, status))
    goals = {}
    for partition, tasks in found.items():
        last = max(reversed(tasks), key=lambda each: GOALS.index(each[0].task_family))[0]
        is_complete = all(status == TASK_DONE for _, status in tasks)
        warehouses = str(getattr(last, "warehouse", "") or "")
        goals[partition] = last.task_family, warehouses, COMPLETE if is_complete else TO_DO
    return goals


def judge(worker: Any, roots: list[luigi.Task], events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The event "judged" of a run that Luigi's worker has ended: its exit code, its result, and why it is not well.

    Luigi's worker knows what it did itself. A root task that it has not completed is asked again: what failed in
    passing, or here, may have been done since, by this run or by another host. Where it was, the worker's history is
    completed, so that Luigi's own summary and exit code say the same.
    """
    summary = summary_of(worker)
    left = [root for root in roots if root not in summary["completed"] | summary["already_done"]]
    if not left or _are_complete(left):
        if left:
            TaskList.of(worker).note_all_done()
        return {"code": 0, "result": COMPLETE, "failure": ""}
    events = list(events)
    gaps = {event.get("task") for event in events if event.get("error") == MissingAtPublisher.__name__}
    told = {event["task"] for event in events if event["event"] in ("given up", "stage") and event.get("task")}
    failed = [task for task in summary["failed"] if task.task_id not in gaps]
    has_gaps = any(task.task_id in gaps for task in summary["failed"]) or bool(summary["still_pending_ext"])
    codes, failure = retcode(), ""
    if summary["scheduling_error"]:
        failure = getattr(worker, "planning_error", "") or "planning failed; the log says why"
        code, result = codes.scheduling_error, PLANNING_FAILED
    elif failed:
        code, result = codes.task_failed, FAILED
        others = sorted({task.task_family for task in failed if task.task_id not in told})
        failure = f"{', '.join(others)} failed; the log says why" if others else ""
    elif was_stopped(worker):
        code, result = codes.not_run, STOPPED
    elif has_gaps:
        code, result = codes.missing_data, GAPS
    else:
        code, result = codes.not_run, UNFINISHED
    return {"code": code or codes.not_run, "result": result, "failure": failure}


def _are_complete(tasks: list[luigi.Task]) -> bool:
    with remote.planning(), CachedState() as state:  # not what was true before the run
        try:
            return all(is_complete(task, state) for task in tasks)
        except Exception:  # a warehouse that does not answer, anything of somebody else's task: nobody knows
            return False
