"""``python -m pipeline verify``: compare published counts, lake, ledger and tables of every month."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import Any

from .. import datasets, job
from ..planning.comparison import Comparison, compare
from ..reporting import tables
from ..reporting.console import say, say_json
from ..reporting.tables import Column
from ..tasks.parameters import check_span
from ..warehouse import kind_of
from . import arguments

HELP = "compare published counts, lake, ledger and tables of every month"

AGREES = "agrees"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", type=arguments.any_datasets, help="one or several, comma-separated; default: all")
    parser.add_argument("--start", **arguments.MONTH, help="first month; default: the first known month")
    parser.add_argument("--stop", **arguments.MONTH, help="month after the last; default: all known months")
    parser.add_argument("--deep", action="store_true", help="read all bytes in the lake, not only the footers")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every month that is in the lake or a ledger. Returns 0 if all agree, 1 if not."""
    check_span(args.start, args.stop, dt.date.today())
    labels = _short(job.warehouses())

    def is_asked(month: dt.date | None) -> bool:
        if month is None:
            return not (args.start or args.stop)
        return (not args.start or month >= args.start) and (not args.stop or month < args.stop)

    lines = compare(args.dataset.split(",") if args.dataset else datasets.DATASETS, is_asked, labels, args.deep)
    _show(lines, list(labels), args.json)
    return 1 if any(line.problems for line in lines) else 0


def _short(labels: list[str]) -> dict[str, str]:
    """Labels by a short name: the kind of warehouse where there is one of the kind."""
    kinds = [kind_of(label) for label in labels]
    return {kind if kinds.count(kind) == 1 else label: label for kind, label in zip(kinds, labels, strict=True)}


def _show(lines: list[Comparison], warehouses: list[str], as_json: bool) -> None:
    if as_json:
        say_json([_plain(line) for line in lines])
        return
    counted = ["published", "read", "in lake", "rejected", *(f"in {name}" for name in warehouses)]
    columns = [Column("dataset"), Column("month"), *(Column(name, is_number=True) for name in counted)]
    rows = []
    for line in lines:
        numbers = [line.published, line.read, line.in_lake, line.rejected]
        numbers += [line.in_warehouse[name][1] for name in warehouses]
        words = line.problems or [AGREES]
        rows.append(
            [
                line.partition.dataset,
                line.partition.month_text or "",
                *("" if number is None else f"{number:,}" for number in numbers),
                "; ".join(words) + "".join(f" ({note})" for note in line.notes),
            ]
        )
    tables.show([*columns, Column(is_folded=True)], rows)
    for line in lines:
        if line.remedy:
            say(f"{line.partition}: {line.remedy}")
    disagreeing = sum(bool(line.problems) for line in lines)
    say(f"{len(lines):,} looked at, {len(lines) - disagreeing:,} agree, {disagreeing:,} do not.")


def _plain(line: Comparison) -> dict[str, Any]:
    return {
        "dataset": line.partition.dataset,
        "month": line.partition.month_text,
        "published": line.published,
        "rows_read": line.read,
        "lake_rows": line.in_lake,
        "rejects_rows": line.rejected,
        "warehouses": {
            label: {"ledger": ledger, "table": table} for label, (ledger, table) in line.in_warehouse.items()
        },
        "agrees": not line.problems,
        "problems": line.problems,
        "remedy": line.remedy or None,
        "notes": line.notes,
    }
