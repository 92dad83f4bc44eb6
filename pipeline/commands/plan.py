"""``python -m pipeline plan``: what RangeMonthly would run, and the reason for each month; runs nothing."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from ..tasks.base import JobTask
from ..tasks.range_monthly import RangeMonthly
from ..tasks.wrappers import AllTrips, MonthlyTrips
from . import arguments
from .status import show

HELP = "show what RangeMonthly would run, and the reason for each month; runs nothing"

#: Tasks of which a range can be planned, by name.
PLANNED: dict[str, type[JobTask]] = {"MonthlyTrips": MonthlyTrips, "AllTrips": AllTrips}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--of", choices=list(PLANNED), help="default: [RangeMonthly] of")
    parser.add_argument(
        "--of-params", type=arguments.json_object, metavar="JSON", help="""such as '{"dataset": "green"}'"""
    )
    parser.add_argument(
        "--dataset",
        type=arguments.monthly_datasets,
        help="one for MonthlyTrips, default yellow; several, comma-separated, for AllTrips, default [range] datasets",
    )
    parser.add_argument("--datasets", type=arguments.some_datasets, help=argparse.SUPPRESS)  # as RangeMonthly has it
    parser.add_argument("--start", **arguments.MONTH, help="first month; default: [RangeMonthly] start")
    parser.add_argument(
        "--stop",
        **arguments.MONTH,
        help="month after the last; default: after the newest with --start, else [RangeMonthly] stop",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
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
