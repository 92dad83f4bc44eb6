"""What is known of lake, publisher and warehouses in one plan or task: asked when first needed, and cached.

A ``State`` answers for one task by small requests. A ``CachedState`` answers for thousands of months from one listing
of each lake. Both ask each warehouse once for its ledger. No answer is newer than its first request, so each state is
made for one purpose, such as a plan or the run of one task, and closed after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from .. import remote, time_limits
from ..errors import PipelineError
from ..job import Job, open_warehouse
from ..partition import Partition

if TYPE_CHECKING:
    from ..lake import Listing
    from ..lake.lake import Observations
    from ..lake.manifest import Manifest
    from ..warehouse import LedgerRow


class State:
    """Answers for one task: every question is one small request, made when it is first asked.

    ``publishers`` holds those that were asked whether they answer at all, by label, with the error of those that do
    not; ``workspaces`` those that do. ``spent`` is what a plan has waited for publishers so far. ``wrappers`` holds the
    wrapper tasks of others that have passed the state on to what they require.
    """

    def __init__(self) -> None:
        self.is_open = True
        self.publishers: dict[str, PipelineError | None] = {}
        self.workspaces: set[str] = set()
        self.spent = remote.Spent()
        self.wrappers: set[str] = set()
        self._manifests: dict[tuple[str, Partition], Manifest | None] = {}
        self._months: dict[tuple[str, str], dict[Partition, Manifest]] = {}
        self._observations: dict[tuple[str, str], Observations] = {}
        self._ledgers: dict[str, dict[Partition, LedgerRow]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the use of this state: no task answers from it any more."""
        self.is_open = False

    def manifest(self, job: Job, partition: Partition) -> Manifest | None:
        """The manifest of a month that the lake has whole, else None."""
        key = job.lake_url, partition
        if key not in self._manifests:
            self._manifests[key] = self._read_manifest(job, partition)
        return self._manifests[key]

    def manifests(self, job: Job, dataset: str) -> dict[Partition, Manifest]:
        """The manifests of all months of a dataset that the lake has whole."""
        key = job.lake_url, dataset
        if key not in self._months:
            self._months[key] = job.lake.manifests(dataset, self._listing(job))
        return self._months[key]

    def observation(self, job: Job, partition: Partition) -> dict[str, Any] | None:
        """What was last seen of a month at its publisher; None if nobody has asked yet."""
        return self.observations(job).get(partition)

    def observations(self, job: Job) -> Observations:
        """What was last seen of all months at the publisher."""
        key = job.lake_url, job.publisher_label
        if key not in self._observations:
            self._observations[key] = job.lake.observations(job.publisher_label, self._listing(job))
        return self._observations[key]

    def ledger(self, warehouse: str) -> dict[Partition, LedgerRow]:
        """The newest ledger row of each partition in a warehouse, given by its label."""
        if warehouse not in self._ledgers:
            self._ledgers[warehouse] = open_warehouse(warehouse).ledger()
        return self._ledgers[warehouse]

    def _read_manifest(self, job: Job, partition: Partition) -> Manifest | None:
        return job.lake.manifest(partition)

    def _listing(self, job: Job) -> Listing | None:
        """A listing of the whole lake, where one is cheaper than a request for each question."""
        return None


class CachedState(State):
    """Answers for thousands of tasks: one listing of each lake, one query per warehouse, made when first asked."""

    def __init__(self) -> None:
        super().__init__()
        self._listings: dict[str, Listing] = {}

    def _listing(self, job: Job) -> Listing:
        if job.lake_url not in self._listings:
            with time_limits.for_answer(job.lake_url):
                self._listings[job.lake_url] = job.lake.listing()
        return self._listings[job.lake_url]

    def _read_manifest(self, job: Job, partition: Partition) -> Manifest | None:
        return self.manifests(job, partition.dataset).get(partition)
