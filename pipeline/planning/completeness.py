"""Is a partition complete, and if not, why: the one place that decides, asked by tasks, plan and status alike.

A partition is complete in the lake when its manifest names the bytes that lie there and records what is asked for now:
publisher, current source version, rules, and no column kept out that the declaration knows today. It is complete in a
warehouse when it is complete in the lake and the newest ledger row records the same file.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import datasets
from ..errors import PipelineError
from ..job import Job, warehouse_kind
from ..partition import Partition
from ..publishers.version import Version

if TYPE_CHECKING:
    from ..lake.manifest import Manifest
    from .state import State

#: The reason of a month that the lake does not have.
ABSENT = "not in the lake"

#: The reason of a month whose file at the publisher is another one now.
REPUBLISHED = "republished"


@dataclass(frozen=True)
class Completeness:
    """Whether one partition of a job is complete, as far as ``state`` knows."""

    state: State
    job: Job
    partition: Partition

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the month that the lake has now, whatever it was made of; None if it has none."""
        return self.state.manifest(self.job, self.partition)

    def reason(self, warehouses: list[str]) -> str | None:
        """The first reason why the month is not complete everywhere; None if it is."""
        found = self.lake_reason()
        for warehouse in warehouses:
            found = found or self.warehouse_reason(warehouse)
        return found

    def lake_reason(self) -> str | None:
        """Why the lake does not have the month as asked for; None if it does."""
        manifest = self.manifest
        if manifest is None:
            return ABSENT
        otherwise = self._made_otherwise(manifest)
        if otherwise is not None:
            return otherwise
        return REPUBLISHED if self.is_republished(manifest) else None

    def warehouse_reason(self, warehouse: str) -> str | None:
        """Why the warehouse does not have the month as the lake has it; None if it does."""
        manifest, reason = self.manifest, self.lake_reason()
        if manifest is None or reason is not None:
            return reason
        row = self.state.ledger(warehouse).get(self.partition)
        where = warehouse_kind(warehouse)
        if row is None:
            return f"not in {where}"
        if row.status != "loaded":
            return f"{row.status} in {where}"
        if (row.publisher, row.rules, row.sha256) != (manifest.publisher, manifest.rules, manifest.source.sha256):
            return f"{where} has another version"
        if row.parquet_sha256 != manifest.parquet.sha256:
            return f"{where} has an older shape"
        return None

    def is_made_of(self, sha256: str) -> bool:
        """Whether the lake's month was made as asked for from a raw file of these bytes, whatever its ETag was then."""
        manifest = self.manifest
        return manifest is not None and self._made_otherwise(manifest) is None and manifest.source.sha256 == sha256

    def _made_otherwise(self, manifest: Manifest) -> str | None:
        """What besides the source's version is not as asked for; None if all is."""
        if manifest.publisher != self.job.publisher:
            return f"publisher changed from {manifest.publisher}"
        if manifest.rules != self.job.rules:
            return f"rules changed from {manifest.rules}"
        declared = datasets.get(manifest.dataset)
        learned = sorted(name for name in manifest.unknown_columns if declared.column_for(name))
        if learned:
            return f"column {', '.join(learned)} was unknown and is declared now"
        return None

    def is_republished(self, manifest: Manifest) -> bool:
        """Whether the publisher was seen to have another file since the one of the manifest was fetched."""
        current = self.version_since(manifest.source.last_look, manifest.source.fetched_at)
        return current is not None and not self.is_same(manifest, current)

    def version_since(self, last_look: str | None, fetched_at: dt.datetime) -> Version | None:
        """The version last observed at the publisher, if that was after a file was fetched; None for nothing newer.

        ``last_look`` names the observation that was the last one before the file was fetched (see ``last_look``). Where
        nobody has noted it, the clocks decide: the one that ``fetched_at`` was read from, and that of the observation.

        A publisher on this machine is asked now, which costs nothing.
        """
        if self.job.publisher_object.is_local:
            try:
                return self.job.publisher_object.version(self.partition)
            except PipelineError:
                return None  # a check that fails changes nothing
        observed = self.state.observation(self.job, self.partition)
        if not observed or not observed.get("version"):
            return None
        if observation_name(observed) == last_look:
            return None
        if last_look is None:
            checked_at, now = dt.datetime.fromisoformat(observed["checked_at"]), dt.datetime.now(dt.UTC)
            if checked_at <= fetched_at <= now:  # otherwise one of the clocks was wrong
                return None
        return Version.from_dict(observed["version"])

    def is_same(self, manifest: Manifest, current: Version) -> bool:
        """Whether the manifest's source is the current version. A local file that was only touched stays the same."""
        source = manifest.source
        recorded = Version(etag=source.etag or None, length=source.length, last_modified=source.last_modified)
        return self.job.publisher_object.is_unchanged(self.partition, recorded, source.sha256, current)

    def last_look(self) -> str:
        """The name of the last observation of the publisher; empty where the files are at hand and none is kept."""
        if self.job.publisher_object.is_local:
            return ""
        return observation_name(self.state.observation(self.job, self.partition))


def observation_name(observed: dict[str, Any] | None) -> str:
    """A name for one observation of a publisher, whatever the clock said; empty where no version was seen."""
    if not observed or not observed.get("version"):
        return ""
    seen = f"{observed.get('checked_at')} {Version.from_dict(observed['version']).fingerprint}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def is_recent(time: dt.datetime, seconds: float) -> bool:
    """Whether a time is less than so many seconds ago. One to come was noted by a wrong clock, and tells nothing."""
    return 0 <= (dt.datetime.now(dt.UTC) - time).total_seconds() <= seconds
