"""The text of notifications: the message about a run that ended, and that about one that was killed."""

from __future__ import annotations

import datetime as dt
import shlex
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import settings
from ..planning.completeness import REPUBLISHED
from ..planning.plan import COMPLETE, MISSING, NOT_YET, UNASKED, count
from ..sanitize import one_line
from . import journal, outcomes
from .outcomes import MonthOutcome, RunOutcome

#: Months that one line of a message names before it only counts the others.
NAMED = 12

FAILED, COMPLETED, CRASHED = "failed", "completed", "crashed"
SCHEMA_DRIFT, NOTHING_NEW = "schema_drift", "nothing_new"

#: Apprise's kind of message by what happened, the gravest first.
_KINDS = {
    CRASHED: "failure",
    FAILED: "failure",
    SCHEMA_DRIFT: "warning",
    REPUBLISHED: "warning",
    COMPLETED: "success",
    NOTHING_NEW: "info",
}

Events = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Message:
    """What is sent. ``happened`` are words of ``[notify] on``, ``datasets`` those it speaks of; empty: of the run."""

    title: str
    body: str
    happened: frozenset[str]
    datasets: frozenset[str] = frozenset()

    @classmethod
    def of(cls, title: str, lines: Iterable[str], happened: Iterable[str], datasets: Iterable[str] = ()) -> Message:
        """A message whose lines are one line each, whatever a column or an error is called."""
        body = "\n".join(map(one_line, lines))
        return cls(one_line(title), body, frozenset(happened), frozenset(datasets))

    @property
    def kind(self) -> str:
        return next(kind for word, kind in _KINDS.items() if word in self.happened)

    @property
    def is_wanted(self) -> bool:
        """Whether ``[notify]`` asks for what happened, to the datasets it happened to."""
        wanted = settings.NotifySettings()
        return bool(self.happened & set(wanted.on.split(","))) and (
            not self.datasets or bool(self.datasets & set(wanted.datasets.split(",")))
        )


def message_of_run(outcome: RunOutcome, where: str = "") -> Message | None:
    """The message about a run that ended; None if nothing happened that anyone could want to know.

    ``where`` names its log.
    """
    failed, new, is_well = outcome.failures, outcome.new, outcome.is_well
    happened = {
        CRASHED: outcome.result == outcomes.CRASHED or any(month.was_killed for month in failed),
        FAILED: not is_well,
        COMPLETED: bool(new) and is_well,
        REPUBLISHED: bool(_republished(outcome)),
        SCHEMA_DRIFT: bool(_unknown_columns(outcome)),
        NOTHING_NEW: outcome.is_planned and not new and outcome.result == COMPLETE,
    }
    if not any(happened.values()):
        return None
    about = {month.dataset for month in (*failed, *_gaps(outcome), *new)}
    is_about_months = is_well or bool(failed or _gaps(outcome))
    headlines = ", ".join(_headlines(outcome))
    return Message.of(
        title=f"NYC trips: {headlines or 'nothing new'}",
        lines=[
            *_details(outcome),
            _whereabouts(outcome.run or journal.run_id(), outcome.host or socket.gethostname(), where),
        ],
        happened=(word for word, did in happened.items() if did),
        datasets=about if is_about_months else (),
    )


def _gaps(outcome: RunOutcome) -> list[MonthOutcome]:
    """The months for whose absence the run is not well."""
    return [] if outcome.result == COMPLETE else [month for month in outcome.having(MISSING) if month.month]


def _republished(outcome: RunOutcome) -> list[MonthOutcome]:
    return [month for month in outcome.new if month.is_republished]


def _unknown_columns(outcome: RunOutcome) -> dict[str, list[str]]:
    """Undeclared columns with the months loaded now that have them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for month in outcome.new:
        for column in month.unknown_columns:
            found[column].append(month.title)
    return found


def _headlines(outcome: RunOutcome) -> Iterator[str]:
    failed, gaps, left = outcome.failures, _gaps(outcome), outcome.not_done
    if outcome.result == outcomes.STOPPED:
        yield "the run was stopped"
    elif not (outcome.is_well or failed or gaps or (left and outcome.result == outcomes.UNFINISHED)):
        yield "the run failed"
    # What waits for a month that failed is no news of its own.
    is_left = outcome.result in (outcomes.UNFINISHED, outcomes.STOPPED)
    for months, what in (
        (failed, "failed"),
        (gaps, "missing at the publisher"),
        (left if is_left else [], "not done"),
        *((months, state) for state, months in outcome.new_by_state.items()),
        (_republished(outcome), "republished"),
    ):
        if months:
            yield f"{_counted(month.title for month in months)} {what}"
    if drift := _unknown_columns(outcome):
        yield f"undeclared columns: {', '.join(list(drift)[:NAMED])}"


def _details(outcome: RunOutcome) -> Iterator[str]:
    if outcome.failure:
        yield f"Failed: {outcome.failure}"
    reasons = outcomes.by_reason(outcome.failures)
    for line in reasons[:NAMED]:
        yield f"Failed: {line}"
    if len(reasons) > NAMED:
        yield f"... and {len(reasons) - NAMED} more"
    for months, what in (
        ([month for month in outcome.having(MISSING) if month.month], "Missing at the publisher"),
        ([month for month in outcome.having(UNASKED) if month.month], "Could not be asked about"),
        (outcome.not_done, "Not done"),
    ):
        if months:
            yield f"{what}: {_listed(month.title for month in months)}"
    for state, months in outcome.new_by_state.items():
        rows, rejected = sum(month.rows or 0 for month in months), sum(sum(month.rejected.values()) for month in months)
        named = _listed(month.title for month in months)
        yield f"{state[:1].upper()}{state[1:]}: {named}; {rows:,} rows, {rejected:,} rejected"
    loaded, in_lake = _by_place(_republished(outcome))
    if loaded:
        yield f"Republished and loaded anew: {loaded}"
    if in_lake:
        yield f"Republished and in the lake anew: {in_lake}"
    for column, titles in _unknown_columns(outcome).items():
        yield f"Column {column} is not declared and was kept out: {_listed(titles)}"
    for number, text in (
        (outcome.complete_before, "complete before"),
        (sum(1 for month in outcome.having(NOT_YET) if month.month), NOT_YET),
    ):
        if number:
            yield f"{count(number)} {text}"


def message_of_killed(events: Events, heard: float) -> Message:
    """The message about a run that has begun and can no longer end; it was last ``heard`` of then, as time.time has it.

    ``events`` starts with its ``begun``.
    """
    outcome = outcomes.summarize(events, is_alive=False)
    at_work = outcome.having(outcomes.AT_WORK)
    loaded, in_lake = _by_place(outcome.new)
    lines = [
        f"Began {_time(outcome.start or 0.0)}, last heard of {_time(heard)}: {shlex.join(outcome.command)}",
        *([f"At work on: {_listed(f'{month.stage} {month.title}' for month in at_work)}"] if at_work else []),
        *([f"Loaded before: {loaded}"] if loaded else []),
        *([f"In the lake before: {in_lake}"] if in_lake else []),
        "What was done is safe; the same command goes on where it stopped. Was the host out of memory, or shut down?",
        _whereabouts(outcome.run, outcome.host, ""),
    ]
    return Message.of(
        title=f"NYC trips: a run was killed on {outcome.host or 'an unknown host'}",
        lines=lines,
        happened=[CRASHED],
        datasets=(month.dataset for month in at_work),
    )


def _by_place(months: Iterable[MonthOutcome]) -> tuple[str, str]:
    """New months by name: those that this run loaded, and those that it put into the lake only."""
    found: tuple[list[str], list[str]] = [], []
    for month in months:
        found[month.loaded is None].append(month.title)
    return _listed(found[0]), _listed(found[1])


def _whereabouts(run: str, host: str, where: str) -> str:
    return f"Run {run} on {host}; log: {where or journal.folder() / f'{run}.log'}"


def _counted(names: Iterable[str]) -> str:
    """``2 months and zones``."""
    found = list(names)
    months = [name for name in found if " " in name]
    return " and ".join([*([count(len(months))] if months else []), *(name for name in found if " " not in name)])


def _listed(names: Iterable[str]) -> str:
    """``yellow 2021-01, 2021-02, green 2021-01`` in order, the first of them if they are many."""
    months: defaultdict[str, list[str]] = defaultdict(list)
    found = sorted(set(names))
    for name in found[:NAMED]:
        dataset, _, month = name.rpartition(" ")
        months[dataset].append(month)
    text = ", ".join(f"{dataset} {', '.join(some)}".strip() for dataset, some in months.items())
    return text + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def _time(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M %Z}"
