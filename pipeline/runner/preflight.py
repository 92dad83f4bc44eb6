"""Preflight checks: writable workspace, lake and warehouses, no forbidden synthetic months, a publisher that answers.

The stages check the same when their turn comes, because another run may have changed lake and warehouse meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from .. import remote
from ..errors import UsageError, WarehouseError
from ..job import open_warehouse
from ..planning.plan import TO_DO
from ..planning.publisher_questions import check_publisher
from ..planning.state import State
from ..planning.synthetic import ensure_allowed
from ..storage import open_store
from ..tasks.base import JobTask
from ..tasks.download import Download
from ..tasks.load import Load
from ..tasks.range_monthly import RangeMonthly
from ..tasks.upload import Upload
from ..tasks.wrappers import MonthlyTrips, TaxiZones

#: Tasks that write into the lake, by themselves or by what they need.
_INTO_LAKE = (Upload, Load, MonthlyTrips, TaxiZones)


def check(root: Any) -> None:
    """Raise UsageError if the places that a root task writes to cannot be written, or do not take its months.

    The task is one of ours and not complete. Ranges ask about their months when they are planned.
    """
    plan = getattr(root, "plan", None)
    if plan is not None and not plan.months(TO_DO):
        return
    task = root.first_task if isinstance(root, RangeMonthly) else root
    if not isinstance(task, JobTask):
        return
    _ensure("workspace", task.workspace)
    if plan is not None or isinstance(task, _INTO_LAKE):
        _ensure("lake", task.lake)
    warehouses = [label for label in str(getattr(task, "warehouse", "")).split(",") if label]
    for label in warehouses:
        _ensure("warehouse", label)
    if isinstance(task, TaxiZones) or (plan is None and isinstance(task, Upload | Load | MonthlyTrips)):
        with task.shared_state() as state:
            ensure_allowed(task.completeness(state), warehouses)


def check_scheduled(state: State, tasks: Iterable[Any]) -> None:
    """The same for tasks that are about to run, whoever's root task needs them; each place is tried once.

    Raises Unreachable or RefusedByPublisher if there is something to download, and the publisher cannot be asked.
    """
    downloads: list[Download] = []
    ensure = cache(_ensure)
    with remote.planning(state.spent):
        for task in tasks:
            if isinstance(task, Download):
                downloads.append(task)
            elif isinstance(task, Upload | Load):
                ensure("workspace", task.workspace)
                ensure("lake", task.lake)
                warehouses = [str(task.warehouse)] if isinstance(task, Load) else []
                for label in warehouses:
                    ensure("warehouse", label)
                ensure_allowed(task.completeness(state), warehouses)
        for download in downloads:
            check_publisher(state, download.job)


def _ensure(section: str, url: str) -> None:
    """Make the place of a setting ready to be written to. Raises UsageError that names the setting."""
    place = open_warehouse(url) if section == "warehouse" else open_store(url)
    try:
        place.ensure()
    except (UsageError, WarehouseError) as error:
        setting = f"[{section}] url: "
        raise UsageError(setting + str(error).removeprefix(setting)) from None
