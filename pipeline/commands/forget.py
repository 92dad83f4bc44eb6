"""``python -m pipeline forget``: make months incomplete on purpose; no row is removed."""

from __future__ import annotations

import argparse
import datetime as dt
from contextlib import ExitStack, suppress
from dataclasses import replace

from .. import datasets, job
from ..errors import UsageError
from ..lake import layout
from ..partition import Partition
from ..planning.scratch import Scratch, months_of
from ..reporting import journal
from ..reporting.console import say
from ..tasks.parameters import check_span
from ..warehouse import kind_of
from . import arguments

HELP = "make months incomplete on purpose, so that the next run does them again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset", type=arguments.any_datasets, required=True, help="one or several, comma-separated; also zones"
    )
    parser.add_argument("--month", **arguments.MONTH, help="the month; zones has none")
    parser.add_argument(
        "--start", **arguments.MONTH, help="first month of a range, instead of --month; default: the first known month"
    )
    parser.add_argument("--stop", **arguments.MONTH, help="month after the last; default: all known months")
    parser.add_argument(
        "--warehouse",
        type=arguments.text,
        metavar="LABEL",
        help="forget in this warehouse only, such as duckdb; the lake keeps the month",
    )


def run(args: argparse.Namespace) -> int:
    """Forget a month, or all months of a range that are in the lake, a warehouse or the scratch."""
    check_span(args.start, args.stop, dt.date.today())
    names = args.dataset.split(",")
    _check(names, args)
    forgetting = _Forgetting(args.warehouse)
    forgotten = 0
    for name in names:
        is_one = args.month or not datasets.get(name).is_monthly
        for partition in [Partition(name, args.month)] if is_one else forgetting.known(name):
            month = partition.month
            if month and ((args.start and month < args.start) or (args.stop and month >= args.stop)):
                continue
            if forgetting.forget(partition):
                forgotten += 1
                say(f"{partition} is forgotten; the next run does it again.")
            elif is_one:
                say(f"{partition} was not there; nothing to forget.")
    if args.start or args.stop:
        say(f"{forgotten:,} month{'' if forgotten == 1 else 's'} forgotten." if forgotten else "Nothing to forget.")
    return 0


def _check(names: list[str], args: argparse.Namespace) -> None:
    is_range = bool(args.start or args.stop)
    if args.month and is_range:
        raise UsageError("give either --month, or --start and --stop")
    for name in names:
        if not datasets.get(name).is_monthly and (args.month or is_range):
            raise UsageError(f"{name} has no months: omit --month, --start and --stop")
        if datasets.get(name).is_monthly and not (args.month or is_range):
            raise UsageError(f"{name}: name a --month, or --start and --stop for all months in between")


class _Forgetting:
    """Lake, scratch and warehouses of the settings; or one warehouse alone."""

    def __init__(self, only: str | None) -> None:
        self._job = job.Job.configured()
        labels = job.warehouses()
        self._only_warehouse = only is not None
        if only is not None:
            labels = [label for label in labels if only in (label, kind_of(label))]
            if len(labels) != 1:
                raise UsageError(
                    f"--warehouse {only} names {'several' if labels else 'none'} of the warehouses of [warehouse] url: "
                    f"{job.warehouse_labels() or 'none'}"
                )
        opened = [job.open_warehouse(label) for label in labels]
        self._warehouses = [(warehouse, warehouse.ledger()) for warehouse in opened]

    def known(self, name: str) -> list[Partition]:
        """The months of a dataset that lake, warehouses or scratch have something of, in order."""
        found = {month for _, ledger in self._warehouses for (dataset, month) in ledger if dataset == name}
        if not self._only_warehouse:
            found |= months_of(self._job, name)
            for path in self._job.lake.store.list(f"{layout.MANIFESTS}/{name}"):
                with suppress(ValueError):  # somebody else's file
                    found.add(layout.month_of(path))
        return [Partition(name, month) for month in sorted(filter(None, found))]

    def forget(self, partition: Partition) -> bool:
        """Whether there was something to forget. Raises StorageUnavailable if a run is working on the month."""
        was_there = False
        with ExitStack() as stack:
            if not self._only_warehouse:
                was_there |= stack.enter_context(Scratch(self._job, partition).forgetting())
                was_there |= self._job.lake.store.stat(layout.manifest(partition)) is not None
                self._job.lake.forget(partition)
            for warehouse, ledger in self._warehouses:
                row = ledger.get(partition)
                if row is not None and row.status == "loaded":
                    warehouse.append(replace(row, status="forgotten", run_id=journal.run_id()))
                    was_there = True
        return was_there
