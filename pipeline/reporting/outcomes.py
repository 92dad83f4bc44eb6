"""The outcome of a run, computed from its journal in one place and used by everything that reports it.

The console table, the notification, the exit code, ``cron``, ``refresh`` and ``runs`` all show this one. What the
journal of the stages cannot know (somebody else's tasks, what another host did meanwhile) is in its event "judged",
which ``runner.verdict`` makes when the run ends.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import MissingAtPublisher
from ..partition import Partition
from ..planning.completeness import REPUBLISHED
from ..planning.plan import COMPLETE, MISSING, NOT_YET, TO_DO, UNASKED, count
from ..sanitize import one_line
from ..warehouse import kind_of

#: What a run came to, in one word, beside ``planning.COMPLETE``: all that was asked for is complete.
RUNNING, STOPPED, CRASHED = "running", "stopped", "crashed"
FAILED, UNFINISHED, REFUSED, PLANNING_FAILED, GAPS = "failed", "unfinished", "refused", "planning failed", "missing"

#: The status of a month beside those of a plan: done in this run, failed, a stage has begun and not ended, some stages
#: are done.
DONE, AT_WORK, PARTLY = "done", "at work", "partly done"

#: The state of a month whose last stage done is this one, without a failure.
STATES = {"Download": "downloaded", "Clean": "cleaned", "WriteParquet": "written", "Upload": "in the lake"}

LOADED, BY_ANOTHER, BEFORE = "loaded", "loaded by another run", "in the lake again, loaded before"

#: The state of a month of which no stage has begun.
NOT_DONE = "not done"

KILLED = "its process was killed; maybe no memory was left"

#: What a stage comes to that another run, on another host maybe, completed while this one tried.
DONE_BY_ANOTHER = "done by another run"

#: The tasks for one month, in order. What is to be done for it is the last one that the run has scheduled.
GOALS = ("Download", "Clean", "WriteParquet", "Upload", "Load", "MonthlyTrips")

Events = Iterable[Mapping[str, Any]]

#: A stage, and the warehouse if it is a Load.
Step = tuple[str, str | None]


@dataclass
class MonthOutcome:
    """What became of one month in a run. The zone table has no month.

    ``status`` is one of a plan's states or ``DONE``, ``FAILED``, ``AT_WORK``, ``PARTLY``; ``state`` says it in words.
    ``loaded`` and ``rows`` are rows that this run put into a warehouse and, at least, into the lake. ``error`` is the
    class of the error and ``reason`` its line.
    """

    partition: Partition
    status: str = ""
    state: str = ""
    rows_read: int | None = None
    rows: int | None = None
    loaded: int | None = None
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    stage: str = ""
    error: str = ""
    reason: str = ""
    is_republished: bool = False
    was_killed: bool = False
    unknown_columns: list[str] = field(default_factory=list)

    @property
    def dataset(self) -> str:
        return self.partition.dataset

    @property
    def month(self) -> dt.date | None:
        return self.partition.month

    @property
    def title(self) -> str:
        """``green 2020-03``, ``zones``."""
        return str(self.partition)

    @property
    def why(self) -> str:
        """Stage, class and line of the error of a month that failed: ``Clean: WrongFormat: no Parquet file``."""
        text = self.reason.removeprefix(f"{self.title}: ")
        if self.status == AT_WORK:
            text = KILLED
        return ": ".join(part for part in (self.stage, self.error, text) if part)


@dataclass
class RunOutcome:
    """What became of a run. ``months`` has each month once: touched, or not done, or complete before, by name.

    ``failure`` says why the run as a whole is not well, beside the months that failed. ``start`` and ``end`` are
    seconds since 1970.
    """

    months: list[MonthOutcome]
    result: str
    exit_code: int | None = None
    failure: str = ""
    run: str = ""
    command: list[str] = field(default_factory=list)
    again: str = ""
    host: str = ""
    start: float | None = None
    end: float | None = None
    waiting: str = ""
    is_planned: bool = False

    def having(self, *statuses: str) -> list[MonthOutcome]:
        return [month for month in self.months if month.status in statuses]

    @property
    def touched(self) -> list[MonthOutcome]:
        """All months but those that were complete before: the rows of the table."""
        return [month for month in self.months if month.status != COMPLETE]

    @property
    def new(self) -> list[MonthOutcome]:
        """The months that this run put into lake or warehouse; ``state`` says into which."""
        return [month for month in self.having(DONE) if month.rows is not None]

    @property
    def new_by_state(self) -> dict[str, list[MonthOutcome]]:
        """``new`` by what the table says of them: loaded first, then such as in the lake."""
        found: dict[str, list[MonthOutcome]] = {}
        for month in sorted(self.new, key=lambda month: month.state != LOADED):
            found.setdefault(month.state, []).append(month)
        return found

    @property
    def not_done(self) -> list[MonthOutcome]:
        """The months that were to be done and neither are nor failed."""
        failed = {month.partition for month in self.failures}
        return [month for month in self.having(NOT_DONE, PARTLY, AT_WORK, TO_DO) if month.partition not in failed]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong with the run; it may have been stopped."""
        return self.result in (COMPLETE, STOPPED) and not self.failure

    @property
    def failures(self) -> list[MonthOutcome]:
        """The months that failed, with those whose process was killed and that were not done since."""
        is_broken = self.result not in (RUNNING, STOPPED)
        return self.having(FAILED, *([AT_WORK] if is_broken else []))

    @property
    def why(self) -> str:
        """One line why the run is not well: as a whole, or the first months that failed or are missing."""
        return self.failure or next(iter(by_reason(self.failures or self.having(MISSING))), "")

    @property
    def complete_before(self) -> int:
        """Number of months, without the zone table."""
        return sum(1 for month in self.having(COMPLETE) if month.month)

    def total(self, name: str) -> int:
        """Sum over all months of ``rows_read``, ``rows`` or ``loaded``."""
        return sum(getattr(month, name) or 0 for month in self.months)

    @property
    def rejected(self) -> dict[str, int]:
        """Rejected rows of all months by reason, the most frequent first."""
        counts = Counter[str]()
        for month in self.months:
            counts.update(month.rejected)
        return _by_count(counts)

    @property
    def in_one_line(self) -> str:
        """What came of the run, or has so far: ``2 months loaded, 1 failed, 1,234 rows``."""
        is_alive = self.result == RUNNING
        parts = [one_line(self.waiting)] if is_alive and self.waiting else []
        for state, months in self.new_by_state.items():
            if number := sum(1 for month in months if month.month):
                parts.append(f"{count(number)} {state}")
            parts += [f"{month.title} {state}" for month in months if not month.month]
        for number, what in (
            (len(self.failures), "failed"),
            (len(self.having(MISSING)), "missing at the publisher"),
            (len(self.not_done), "to do" if is_alive else "not done"),
        ):
            if number:
                parts.append(f"{number:,} {what}")
        if self.new:
            parts.append(f"{self.total('rows'):,} rows")
        elif self.result == COMPLETE:
            parts.append("nothing new")
        return ", ".join(parts)


def summarize(events: Events, is_alive: bool = True) -> RunOutcome:
    """What became of the run with this journal, or what has so far; ``is_alive`` says whether a process still holds it.

    A stage that failed and was done later, by this run or another, has not failed.
    """
    reader = Reader()
    for event in events:
        reader.read(event)
    return reader.outcome(is_alive)


@dataclass
class _MonthEvents:
    """What the journal says of one month."""

    planned: str = ""
    goal: str = ""  # the family of the task that shall be done for it
    warehouses: Sequence[str] = ()  # those that it shall be in
    failures: dict[Step, tuple[str, str]] = field(default_factory=dict)
    open: dict[Step, None] = field(default_factory=dict)
    done: dict[Step, Mapping[str, Any]] = field(default_factory=dict)
    found: dict[Step, float | None] = field(default_factory=dict)  # there when its turn came, since when
    is_complete: bool = False
    is_in_lake_only: bool = False

    @property
    def is_goal_reached(self) -> bool:
        if self.goal in ("", "MonthlyTrips"):
            return self.is_complete or not self.goal
        return any(stage == self.goal for stage, _ in (*self.done, *self.found))


class Reader:
    """Folds the events of a journal one by one; ``outcome`` is that of the events so far."""

    def __init__(self) -> None:
        self._months: dict[Partition, tuple[MonthOutcome, _MonthEvents]] = {}
        self._begun: Mapping[str, Any] = {}
        self._judged: Mapping[str, Any] = {}
        self._end: float | None = None
        self._failure = ""
        self._waiting = ""
        self._is_planned = False

    def read(self, event: Mapping[str, Any]) -> None:
        with suppress(KeyError, TypeError, ValueError):  # of another version of the pipeline
            self._read(event)

    def _read(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "begun":
                self._begun = self._begun or event
            case "ended":
                self._end = event.get("at")
            case "judged":
                self._judged = event
            case "waiting":
                self._waiting = str(event.get("text", ""))
            case "plan":
                self._read_plan(event)
            case "missing":
                for title in event["months"]:
                    dataset, _, month = title.partition(" ")
                    self._month(dataset, month)[1].planned = MISSING
            case "all loaded":
                _, trail = self._month(event["dataset"], event["month"])
                trail.is_complete, trail.is_in_lake_only = True, event.get("warehouses") == []
                trail.failures, trail.open = {}, {}
            case "given up":
                self._read_given_up(event)
            case "stage":
                self._read_stage(event)

    def _month(self, dataset: str, month: str | None) -> tuple[MonthOutcome, _MonthEvents]:
        """Dataset and month are as a journal has them."""
        partition = Partition.parse(dataset, month)
        return self._months.setdefault(partition, (MonthOutcome(partition), _MonthEvents()))

    def _read_plan(self, event: Mapping[str, Any]) -> None:
        self._is_planned = True
        for dataset, name, state, reason in event["entries"]:
            month, trail = self._month(dataset, name)
            if trail.planned == TO_DO:
                continue  # a second plan of the run finds complete what was done since the first
            trail.planned, trail.goal = state, event.get("goal", "")
            trail.warehouses = event.get("warehouses", ())
            month.is_republished = reason == REPUBLISHED
            if state in (MISSING, NOT_YET, UNASKED):
                month.reason = reason

    def _read_given_up(self, event: Mapping[str, Any]) -> None:
        """A task that is not tried again. Of a stage that failed the journal has the error, if it had begun."""
        error, message = (str(event.get(name) or "") for name in ("error", "message"))
        if event["family"] not in GOALS:
            if error == MissingAtPublisher.__name__:
                return  # said by "missing"
            self._failure = self._failure or ": ".join(part for part in (event.get("family"), error, message) if part)
            return
        month, trail = self._month(event["dataset"], event.get("month"))
        step = event["family"], event.get("warehouse")
        if step in trail.open:
            month.was_killed = True
            del trail.open[step]
        if not trail.failures:
            trail.failures[step] = error, message

    def _read_stage(self, event: Mapping[str, Any]) -> None:
        month, trail = self._month(event["dataset"], event["month"])
        step, state = (event["stage"], event.get("warehouse")), event["state"]
        is_failed = state == "failed" and event["error"] != KeyboardInterrupt.__name__
        month.seconds += event.get("seconds", 0.0)
        if state == "found":
            trail.found[step] = event.get("since")
            trail.failures.pop(step, None)
        elif is_failed:
            trail.open.pop(step, None)
            trail.failures[step] = event["error"], event["message"]
        elif state != "done":
            trail.open[step] = None
        else:
            trail.open.pop(step, None)
            trail.failures.pop(step, None)  # tried again
            trail.done[step] = event
            self._read_details(month, step[0], event)

    def _read_details(self, month: MonthOutcome, stage: str, event: Mapping[str, Any]) -> None:
        if "rows_rejected" in event:
            month.rows_read, month.rejected = event["rows_read"], _by_count(event["rows_rejected"])
        if stage in ("Upload", "Load") and "rows" in event:
            month.rows = event["rows"]
            if stage == "Load":
                month.loaded = event["rows"]
        for column in event.get("unknown_columns", ()):
            if column not in month.unknown_columns:
                month.unknown_columns.append(column)

    def outcome(self, is_alive: bool) -> RunOutcome:
        is_over = self._end is not None or bool(self._judged) or not is_alive
        months = [self._settled(replace(month), trail, is_over) for month, trail in self._months.values()]
        outcome = RunOutcome(
            months=sorted(months, key=lambda month: month.partition.sort_key),
            result=RUNNING,
            exit_code=self._judged.get("code"),
            failure=str(self._judged.get("failure") or self._failure),
            run=str(self._begun.get("run", "")),
            command=list(self._begun.get("command", ())),
            again=str(self._begun.get("again", "")),
            host=str(self._begun.get("host", "")),
            start=self._begun.get("at"),
            end=self._end,
            waiting=self._waiting,
            is_planned=self._is_planned,
        )
        outcome.result = self._result(outcome, is_alive)
        return outcome

    def _settled(self, month: MonthOutcome, trail: _MonthEvents, is_over: bool) -> MonthOutcome:
        """Say what became of a month, after its last event."""
        is_complete = trail.is_complete or self._judged.get("result") == COMPLETE
        if trail.planned in (COMPLETE, NOT_YET, MISSING, UNASKED) and not trail.done and not trail.failures:
            month.status = month.state = trail.planned
        elif trail.failures and not is_complete:
            ((month.stage, _), (month.error, month.reason)) = next(iter(trail.failures.items()))
            if month.error == MissingAtPublisher.__name__:
                month.status = month.state = MISSING
            else:
                month.status, month.state = FAILED, f"failed: {month.error}" if month.error else FAILED
        elif trail.open and not is_complete:
            month.stage, _ = next(reversed(trail.open))
            month.status = AT_WORK
            month.state = f"{month.stage} not finished" if is_over else month.stage
            month.was_killed = is_over
        elif not trail.done and not is_complete and not trail.found:
            month.status = month.state = NOT_DONE if is_over else TO_DO
        else:
            self._settle_done(month, trail, is_complete, is_over)
        return month

    def _settle_done(self, month: MonthOutcome, trail: _MonthEvents, is_complete: bool, is_over: bool) -> None:
        month.status = DONE if trail.is_goal_reached or is_complete else PARTLY
        outcomes = [event["outcome"] for event in trail.done.values() if event.get("outcome")]
        news = [outcome for outcome in outcomes if outcome != DONE_BY_ANOTHER]
        stages = [stage for stage, _ in (*trail.found, *trail.done)]
        if month.loaded is not None:
            month.state = LOADED
        elif news:
            month.state = str(news[-1])
        elif trail.is_in_lake_only:
            month.state = STATES["Upload"]
        elif is_complete and trail.goal not in stages:
            since = [since for (stage, _), since in trail.found.items() if stage == "Load"]
            begun = self._begun.get("at", 0.0)
            month.state = BEFORE if since and all(at is not None and at < begun for at in since) else BY_ANOTHER
        else:
            month.state = outcomes[-1] if outcomes else STATES.get(stages[-1] if stages else "", DONE)
        if month.status == PARTLY and is_over:
            there = trail.done.keys() | trail.found.keys()
            lacking = [label for label in trail.warehouses if ("Load", label) not in there]
            where = ", ".join(dict.fromkeys(map(kind_of, lacking)))
            month.state += f", not in {where}" if where else ""

    def _result(self, outcome: RunOutcome, is_alive: bool) -> str:
        if self._judged:
            return str(self._judged["result"])
        if self._end is None:
            return RUNNING if is_alive else CRASHED
        if outcome.failure or outcome.having(FAILED, AT_WORK):
            return FAILED
        if outcome.having(MISSING):
            return GAPS
        return UNFINISHED if outcome.having(NOT_DONE, PARTLY) else COMPLETE


def by_reason(failed: Iterable[MonthOutcome]) -> list[str]:
    """A line for each reason, with three months at most that failed for it, such as a server that is down."""
    groups: dict[str, list[str]] = {}
    for month in failed:
        groups.setdefault(month.why or month.state, []).append(month.title)
    others = {why: f" and {len(titles) - 3:,} more" if len(titles) > 3 else "" for why, titles in groups.items()}
    return [f"{', '.join(titles[:3])}{others[why]}: {why}" for why, titles in groups.items()]


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first; those of one number by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
