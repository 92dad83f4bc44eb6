"""``python -m pipeline refresh``: load what the publisher republished or added; print the months asked about.

It runs the task ``Refresh``, which decides the months, with Luigi's local scheduler.
"""

from __future__ import annotations

import argparse
from collections import Counter

from luigi.retcodes import run_with_retcodes

from ..partition import format_month
from ..planning.completeness import REPUBLISHED
from ..planning.plan import COMPLETE, MISSING, NEW, NOT_YET, TO_DO, UNASKED, Entry
from ..reporting import journal, journal_reader, outcomes, tables
from ..reporting.console import say
from ..reporting.tables import Column
from ..tasks.refresh import Refresh
from ..tasks.upload import SAME_BYTES
from . import arguments

HELP = "ask the publisher now, and load only the months that it republished or added"

#: What the table calls the states of a plan. For months to do it shows the reason.
_FOUND = {COMPLETE: "unchanged", NOT_YET: "not yet", MISSING: "not there", UNASKED: "could not be asked"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=arguments.some_datasets,
        help="one or several, comma-separated; default: those of [range] datasets",
    )
    parser.add_argument("--since", **arguments.MONTH, required=True, help="first month to ask about")
    parser.add_argument("--workers", **arguments.WORKERS, help="months at once; default 1")


def run(args: argparse.Namespace) -> int:
    """Ask, load and print. Returns 0, or the exit code of the loads that failed. Raises Unreachable."""
    task = Refresh(dataset=args.dataset or "", since=args.since)
    journal.run_id()  # of the run, and known here after it
    code = _run(task, args.workers) if task.plan.months(TO_DO) else 0
    states = {month.partition: month.state for month in outcomes.summarize(journal_reader.events()[0]).months}
    counts: Counter[str] = Counter()
    said: set[str] = set()
    rows = []
    for entry in task.plan:
        partition = entry.partition
        found, detail = _words(entry, states.get(partition, ""))
        if entry.state == UNASKED:
            detail = _once(detail, task.job.publisher.address(partition), said)
        counts[found] += partition.month is not None
        rows.append([partition.dataset, partition.month_text or "", found, detail])
    tables.show([Column(width=6), Column(width=7), Column(width=18), Column(is_folded=True)], rows)
    summary = ", ".join(f"{count:,} {found}" for found, count in counts.items() if count)
    say(f"{task.publisher}: {summary or 'no months'}.")
    return code


def _words(entry: Entry, outcome: str) -> tuple[str, str]:
    """What was found about a month, and a detail."""
    if entry.state != TO_DO:
        return ("left alone" if entry.state == COMPLETE and entry.reason else _FOUND[entry.state]), entry.reason
    if outcome == SAME_BYTES:
        return _FOUND[COMPLETE], f"another ETag, {SAME_BYTES}"
    if entry.reason in (NEW, REPUBLISHED):
        return entry.reason, outcome
    return "half done", f"{entry.reason}; {outcome}"


def _once(detail: str, address: str, said: set[str]) -> str:
    """The text of an error; ``as above`` if only the month and its address differ from an earlier one."""
    what = detail.partition(address)[2]
    if what in said:
        return "as above"
    said.add(what)
    return detail


def _run(task: Refresh, workers: int) -> int:
    """Let Luigi execute the plan. The same parameters give the same task object, which already has the plan."""
    try:
        run_with_retcodes(
            [
                *("--module", "pipeline", task.task_family, "--dataset", task.dataset),
                *("--since", format_month(task.since)),
                *("--workers", str(workers), "--local-scheduler"),
            ]
        )
    except SystemExit as end:
        return int(end.code or 0)
    return 0
