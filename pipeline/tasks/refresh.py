"""Refresh: asks the publisher about every month now, decides which ones to reload, and reloads them. For cron."""

from __future__ import annotations

import datetime as dt
import logging
from functools import cached_property
from typing import Any

import luigi

from ..datasets import monthly_names
from ..errors import Unreachable, UsageError
from ..partition import ZONES, format_month, months_between
from ..planning import planner
from ..planning.plan import MISSING, UNASKED, WITHDRAWN, Plan, titles
from . import parameters
from .base import JobTask
from .wrappers import FillsWarehouses, some_datasets, tasks_of

LOGGER = logging.getLogger("pipeline")


class Refresh(FillsWarehouses, JobTask):
    """Asks the publisher now about every month since ``since`` and reloads what it republished or added. For cron.

    Nothing else is touched: months that differ in other ways, such as rules, are for a range. Gaps at the publisher
    are told and are no failure here, and months that cannot be asked about are left for the next time. Planning fails
    if the publisher does not answer at all.
    """

    title = "Refresh"
    spans_months = True

    dataset = some_datasets()
    since = parameters.Month(default=None, description="first month to ask about, YYYY-MM")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.since is None:
            raise UsageError("Refresh needs --since: the first month to ask about, such as 2024-01")
        if self.since > dt.date.today():
            raise UsageError(f"--since {format_month(self.since)} is later than this month")

    @cached_property
    def plan(self) -> Plan:
        """What was found and is to be done, decided once."""
        plan = Plan()
        with self.shared_state() as state:
            zones = self.job.for_zones()
            if state.manifest(zones, ZONES):
                plan += planner.plan_refresh(state, zones, [ZONES], self.warehouses)
            months = months_between(self.since, dt.date.today() + dt.timedelta(days=1))
            for name in monthly_names(self.dataset):
                offered = planner.offered(self.job, name, months)
                plan += planner.plan_refresh(state, self.job, offered, self.warehouses)
        self._tell(plan)
        asked = [entry for entry in plan if entry.partition.month]
        if asked and all(entry.state == UNASKED for entry in asked):
            raise Unreachable(f"not a single month could be asked about; nothing was changed: {asked[0].reason}")
        return plan

    def _tell(self, plan: Plan) -> None:
        """One line for each kind of month that could not be loaded."""
        missing = [entry for entry in plan.months(MISSING) if entry.reason != WITHDRAWN]
        withdrawn = [entry for entry in plan.months(MISSING) if entry.reason == WITHDRAWN]
        if missing:
            LOGGER.warning("missing at %s: %s", self.publisher, titles(missing))
        if withdrawn:
            LOGGER.warning("%s: %s", titles(withdrawn), WITHDRAWN)
        if unasked := plan.months(UNASKED):
            LOGGER.warning("%s %s: %s", titles(unasked), UNASKED, unasked[0].reason)

    def requires(self) -> list[luigi.Task]:
        return tasks_of(self, self.plan)

    def complete(self) -> bool:
        with self.shared_state():
            return all(task.complete() for task in self.requires())
