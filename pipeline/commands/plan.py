"""``python -m pipeline plan``: what RangeMonthly would run, and the reason for each month; runs nothing."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from ..tasks.base import JobTask
from ..tasks.ranges import AllTrips, MonthlyTrips, RangeMonthly
from .status import show

#: Tasks of which a range can be planned, by name.
PLANNED: dict[str, type[JobTask]] = {"MonthlyTrips": MonthlyTrips, "AllTrips": AllTrips}


def plan(args: argparse.Namespace) -> int:
    """Print what RangeMonthly would run and the reason for each month. Runs nothing."""
    given = {
        name: value for name in ("start", "stop", "of_params", "dataset", "datasets") if (value := getattr(args, name))
    }
    if args.of:
        given["of"] = PLANNED[args.of]
    task = RangeMonthly(**given)
    if not issubclass(task.of, JobTask):
        raise UsageError(f"[RangeMonthly] of = {task.of.task_family} cannot be planned; choose {' or '.join(PLANNED)}")
    show(task.plan, args.json)
    return 0
