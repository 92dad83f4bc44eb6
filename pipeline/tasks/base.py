"""What all stages share: their parameters, and how a stage runs.

A stage's parameters say all that its output depends on, by names without secrets, taken from the settings when the
root task is built. So two jobs with different settings are different tasks to luigid, and a child process or another
host needs no flag of the parent.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from typing import Any, TypeVar

import luigi

from .. import renamed, validation, waiting
from ..datasets import MONTHLY
from ..errors import (
    DamagedFile,
    DamagedScratch,
    MissingBucket,
    PipelineError,
    StorageUnavailable,
    TakenAway,
    TransientError,
    WarehouseBusy,
)
from ..job import (
    Job,
    lake_url,
    normalize_rules,
    normalize_store_url,
    publisher_label,
    retry_policy,
    rules_text,
    workspace_url,
)
from ..partition import Partition, count_months
from ..planning import planner
from ..planning.completeness import Completeness
from ..planning.scratch import Scratch
from ..planning.state import State
from ..planning.task_state import UsesState
from ..reporting import journal
from ..reporting.explanations import explain
from ..reporting.outcomes import DONE_BY_ANOTHER
from ..reporting.progress import StageProgress, StageRecord, tell
from ..retry import retrying
from ..storage import is_local
from . import parameters, servers
from .servers import Server

#: How often a run tries a stage again that has waited in vain for others to leave the warehouse.
RETRIES_WHEN_BUSY = 2

#: Months later than this one have the same priority.
_LAST_MONTH = dt.date(2099, 12, 1)

#: The datasets with months, as help texts name them.
DATASET_NAMES = f"{', '.join(MONTHLY[:-1])} or {MONTHLY[-1]}"

AnyTask = TypeVar("AnyTask", bound=luigi.Task)


class JobTask(UsesState, luigi.Task):
    """A task that belongs to a job: which publisher, which rules, from which workspace into which lake."""

    publisher = parameters.FromSettings(publisher_label, description="publisher, see [publisher]")
    rules = parameters.FromSettings(rules_text, normalize_rules, description="cleaning rules, see [clean] rules")
    lake = parameters.FromSettings(lake_url, normalize_store_url, description="lake, see [lake] url")
    workspace = parameters.FromSettings(workspace_url, normalize_store_url, description="scratch, see [workspace] url")

    @classmethod
    @cache
    def get_params(cls) -> Any:
        """As Luigi has it, found once per class: Luigi goes through all attributes anew whenever a task is built."""
        return super().get_params()

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: Any) -> list[tuple[str, Any]]:
        validation.ensure_valid()
        taken = renamed.take_from_arguments(cls.get_task_family(), kwargs)
        values: list[tuple[str, Any]] = super().get_param_values(params, args, taken)
        if taken.keys() != kwargs.keys():
            renamed.warn()
        return values

    @cached_property
    def job(self) -> Job:
        return Job(self.publisher, self.rules, self.lake, self.workspace)

    @property
    def servers(self) -> list[Server]:
        """The servers that tell whether the task is complete. Without them no task of this job can be done."""
        stores = dict.fromkeys(url for url in (self.workspace, self.lake) if not is_local(url))
        return [servers.of_store(url) for url in stores]

    @property
    def work_servers(self) -> list[Server]:
        """The servers that only the work needs, such as the publisher of a download."""
        return []

    def diagnose(self, error: PipelineError) -> None:
        """Raise Unreachable if it is the error of a server that answers nobody."""
        for server in [*self.servers, *self.work_servers]:
            server.diagnose(error)

    @contextmanager
    def diagnosing(self) -> Iterator[None]:
        """``diagnose`` for what is raised within this context."""
        try:
            yield
        except (TransientError, MissingBucket) as error:
            self.diagnose(error)
            raise

    def sibling(self, task: type[AnyTask], **changes: Any) -> AnyTask:
        """Another task of the same job: every parameter that both have is the same unless it is changed here."""
        names = {name for name, _ in task.get_params()}
        shared = {name: value for name, value in self.param_kwargs.items() if name in names}
        sibling = task(**{**shared, **changes})
        self.give_state_to([sibling])
        return sibling

    def check_offered(self) -> None:
        """Raise NeverOffered for a month that the publisher cannot have. Asked of the root task only."""

    def check_fetchable(self) -> None:
        """Raise Unreachable or RefusedByPublisher if what has to be fetched cannot be. Asked of the root task only."""

    def on_failure(self, exception: BaseException) -> str:
        return explain(str(getattr(self, "title", self.task_family)), exception)


class MonthTask(JobTask):
    """A task for one month of one dataset."""

    dataset = parameters.Dataset(default="yellow", description=DATASET_NAMES)
    month = parameters.Month(description="month of the file, YYYY-MM")

    @property
    def partition(self) -> Partition:
        return Partition(self.dataset, self.month)

    @property
    def title(self) -> str:
        """How people call this task in one line: ``Clean green 2020-03``."""
        return f"{self.task_family} {self.partition}"

    def completeness(self, state: State) -> Completeness:
        """Whether the month is complete, as far as the state knows."""
        return Completeness(state, self.job, self.partition)

    def check_offered(self) -> None:
        self.job.publisher.check_offered(self.partition)

    def check_fetchable(self) -> None:
        with self.shared_state() as state:
            planner.check_fetchable(self.completeness(state))

    @property
    def priority(self) -> int:
        """Oldest month first, each finished before the next is begun, so that little scratch lies around."""
        return 0 if self.month is None else count_months(self.month, _LAST_MONTH)  # the scheduler floors at 0

    @cached_property
    def scratch(self) -> Scratch:
        return Scratch(self.job, self.partition, journal.run_id)


class Stage(MonthTask):
    """One step of the data flow. A subclass says whether its output is there (``complete``) and makes it (``work``)."""

    def run(self) -> None:
        """Do the work unless it is done already, and report what becomes of it."""
        progress = StageProgress(self.stage_record)
        try:
            with waiting.reported_to(progress), self.lock(), self.fresh_state():
                progress.has_lock()
                self._work_if_incomplete(progress)
        except TakenAway as error:
            progress.postponed(error)
            raise
        except BaseException as error:
            progress.failed(error)
            if isinstance(error, WarehouseBusy):
                error.is_for_good = progress.times_failed(error) > RETRIES_WHEN_BUSY
            raise

    def _work_if_incomplete(self, progress: StageProgress) -> None:
        """Do the work unless another process has done it since Luigi asked."""
        for server in self.servers:
            server.check()
        with self.diagnosing():
            is_complete = self.complete()
        if not is_complete:
            self._work_and_report(progress)
        elif progress.has_waited:  # for it, maybe
            progress.done({"outcome": DONE_BY_ANOTHER}, 0.0)
        else:
            progress.found(self.made_at())

    def _work_and_report(self, progress: StageProgress) -> None:
        progress.started()
        try:
            for server in self.work_servers:
                server.check()
            details = self.work_with_retries(progress)
            for server in [*self.servers, *self.work_servers]:
                server.has_answered()
        except (DamagedFile, DamagedScratch):
            self.scratch.discard()  # what is damaged is not trusted again: the next run fetches it anew
            raise
        progress.done(details)

    def work_with_retries(self, progress: StageProgress) -> dict[str, Any]:
        """``work``, again while its error is one that may pass and no other run has done it meanwhile."""
        return retrying(partial(self.work_once, progress), retry_policy())

    def work_once(self, progress: StageProgress) -> dict[str, Any]:
        """``work``. Raises Unreachable if it fails because of a server that answers nobody."""
        try:
            with self.diagnosing():  # first: a server that answers nobody would only be waited for again
                return self.work(progress)
        except (StorageUnavailable, DamagedScratch):
            with self.diagnosing(), self.fresh_state():
                if self.complete():
                    return {"outcome": DONE_BY_ANOTHER}
            raise

    def work(self, progress: StageProgress) -> dict[str, Any]:
        """Make the output. Returns what the run's journal should know of it (rows, bytes ...)."""
        raise NotImplementedError

    def lock(self) -> Any:
        return self.scratch.lock()

    def made_at(self) -> dt.datetime | None:
        """When the output was made that is there already, UTC; None where nobody has noted it."""
        return None

    @property
    def stage_record(self) -> StageRecord:
        """How it is reported."""
        warehouse, partition = getattr(self, "warehouse", None), self.partition
        return StageRecord(self.task_id, self.task_family, self.title, partition, warehouse, partial(tell, self))
