"""The parameters of the tasks: each refuses a wrong value with one line, and takes its default from the settings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import luigi

from .. import datasets
from ..errors import UsageError
from ..partition import format_month, typed_month


class Month(luigi.MonthParameter):
    """The month of a file, ``YYYY-MM``; None (an empty text) for a table without months."""

    def parse(self, x: str) -> dt.date | None:
        return typed_month(x) if x else None

    def serialize(self, x: dt.date | None) -> str:
        return "" if x is None else format_month(x)

    def normalize(self, x: Any) -> dt.date | None:
        if isinstance(x, str):
            return self.parse(x)
        if x is not None and not isinstance(x, dt.date):
            raise UsageError(f"{x!r} is not a month; give a date or a text such as '2021-01'")
        return None if x is None else super().normalize(x)


class Dataset(luigi.Parameter):
    """The name of a dataset."""

    def normalize(self, x: str) -> str:
        return datasets.get(x).name


class FromSettings(luigi.Parameter):
    """A text whose default is computed from the settings when the task is built; it is part of the task's identity."""

    def __init__(self, source: Callable[[], str], normalize: Callable[[str], str] = str, **kwargs: Any) -> None:
        """``source`` gives the default; ``normalize`` the one form of a value, so that two of them are one task."""
        self._source = source
        self._normalize = normalize
        super().__init__(positional=False, **kwargs)

    def normalize(self, x: str) -> str:
        return self._normalize(x)

    def has_task_value(self, task_name: str, param_name: str) -> bool:
        """True: where neither flag nor luigi.cfg gives a value, the settings do."""
        return True

    def task_value(self, task_name: str, param_name: str) -> Any:
        if super().has_task_value(task_name, param_name):
            return super().task_value(task_name, param_name)
        return self.normalize(self._source())


def check_span(start: dt.date | None, stop: dt.date | None, today: dt.date) -> None:
    """Raise UsageError if there can be no month from ``start`` up to, not including, ``stop``; None is no bound."""
    if start and stop and start >= stop:
        what = "empty" if start == stop else "inverted"
        span = f"--start {format_month(start)} --stop {format_month(stop)}"
        raise UsageError(f"range {span} is {what}: stop is the month after the last")
    if start and start > today:
        raise UsageError(f"--start {format_month(start)} is later than this month, {format_month(today)}")
