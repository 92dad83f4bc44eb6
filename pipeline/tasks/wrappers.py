"""AllTrips, MonthlyTrips and TaxiZones: tasks that wrap what brings a month, or the zone table, into all warehouses."""

from __future__ import annotations

from functools import cached_property

import luigi

from .. import settings
from ..datasets import monthly_names
from ..errors import MissingAtPublisher
from ..job import NO_RULES, normalize_warehouses, warehouse_labels
from ..lake import layout
from ..partition import ZONES, format_month
from ..planning import planner
from ..planning.completeness import Completeness
from ..planning.plan import MISSING, TO_DO, Plan, titles
from ..planning.state import State
from ..reporting import journal, progress
from ..storage import page_of
from . import parameters
from .base import JobTask, MonthTask
from .load import Load
from .target import StoreTarget
from .upload import Upload


class FillsWarehouses:
    """The parameter of every wrapper that fills warehouses."""

    warehouse = parameters.FromSettings(
        warehouse_labels, normalize_warehouses, description="labels of the warehouses, comma-separated"
    )

    @property
    def warehouses(self) -> list[str]:
        return [label for label in str(self.warehouse).split(",") if label]


def some_datasets() -> parameters.FromSettings:
    """The parameter of every task that takes several datasets."""

    def configured() -> str:
        return settings.RangeSettings().datasets

    def normalize(text: str) -> str:
        return ",".join(monthly_names(text or configured()))

    return parameters.FromSettings(
        configured, normalize, description="one or several, comma-separated; default [range] datasets"
    )


class AllTrips(FillsWarehouses, JobTask):
    """One month of all datasets, and the zone table. Datasets that were not offered in that month are left out."""

    month = parameters.Month(description="month of the files, YYYY-MM")
    dataset = some_datasets()

    @property
    def datasets(self) -> str:
        """The old name of the parameter ``dataset``. A subclass may still have it as its own."""
        return self.dataset

    @property
    def title(self) -> str:
        return f"AllTrips {format_month(self.month)}"

    @cached_property
    def plan(self) -> Plan:
        with self.shared_state() as state:
            return planner.plan_range(state, self.job, monthly_names(self.datasets), [self.month], self.warehouses)

    def check_offered(self) -> None:
        planner.check_any_offered(self.job, monthly_names(self.datasets), [self.month])

    def requires(self) -> list[luigi.Task]:
        return tasks_of(self, self.plan)

    def complete(self) -> bool:
        with self.shared_state():
            return not self.plan.months(MISSING) and all(task.complete() for task in self.requires())

    def run(self) -> None:
        ensure_none_missing(self, self.plan, self.publisher)


def tasks_of(task: JobTask, plan: Plan) -> list[luigi.Task]:
    """The tasks that do what the plan says is to be done."""
    return [
        task.sibling(TaxiZones)
        if entry.partition == ZONES
        else task.sibling(MonthlyTrips, dataset=entry.partition.dataset, month=entry.partition.month)
        for entry in plan.months(TO_DO)
    ]


def ensure_none_missing(task: luigi.Task, plan: Plan, publisher: str) -> None:
    """Raise MissingAtPublisher if months of the plan are gaps at the publisher."""
    gaps = [entry for entry in plan.months(MISSING) if entry.partition.month]
    if gaps:
        months = [str(entry.partition) for entry in gaps]
        journal.record("missing", task=task.task_id, error=MissingAtPublisher.__name__, months=months)
        raise MissingAtPublisher(f"{titles(gaps)}: missing at {publisher}; all other months are done")


class TaxiZones(FillsWarehouses, JobTask):
    """The zone table in the lake and in every configured warehouse. It has no months."""

    title = "TaxiZones"

    def requires(self) -> MonthlyTrips:
        return self.sibling(MonthlyTrips, dataset="zones", month=None, rules=NO_RULES, warehouse=self.warehouse)

    def output(self) -> StoreTarget:
        """The Parquet file in the lake, as that of a month."""
        return StoreTarget(self.job.lake.store, layout.data(ZONES))

    def complete(self) -> bool:
        with self.shared_state() as state:
            return self.completeness(state).why_incomplete(self.warehouses) is None

    def completeness(self, state: State) -> Completeness:
        return Completeness(state, self.job.for_zones(), ZONES)

    def check_fetchable(self) -> None:
        with self.shared_state() as state:
            planner.check_fetchable(self.completeness(state))


class MonthlyTrips(FillsWarehouses, MonthTask):
    """One month of one dataset in the lake and in every configured warehouse."""

    def requires(self) -> list[luigi.Task]:
        return [self.sibling(Upload), *(self.sibling(Load, warehouse=label) for label in self.warehouses)]

    def output(self) -> StoreTarget:
        """The Parquet file in the lake, for tasks that require this one. It is not asked whether the month is done."""
        return StoreTarget(self.job.lake.store, layout.data(self.partition))

    def complete(self) -> bool:
        with self.shared_state() as state:
            return self.completeness(state).why_incomplete(self.warehouses) is None

    def run(self) -> None:
        """Everything is loaded: remove the scratch of the month, and note in the journal that it is loaded."""
        with self.diagnosing(), self.shared_state() as state:
            self.scratch.prune()
            journal.record_all_loaded(self.task_id, self.partition, self.warehouses)
            manifest = self.completeness(state).manifest
        if manifest is not None:
            counts = {"rows": manifest.rows_written, "rows_read": manifest.rows_read}
            progress.tell(self, "status_message", progress.summary({**counts, "rows_rejected": manifest.rows_rejected}))
            progress.tell(self, "progress_percentage", 100)
            progress.tell(self, "tracking_url", page_of(self.job.lake.file(manifest).uri))
