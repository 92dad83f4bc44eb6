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
from ..partition import Partition, months_between
from ..planning import planner
from ..planning.plan import MISSING, Plan
from ..planning.task_state import UsesState
from ..reporting.explanations import explain
from ..setting_values import whole
from . import parameters
from .base import DATASET_NAMES, MonthTask
from .range_arguments import resolve
from .wrappers import AllTrips, FillsWarehouses, MonthlyTrips, ensure_none_missing, tasks_of


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
        description=f"{DATASET_NAMES}, of MonthlyTrips; or several, comma-separated, of AllTrips",
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
        """Luigi's values of the parameters, resolved: see ``range_arguments``."""
        validation.ensure_valid()
        values = dict(super().get_param_values(params, args, kwargs))
        if not isinstance(values["of_params"], Mapping):
            raise UsageError('--of-params is a JSON object, such as \'{"dataset": "green"}\'')
        called_with = {
            *kwargs,
            *(name for name, _ in zip((name for name, of in params if of.positional), args, strict=False)),
        }
        origins = {
            name: settings.Origin.CALL if name in called_with else settings.origin_of(cls.get_task_family(), name)
            for name in values
        }
        values = resolve(values, origins)
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
            publisher = self.first_task.job.publisher
            publisher.check_offered(Partition(self.first_task.dataset, self.start))
            # Later than today is not yet published. Later than the publisher's time will never be.
            publisher.check_offered(Partition(self.first_task.dataset, min(self.months[-1], today.replace(day=1))))
        elif issubclass(self.of, AllTrips):
            planner.check_any_offered(self.first_task.job, monthly_names(self.first_task.dataset), self.months)
        renamed.warn()

    @property
    def months(self) -> list[dt.date]:
        return months_between(self.start, self.stop)[: self.task_limit]

    @property
    def _is_planned(self) -> bool:
        """Whole months are planned for the range at once; any other task is asked month by month."""
        return issubclass(self.of, FillsWarehouses)

    @cached_property
    def first_task(self) -> Any:
        """The task of the first month, for what all months have in common."""
        return self._instantiate_task_cls(self.start)

    @cached_property
    def plan(self) -> Plan:
        """What is to be done, decided once: child processes get it with the task."""
        first = self.first_task
        names = monthly_names(first.dataset)
        with self.shared_state() as state:
            return planner.plan_range(state, first.job, names, self.months, first.warehouses)

    @cached_property
    def _required(self) -> list[luigi.Task]:
        if not self._is_planned:
            with self.shared_state():
                tasks = self.give_state_to([self._instantiate_task_cls(month) for month in self.months])
                return [task for task in tasks if not task.complete()]
        tasks = tasks_of(self.first_task, self.plan)
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
            ensure_none_missing(self, self.plan, self.first_task.publisher)

    def on_failure(self, exception: BaseException) -> str:
        return explain(self.title, exception)


assert Register.get_task_cls("RangeMonthly") is RangeMonthly, "ours replaces Luigi's"
