"""RangeMonthly: every month from ``start`` up to, not including, ``stop``.

It replaces Luigi's own, which clamps an explicit start to thirteen months, cuts a range at fifty tasks, and calls an
empty range a success.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import luigi
import luigi.tools.range
from luigi.task_register import Register

from .. import renamed, settings, validation
from ..datasets import monthly_names
from ..errors import UsageError
from ..partition import Partition, add_months, format_month, months_between
from ..planning import planner
from ..planning.plan import MISSING, Plan
from ..planning.task_state import UsesState
from ..reporting.explanations import explain
from ..value_types import whole
from . import parameters
from .base import JobTask, MonthTask
from .wrappers import AllTrips, FillsWarehouses, MonthlyTrips, ensure_none_missing, tasks_of

#: Months start to count here; nothing of TLC's is older.
_EPOCH = dt.date(2009, 1, 1)


class _Datasets(luigi.Parameter):
    """Names of datasets, comma-separated, or nothing."""

    def parse(self, x: str) -> str:
        if x:
            monthly_names(x)
        return x


class RangeMonthly(UsesState, luigi.tools.range.RangeMonthly):
    """Every month from ``start`` up to, not including, ``stop``: what is incomplete is done, the rest left alone.

    Months that the publisher does not have yet are left out. Months that it lacks though they are too old to appear
    still, or it has later ones, fail the range after all others are done.
    """

    of = luigi.TaskParameter(
        default=MonthlyTrips, description="task to complete for each month: MonthlyTrips or AllTrips"
    )
    start = parameters.Month(default=dt.date(2021, 1, 1), description="first month, YYYY-MM")
    stop = parameters.Month(
        default=dt.date(2021, 4, 1), description="month after the last, YYYY-MM; with --start alone: after the newest"
    )
    dataset = _Datasets(
        default="",
        significant=False,
        positional=False,
        description="yellow, green, fhv or fhvhv, of MonthlyTrips; or several, comma-separated, of AllTrips",
    )
    datasets = _Datasets(
        default="", significant=False, positional=False, description="old name of dataset, with --of AllTrips"
    )
    param_name = luigi.Parameter(default="month", positional=False)
    task_limit = settings.Checked(whole(1), 10_000, description="most months in one run")
    months_back = luigi.IntParameter(default=1200, description="not used: an explicit start is never clamped")

    title = "RangeMonthly"

    spans_months = True

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: Any) -> list[tuple[str, Any]]:
        """Write into ``of_params`` all that the output depends on, so that it is part of this task's identity."""
        validation.ensure_valid()
        values = dict(super().get_param_values(params, args, kwargs))
        if not isinstance(values["of_params"], Mapping):
            raise UsageError('--of-params is a JSON object, such as \'{"dataset": "green"}\'')
        called_with = {
            *kwargs,
            *(name for name, _ in zip((name for name, of in params if of.positional), args, strict=False)),
        }
        places = {
            name: settings.Place.CALL if name in called_with else settings.place_of(cls.get_task_family(), name)
            for name in values
        }
        of, given = _of_datasets(values, places)
        values["of"] = of
        known = dict(of.get_params())
        if values["param_name"] not in known:
            raise UsageError(
                f"--of {of.task_family}: {of.task_family} has no months; "
                f"run it by itself: luigi --module pipeline {of.task_family}"
            )
        for name in given:
            if name not in known or name == values["param_name"]:
                choices = ", ".join(sorted(set(known) - {values["param_name"]}))
                raise UsageError(f"--of-params: {of.task_family} has no parameter {name!r} to give; it has {choices}")
        first = None
        if issubclass(of, JobTask):
            for name, value in given.items():
                if not isinstance(value, str):
                    raise UsageError(f'--of-params: "{name}" is a text, such as "green"; {value!r} is none')
            first = of(**given, month=values["start"] or _EPOCH)
            text = first.to_str_params(only_significant=True)
            given = {name: text[name] for name in text if name != values["param_name"]}
        values["of_params"] = luigi.freezing.FrozenOrderedDict(sorted(given.items()))
        if places["start"] > places["stop"] or values["stop"] is None:
            values["stop"] = _after_newest(first, values["start"] or _EPOCH)
        elif places["stop"] > places["start"] and values["start"] and values["start"] >= values["stop"]:
            raise UsageError(
                f"--stop {format_month(values['stop'])} is not later than {format_month(values['start'])}, "
                "the start of [RangeMonthly]; give --start too"
            )
        return [(name, values[name]) for name, _ in params]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.start is None:
            raise UsageError("RangeMonthly needs --start (or [RangeMonthly] start in luigi.cfg)")
        try:
            today = dt.datetime.fromtimestamp(time.time() if self.now is None else self.now).date()
        except (ValueError, OverflowError, OSError):
            raise UsageError(f"--now {self.now} is not a time; give seconds since 1970") from None
        parameters.check_span(self.start, self.stop, today)
        if issubclass(self.of, MonthTask):
            publisher = self._first.job.publisher_object
            publisher.check_offered(Partition(self._first.dataset, self.start))
            # Later than today is not yet published. Later than the publisher's time will never be.
            publisher.check_offered(Partition(self._first.dataset, min(self.months[-1], today.replace(day=1))))
        elif issubclass(self.of, AllTrips):
            planner.check_any_offered(self._first.job, monthly_names(self._first.dataset), self.months)
        renamed.warn()

    @property
    def months(self) -> list[dt.date]:
        return months_between(self.start, self.stop)[: self.task_limit]

    @property
    def _is_planned(self) -> bool:
        """Whole months are planned for the range at once; any other task is asked month by month."""
        return issubclass(self.of, FillsWarehouses)

    @cached_property
    def _first(self) -> Any:
        return self._instantiate_task_cls(self.start)

    @cached_property
    def plan(self) -> Plan:
        """What is to be done, decided once: child processes get it with the task."""
        first = self._first
        names = monthly_names(first.dataset)
        with self.shared_state() as state:
            return planner.plan_range(state, first.job, names, self.months, first.warehouses)

    @cached_property
    def _required(self) -> list[luigi.Task]:
        if not self._is_planned:
            with self.shared_state():
                tasks = self.give_state_to([self._instantiate_task_cls(month) for month in self.months])
                return [task for task in tasks if not task.complete()]
        tasks = tasks_of(self._first, self.plan)
        return list(reversed(tasks)) if self.reverse else tasks

    def requires(self) -> list[luigi.Task]:
        return self.give_state_to(self._required)

    def complete(self) -> bool:
        with self.shared_state():
            if self._is_planned and self.plan.months(MISSING):
                return False
            return all(task.complete() for task in self.requires())

    def run(self) -> None:
        if self._is_planned:
            ensure_none_missing(self, self.plan, self._first.publisher)

    def on_failure(self, exception: BaseException) -> str:
        return explain(self.title, exception)


def _of_datasets(values: dict[str, Any], places: dict[str, settings.Place]) -> tuple[Any, dict[str, Any]]:
    """Task and of-params of a range for which ``dataset`` may be given; it is "" afterwards, like ``datasets``.

    One dataset is of MonthlyTrips unless another task is named in the same place, several are of AllTrips. ``datasets``
    is the old name of several, and of AllTrips also if it is one. What comes from a stronger place (a flag before the
    environment before luigi.cfg) wins; what contradicts something from the same place is refused.
    """
    of = values["of"]
    given = renamed.take_from_arguments(of.task_family, dict(values["of_params"]))
    names = [name for name in ("dataset", "datasets") if values[name]]
    if len(names) == 2 and places["dataset"] == places["datasets"]:
        raise UsageError("--dataset and --datasets: give one of them")
    name = max(names, key=lambda name: places[name], default="")
    text, values["dataset"], values["datasets"] = values.get(name, ""), "", ""
    if not name:
        return of, given
    text = ",".join(monthly_names(text))
    place, is_several = places[name], name == "datasets" or "," in text
    task: type[JobTask] = AllTrips if is_several else MonthlyTrips
    parameter = "dataset"
    if name == "datasets":
        if name in dict(of.get_params()):  # somebody's own task
            parameter = name
        else:
            renamed.note(
                f"{name} of RangeMonthly", "dataset now" if "," in text else "dataset, with --of AllTrips, now"
            )
    fits = parameter in dict(of.get_params()) and not (is_several and issubclass(of, MonthTask))
    if not fits and place == places["of"]:
        why = "takes one dataset" if name == "dataset" in dict(of.get_params()) else f"has no {name}"
        raise UsageError(f"--{name} goes with --of {task.task_family}; {of.task_family} {why}")
    if not fits or (issubclass(of, AllTrips) and not is_several and place != places["of"]):
        if place < places["of"]:
            return of, given
        of = task
        given = {known: value for known, value in given.items() if known in dict(of.get_params())}
    if given.get(parameter, text) != text:
        if place == places["of_params"]:
            raise UsageError(f"--{name} {text} and --of-params with {parameter} {given[parameter]}: give one of them")
        if place < places["of_params"]:
            return of, given
    return of, {**given, parameter: text}


def _after_newest(first: Any, start: dt.date) -> dt.date:
    """The month after the newest that can be there: after this month, or after the last that the publisher has."""
    stop = add_months(dt.date.today(), 1)
    if isinstance(first, MonthTask):
        last = first.job.publisher_object.months_offered(first.dataset)[1]
        stop = min(stop, add_months(last, 1)) if last else stop
    return max(stop, add_months(start, 1))


assert Register.get_task_cls("RangeMonthly") is RangeMonthly, "ours replaces Luigi's"
