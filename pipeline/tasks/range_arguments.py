"""The arguments of RangeMonthly (task, start, stop), checked and turned into months.

``dataset``, ``of``, ``of_params``, ``start`` and ``stop`` may each come from a flag, the environment or luigi.cfg.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import luigi

from .. import renamed, settings
from ..datasets import monthly_names
from ..errors import UsageError
from ..partition import add_months, format_month
from .base import JobTask, MonthTask
from .wrappers import AllTrips, MonthlyTrips

#: Months start to count here; nothing of TLC's is older.
_EPOCH = dt.date(2009, 1, 1)


def resolve(values: dict[str, Any], origins: dict[str, settings.Origin]) -> dict[str, Any]:
    """The values of RangeMonthly's parameters with ``of``, ``of_params`` and ``stop`` filled in.

    ``of_params`` then has all that the output depends on, so that it is part of the task's identity, and ``dataset`` is
    empty. ``origins`` says where each value comes from: that of a stronger origin wins (a flag before the environment
    before luigi.cfg). Raises UsageError for values of one origin that contradict each other.
    """
    of, month, start, stop = (values[name] for name in ("of", "param_name", "start", "stop"))
    given = renamed.take_from_arguments(of.task_family, dict(values["of_params"]))
    if (asked := _Datasets.of(values, origins)) is not None:
        of, given = asked.put_into(of, given, origins)
    _check_parameters(of, given, month)
    first = None
    if issubclass(of, JobTask):
        first = of(**given, month=start or _EPOCH)
        text = first.to_str_params(only_significant=True)
        given = {name: text[name] for name in text if name != month}
    if origins["start"] > origins["stop"] or stop is None:
        stop = _after_newest(first, start or _EPOCH)
    elif origins["stop"] > origins["start"] and start and start >= stop:
        raise UsageError(
            f"--stop {format_month(stop)} is not later than {format_month(start)}, "
            "the start of [RangeMonthly]; give --start too"
        )
    of_params = luigi.freezing.FrozenOrderedDict(sorted(given.items()))
    return {**values, "of": of, "of_params": of_params, "stop": stop, "dataset": "", "datasets": ""}


@dataclass(frozen=True)
class _Datasets:
    """The datasets that ``dataset`` asks for, or ``datasets``, its old name of several and of AllTrips even for one."""

    name: str
    text: str
    origin: settings.Origin

    @classmethod
    def of(cls, values: dict[str, Any], origins: dict[str, settings.Origin]) -> _Datasets | None:
        names = [name for name in ("dataset", "datasets") if values[name]]
        if len(names) == 2 and origins["dataset"] == origins["datasets"]:
            raise UsageError("--dataset and --datasets: give one of them")
        if not names:
            return None
        name = max(names, key=lambda name: origins[name])
        return cls(name, ",".join(monthly_names(values[name])), origins[name])

    @property
    def is_several(self) -> bool:
        return self.name == "datasets" or "," in self.text

    @property
    def task(self) -> type[JobTask]:
        """The task that they are of, unless another one comes from the same origin."""
        return AllTrips if self.is_several else MonthlyTrips

    def parameter_of(self, task: Any) -> str:
        """The parameter that takes them. Somebody's own task may have one with the old name."""
        return self.name if self.name in dict(task.get_params()) else "dataset"

    def put_into(
        self, of: Any, given: dict[str, Any], origins: dict[str, settings.Origin]
    ) -> tuple[Any, dict[str, Any]]:
        """Task and of-params of the range with these datasets, or as they are if those come from a stronger origin."""
        parameter = self.parameter_of(of)
        if parameter != self.name:
            now = "dataset now" if "," in self.text else "dataset, with --of AllTrips, now"
            renamed.note(f"{self.name} of RangeMonthly", now)
        is_known = parameter in dict(of.get_params())
        fits = is_known and not (self.is_several and issubclass(of, MonthTask))
        if not fits and self.origin == origins["of"]:
            why = "takes one dataset" if is_known and parameter == self.name else f"has no {self.name}"
            raise UsageError(f"--{self.name} goes with --of {self.task.task_family}; {of.task_family} {why}")
        if not fits or (issubclass(of, AllTrips) and not self.is_several and self.origin != origins["of"]):
            if self.origin < origins["of"]:
                return of, given
            of, parameter = self.task, "dataset"
            given = {known: value for known, value in given.items() if known in dict(of.get_params())}
        if given.get(parameter, self.text) == self.text or self.origin > origins["of_params"]:
            return of, {**given, parameter: self.text}
        if self.origin == origins["of_params"]:
            other = f"{parameter} {given[parameter]}"
            raise UsageError(f"--{self.name} {self.text} and --of-params with {other}: give one of them")
        return of, given


def _check_parameters(of: Any, given: dict[str, Any], month: str) -> None:
    """Raise UsageError for a task that has no months, and for of-params that it does not take."""
    known = dict(of.get_params())
    if month not in known:
        raise UsageError(
            f"--of {of.task_family}: {of.task_family} has no months; "
            f"run it by itself: luigi --module pipeline {of.task_family}"
        )
    for name, value in given.items():
        if name not in known or name == month:
            choices = ", ".join(sorted(set(known) - {month}))
            raise UsageError(f"--of-params: {of.task_family} has no parameter {name!r} to give; it has {choices}")
        if issubclass(of, JobTask) and not isinstance(value, str):
            raise UsageError(f'--of-params: "{name}" is a text, such as "green"; {value!r} is none')


def _after_newest(first: Any, start: dt.date) -> dt.date:
    """The month after the newest that can be there: after this month, or after the last that the publisher has."""
    stop = add_months(dt.date.today(), 1)
    if isinstance(first, MonthTask):
        last = first.job.publisher.months_offered(first.dataset)[1]
        stop = min(stop, add_months(last, 1)) if last else stop
    return max(stop, add_months(start, 1))
