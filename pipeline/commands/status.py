"""``python -m pipeline status``: list every month of the datasets with its state and reason; asks no publisher."""

from __future__ import annotations

import argparse
import datetime as dt

from .. import settings
from ..datasets import monthly_names
from ..job import Job, warehouses
from ..partition import Partition, add_months, months_between
from ..planning import planner
from ..planning.plan import Entry, Plan, counts
from ..planning.state import CachedState
from ..reporting import tables
from ..reporting.console import say, say_json
from ..reporting.tables import Column
from ..tasks.parameters import check_span
from . import arguments

HELP = "list every month with its state and the reason; asks no publisher"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=arguments.monthly_datasets,
        help="one or several, comma-separated, besides zones; default: [range] datasets",
    )
    parser.add_argument("--start", **arguments.MONTH, help="first month; default: the dataset's first")
    parser.add_argument("--stop", **arguments.MONTH, help="month after the last; default: next month")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every month of the datasets with its state and reason. No publisher is asked."""
    today = dt.date.today()
    check_span(args.start, args.stop, today)
    job = Job.configured()
    state = CachedState()
    plan = planner.plan_zones(state, job, warehouses(), ask=False)
    for name in monthly_names(args.dataset or settings.RangeSettings().datasets):
        first, last = job.publisher.months_offered(name)
        start = args.start or first
        stop = args.stop or min(add_months(last or today, 1), add_months(today, 1))
        months = [month for month in months_between(start, stop) if first <= month <= (last or month)]
        partitions = [Partition(name, month) for month in months]
        plan += planner.plan_months(state, job, partitions, warehouses(), ask=False)
    show(plan, args.json)
    return 0


def show(plan: Plan, as_json: bool) -> None:
    """Print the months of a plan with their states, as lines or as JSON."""
    if as_json:
        say_json([_plain(entry) for entry in plan])
        return
    columns = [Column(width=6), Column(width=7), Column(width=20), Column(is_folded=True)]
    tables.show(columns, [[text or "" for text in _plain(entry).values()] for entry in plan])
    say(counts(entry.state for entry in plan if entry.partition.month) or "no months")


def _plain(entry: Entry) -> dict[str, str | None]:
    dataset, month = entry.partition.dataset, entry.partition.month_text
    return {"dataset": dataset, "month": month, "state": entry.state, "reason": entry.reason}
