"""What a run prints at its end: a table of its months, failures, where lake and warehouse are, and how to go on."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..local_paths import short_path
from ..partition import Partition
from ..planning.plan import COMPLETE, MISSING, UNASKED, count, counts
from . import journal, locations, logs, outcomes, tables
from .console import clock, say
from .outcomes import AT_WORK, DONE, FAILED, MonthOutcome, RunOutcome
from .tables import Column

#: Reasons of months that failed which are printed below the table.
REASONS = 20

#: Width of a table that no terminal limits.
WIDTH = 140

#: Width from which a table has room for the reasons of rejects.
ROOM = 120


@dataclass(frozen=True)
class Places:
    """Where a run works: its lake and warehouses, by label."""

    lake: str
    warehouses: Sequence[str]
    is_synthetic: bool = False


def show(outcome: RunOutcome, places: Places | None, is_said: bool = False) -> None:
    """Print what became of a run. ``is_said``: its failure is printed elsewhere."""
    if outcome.result in (outcomes.REFUSED, outcomes.PLANNING_FAILED) and is_said:
        return
    for line in summary(outcome, places, is_said):
        say(line)
    if outcome.result == outcomes.STOPPED and not is_said:
        say("told to stop; the same command goes on from here", error=True)


def summary(outcome: RunOutcome, places: Places | None, is_said: bool = False) -> Iterator[str]:
    """The lines at the end of a run: table, failures, places, and how to go on."""
    is_idle = not outcome.having(DONE, FAILED, AT_WORK, outcomes.PARTLY, outcomes.NOT_DONE)
    if is_idle and outcome.result == COMPLETE:
        told = counts(month.status for month in outcome.months if month.month)
        yield f"Nothing to do: {told}." if told else "Nothing to do."
    elif outcome.touched:
        yield from table(outcome)
    yield from failures(outcome, is_said)
    if outcome.complete_before and not (is_idle and outcome.result == COMPLETE):
        yield f"{count(outcome.complete_before)} complete before this run."
    if places is not None:
        yield from _whereabouts(outcome, places)
    seconds = None if outcome.start is None else (outcome.end or time.time()) - outcome.start
    took = f", {clock(seconds)}" if seconds is not None else ""
    log = f"; log {short_path(str(logs.path()))}" if logs.path().exists() else ""
    yield f"Run        {outcome.run or journal.run_id()}{took}{log}"
    again = outcome.again or shlex.join(outcome.command)
    if outcome.result != COMPLETE and again:
        yield f"Again      {again}"


def failures(outcome: RunOutcome, is_said: bool = False) -> Iterator[str]:
    """One line for each reason why months failed, and why the run as a whole is not well."""
    failed = outcomes.by_reason(outcome.failures)
    yield from failed[:REASONS]
    if len(failed) > REASONS:
        yield f"... and {len(failed) - REASONS:,} more; the log has them"
    for month in outcome.having(MISSING, UNASKED):
        if month.error:
            yield f"{month.title}: {month.why}"
    if outcome.failure and not is_said:
        yield outcome.failure


def table(outcome: RunOutcome, width: int | None = None) -> Iterator[str]:
    """The table of the months that this run touched or left, with a row of totals if they are several.

    Where there is no room for the reasons of rejects beside each month, they stand below the table.
    """
    width = width or tables.terminal_width() or WIDTH
    has_room = width >= ROOM
    columns = [
        Column("dataset"),
        Column("month"),
        Column("rows read", is_number=True),
        Column("loaded", is_number=True),
        Column("rejected", is_number=not has_room, is_folded=has_room),
        Column("seconds", is_number=True),
        Column("state", is_folded=True),
    ]
    months = outcome.touched
    rows = [
        [month.dataset, month.partition.month_text or "", *_numbers(month, has_room), month.state] for month in months
    ]
    totals = None
    if len(months) > 1:
        total = MonthOutcome(
            Partition("total", None), rows_read=outcome.total("rows_read"), loaded=outcome.total("loaded")
        )
        total.rejected, total.seconds = outcome.rejected, sum(month.seconds for month in months)
        totals = ["total", _done(months, has_room), *_numbers(total, has_room), ""]
    yield from tables.lines(columns, rows, totals, width=width, is_ruled=True, is_dense=not has_room)
    if outcome.rejected and not has_room:
        yield f"Rejected: {_reasons(outcome.rejected)}"


def _done(months: Iterable[MonthOutcome], has_room: bool) -> str:
    """``2 months``, or ``1 of 2 months`` if not all of them are done. The zone table is no month."""
    statuses = [month.status for month in months if month.month]
    done = statuses.count(DONE)
    if done == len(statuses):
        return count(done) if done else ""
    return f"{done:,} of {count(len(statuses)) if has_room else len(statuses)}"


def _numbers(month: MonthOutcome, with_reasons: bool) -> tuple[str, str, str, str]:
    rejected = sum(month.rejected.values())
    return (
        "" if month.rows_read is None else f"{month.rows_read:,}",
        "" if month.loaded is None else f"{month.loaded:,}",
        _reasons(month.rejected) if with_reasons else f"{rejected:,}" if rejected else "",
        f"{month.seconds:.1f}" if month.seconds else "",
    )


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in rejected.items())


def _whereabouts(outcome: RunOutcome, places: Places) -> Iterator[str]:
    """Where everything is, and how to look at it."""
    if places.is_synthetic:
        yield "These rows are synthetic: made on this machine, not TLC's."
    yield f"Lake       {locations.shown(places.lake)}"
    for label in places.warehouses:
        yield f"Warehouse  {locations.shown(label)}"
    for line in locations.queries(places.warehouses, _to_look_at(outcome)):
        yield f"Query      {line}"


def _to_look_at(outcome: RunOutcome) -> set[str]:
    """The datasets to query: what this run loaded, or else what is there; months rather than the zone table."""
    loaded = [month for month in outcome.months if month.loaded is not None]
    there = outcome.having(COMPLETE, DONE)
    choices = ([month for month in months if month.month] for months in (loaded, there))
    return {month.dataset for month in next(filter(None, choices), loaded or there)}
