"""The arguments of RangeMonthly (task, start, stop), checked and turned into months.

``dataset``, ``of``, ``of_params``, ``start`` and ``stop`` may each come from a flag, the environment or luigi.cfg.
"""

from __future__ import annotations

import datetime as dt
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


def resolve(values: dict[str, Any], places: dict[str, settings.Place]) -> dict[str, Any]:
    """The values of RangeMonthly's parameters with ``of``, ``of_params`` and ``stop`` filled in.

    ``of_params`` then has all that the output depends on, so that it is part of the task's identity. ``places`` says
    where each value comes from. Raises UsageError for values that contradict each other.
    """
    values = dict(values)
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
    return values


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
        last = first.job.publisher.months_offered(first.dataset)[1]
        stop = min(stop, add_months(last, 1)) if last else stop
    return max(stop, add_months(start, 1))
