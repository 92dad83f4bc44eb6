"""The wrapper tasks: one month, all datasets, the zone table, and ranges of months.

``RangeMonthly`` replaces Luigi's own, which clamps an explicit start to thirteen months, cuts a range at fifty tasks,
and calls an empty range a success.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import luigi
import luigi.tools.range
from luigi.task_register import Register

from .. import renamed, settings, validation
from ..errors import MissingAtPublisher, NeverOffered, Unreachable, UsageError
from ..job import normalize_warehouses, warehouse_labels
from ..lake import layout
from ..partition import ZONES, Partition, add_months, months_between
from ..planning import planner
from ..planning.answering import Answering
from ..planning.completeness import Completeness
from ..planning.planner import MISSING, NO_RULES, TO_DO, UNASKED, Plan
from ..planning.state import State
from ..reporting import journal, progress
from ..reporting.explanations import explain
from ..value_types import whole
from . import parameters
from .base import JobTask, MonthTask
from .load import Load
from .parameters import dataset_names
from .target import StoreTarget
from .upload import Upload

LOGGER = logging.getLogger("pipeline")

#: Months start to count here; nothing of TLC's is older.
_EPOCH = dt.date(2009, 1, 1)


class _Warehouses:
    """The parameter of every wrapper that fills warehouses."""

    warehouse = parameters.FromSettings(
        warehouse_labels, normalize_warehouses, description="labels of the warehouses, comma-separated"
    )

    @property
    def warehouses(self) -> list[str]:
        return [label for label in str(self.warehouse).split(",") if label]


def _datasets() -> parameters.FromSettings:
    """The parameter of every task that takes several datasets."""

    def configured() -> str:
        return settings.RangeSettings().datasets

    def normalize(text: str) -> str:
        return ",".join(dataset_names(text or configured()))

    return parameters.FromSettings(
        configured, normalize, description="one or several, comma-separated; default [range] datasets"
    )


class MonthlyTrips(_Warehouses, MonthTask):
    """One month of one dataset in the lake and in every configured warehouse."""

    def requires(self) -> list[luigi.Task]:
        return [self.sibling(Upload), *(self.sibling(Load, warehouse=label) for label in self.warehouses)]

    def output(self) -> StoreTarget:
        """The Parquet file in the lake, for tasks that require this one. It is not asked whether the month is done."""
        return StoreTarget(self.job.lake_object.store, layout.data(self.partition))

    def complete(self) -> bool:
        return self.completeness.reason(self.warehouses) is None

    def run(self) -> None:
        """All is loaded: what was needed on the way there can go."""
        with self.blaming():
            self.scratch.prune()
            journal.record_all_loaded(self.task_id, self.partition, self.warehouses)
            manifest = self.completeness.manifest
        if manifest is not None:
            counts = {"rows": manifest.rows_written, "rows_read": manifest.rows_read}
            progress.tell(self, "status_message", progress.summary({**counts, "rows_rejected": manifest.rows_rejected}))
            progress.tell(self, "progress_percentage", 100)
            progress.tell(self, "tracking_url", progress.page_of(self.job.lake_object.file(manifest).uri))


class TaxiZones(_Warehouses, JobTask):
    """The zone table in the lake and in every configured warehouse. It has no months."""

    title = "TaxiZones"

    def requires(self) -> MonthlyTrips:
        return self.sibling(MonthlyTrips, dataset="zones", month=None, rules=NO_RULES, warehouse=self.warehouse)

    def output(self) -> StoreTarget:
        """The Parquet file in the lake, as that of a month."""
        return StoreTarget(self.job.lake_object.store, layout.data(ZONES))

    def complete(self) -> bool:
        return self.completeness.reason(self.warehouses) is None

    @property
    def completeness(self) -> Completeness:
        return Completeness(self.state, planner.zones_job(self.job), ZONES)

    def check_source(self) -> None:
        with self.one_state():
            planner.check_source(self.completeness)

    def run(self) -> None:
        pass


class AllTrips(_Warehouses, JobTask):
    """One month of all datasets, and the zone table. Datasets that were not offered in that month are left out."""

    month = parameters.Month(description="month of the files, YYYY-MM")
    dataset = _datasets()

    @property
    def title(self) -> str:
        return f"AllTrips {self.month:%Y-%m}"

    @cached_property
    def plan(self) -> Plan:
        with self.one_state() as state:
            return plan_range(state, self, dataset_names(self.dataset), [self.month])

    def check_offered(self) -> None:
        check_any_offered(self, dataset_names(self.dataset), [self.month])

    def requires(self) -> list[luigi.Task]:
        return tasks_of(self, self.plan)

    def complete(self) -> bool:
        with self.one_state():
            return not self.plan.months(MISSING) and all(task.complete() for task in self.requires())

    def run(self) -> None:
        refuse_missing(self, self.plan, self.publisher)


class _Datasets(luigi.Parameter):
    """Names of datasets, comma-separated, or nothing."""

    def parse(self, x: str) -> str:
        if x:
            dataset_names(x)
        return x


class RangeMonthly(Answering, luigi.tools.range.RangeMonthly):
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
        called_with = {*kwargs, *(name for (name, _), _ in zip(_positional(params), args, strict=False))}
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
                f"--stop {values['stop']:%Y-%m} is not later than {values['start']:%Y-%m}, "
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
        check_span(self.start, self.stop, today)
        if issubclass(self.of, MonthTask):
            publisher = self._first.job.publisher_object
            publisher.check_offered(Partition(self._first.dataset, self.start))
            # Later than today is not yet published. Later than the publisher's time will never be.
            publisher.check_offered(Partition(self._first.dataset, min(self.months[-1], today.replace(day=1))))
        elif issubclass(self.of, AllTrips):
            check_any_offered(self._first, dataset_names(self._first.dataset), self.months)

    @property
    def months(self) -> list[dt.date]:
        return list(months_between(self.start, self.stop))[: self.task_limit]

    @property
    def _is_planned(self) -> bool:
        """Whole months are planned for the range at once; any other task is asked month by month."""
        return issubclass(self.of, _Warehouses)

    @cached_property
    def _first(self) -> Any:
        return self._instantiate_task_cls(self.start)

    @cached_property
    def plan(self) -> Plan:
        """What is to be done, decided once: child processes get it with the task."""
        first = self._first
        names = dataset_names(first.dataset)
        with self.one_state() as state:
            return plan_range(state, first, names, self.months)

    @cached_property
    def _required(self) -> list[luigi.Task]:
        if not self._is_planned:
            with self.one_state():
                tasks = self.hand_on([self._instantiate_task_cls(month) for month in self.months])
                return [task for task in tasks if not task.complete()]
        tasks = tasks_of(self._first, self.plan)
        return list(reversed(tasks)) if self.reverse else tasks

    def requires(self) -> list[luigi.Task]:
        return self.hand_on(self._required)

    def complete(self) -> bool:
        with self.one_state():
            if self._is_planned and self.plan.months(MISSING):
                return False
            return all(task.complete() for task in self.requires())

    def run(self) -> None:
        if self._is_planned:
            refuse_missing(self, self.plan, self._first.publisher)

    def on_failure(self, exception: BaseException) -> str:
        return explain(self.title, exception)


def _positional(params: Any) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in params if parameter.positional]


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
    text = ",".join(dataset_names(text))
    place, is_several = places[name], name == "datasets" or "," in text
    task: type[JobTask] = AllTrips if is_several else MonthlyTrips
    parameter = "dataset"
    if name == "datasets":
        if name in dict(of.get_params()):  # somebody's own task
            parameter = name
        else:
            renamed.say(f"{name} of RangeMonthly", "dataset" if "," in text else "dataset, with --of AllTrips,")
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


class Refresh(_Warehouses, JobTask):
    """Asks the publisher now about every month since ``since`` and reloads what it republished or added. For cron.

    Nothing else is touched: months that differ in other ways, such as rules, are for a range. Gaps at the publisher
    are told and are no failure here, and months that cannot be asked about are left for the next time. Planning fails
    if the publisher does not answer at all.
    """

    title = "Refresh"
    spans_months = True

    dataset = _datasets()
    since = parameters.Month(default=None, description="first month to ask about, YYYY-MM")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.since is None:
            raise UsageError("Refresh needs --since: the first month to ask about, such as 2024-01")
        if self.since > dt.date.today():
            raise UsageError(f"--since {self.since:%Y-%m} is later than this month")

    @cached_property
    def plan(self) -> Plan:
        """What was found and is to be done, decided once."""
        plan = Plan()
        with self.one_state() as state:
            zones = planner.zones_job(self.job)
            if state.manifest(zones, ZONES):
                plan.entries += planner.plan_refresh(state, zones, "zones", [None], self.warehouses).entries
            for name in dataset_names(self.dataset):
                months = months_between(self.since, dt.date.today() + dt.timedelta(days=1))
                offered = [month for month in months if _is_offered(self, name, month)]
                plan.entries += planner.plan_refresh(state, self.job, name, offered, self.warehouses).entries
        self._tell(plan)
        asked = [entry for entry in plan.entries if entry.month]
        if asked and all(entry.state == UNASKED for entry in asked):
            raise Unreachable(f"not a single month could be asked about; nothing was changed: {asked[0].reason}")
        return plan

    def _tell(self, plan: Plan) -> None:
        """One line for each kind of month that could not be loaded."""
        missing = [entry for entry in plan.months(MISSING) if entry.reason != planner.WITHDRAWN]
        withdrawn = [entry for entry in plan.months(MISSING) if entry.reason == planner.WITHDRAWN]
        if missing:
            LOGGER.warning("missing at %s: %s", self.publisher, planner.titles(missing))
        if withdrawn:
            LOGGER.warning("%s: %s", planner.titles(withdrawn), planner.WITHDRAWN)
        if unasked := plan.months(UNASKED):
            LOGGER.warning("%s %s: %s", planner.titles(unasked), UNASKED, unasked[0].reason)

    def requires(self) -> list[luigi.Task]:
        return tasks_of(self, self.plan)

    def complete(self) -> bool:
        with self.one_state():
            return all(task.complete() for task in self.requires())

    def run(self) -> None:
        pass


def check_span(start: dt.date | None, stop: dt.date | None, today: dt.date) -> None:
    """Raise UsageError if there can be no month from ``start`` up to, not including, ``stop``; None is no bound."""
    if start and stop and start >= stop:
        what = "empty" if start == stop else "inverted"
        raise UsageError(f"range --start {start:%Y-%m} --stop {stop:%Y-%m} is {what}: stop is the month after the last")
    if start and start > today:
        raise UsageError(f"--start {start:%Y-%m} is later than this month, {today:%Y-%m}")


def plan_range(state: State, task: Any, names: Iterable[str], months: list[dt.date], ask: bool = True) -> Plan:
    """The plan of the zone table and of ``months`` of the datasets, for the job of ``task``.

    Where several datasets are asked for, months that one of them was never offered in are left out.
    """
    plan = planner.plan_zones(state, task.job, task.warehouses, ask)
    for name in names:
        offered = [month for month in months if _is_offered(task, name, month)]
        plan.entries += planner.plan_months(state, task.job, name, offered, task.warehouses, ask).entries
    return plan


def tasks_of(task: Any, plan: Plan) -> list[luigi.Task]:
    """The tasks that do what the plan says is to be done."""
    return [
        task.sibling(TaxiZones)
        if entry.month is None
        else task.sibling(MonthlyTrips, dataset=entry.dataset, month=entry.month)
        for entry in plan.months(TO_DO)
    ]


def refuse_missing(task: luigi.Task, plan: Plan, publisher: str) -> None:
    """Raise MissingAtPublisher if months of the plan are gaps at the publisher."""
    gaps = [entry for entry in plan.months(MISSING) if entry.month]
    if gaps:
        months = [str(Partition(entry.dataset, entry.month)) for entry in gaps]
        journal.record("missing", task=task.task_id, error=MissingAtPublisher.__name__, months=months)
        raise MissingAtPublisher(f"{planner.titles(gaps)}: missing at {publisher}; all other months are done")


def check_any_offered(task: Any, names: list[str], months: list[dt.date]) -> None:
    """Raise NeverOffered if the publisher cannot have any of the datasets in any of the months."""
    if not any(_is_offered(task, name, month) for month in months for name in names):
        span = f"{months[0]:%Y-%m}" + (f" to {months[-1]:%Y-%m}" if len(months) > 1 else "")
        raise NeverOffered(
            f"{span}: none of {', '.join(names)} was ever offered by {task.publisher}; ask for other months"
        )


def _is_offered(task: Any, dataset: str, month: dt.date) -> bool:
    try:
        task.job.publisher_object.check_offered(Partition(dataset, month))
    except NeverOffered:
        return False
    return True


assert Register.get_task_cls("RangeMonthly") is RangeMonthly, "ours replaces Luigi's"
