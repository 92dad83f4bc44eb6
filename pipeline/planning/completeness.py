"""Decides whether a partition is complete in lake and warehouses, and if not, why; for tasks, plan and status.

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
from ..job import Job
from ..partition import Partition
from ..publishers.version import Version
from ..warehouse import kind_of

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

    def why_incomplete(self, warehouses: list[str]) -> str | None:
        """The first reason why the month is not complete in the lake and in all warehouses; None if it is."""
        reason = self.why_not_in_lake()
        for warehouse in warehouses:
            reason = reason or self.why_not_loaded(warehouse)
        return reason

    def why_not_in_lake(self) -> str | None:
        """Why the lake does not have the month as asked for; None if it does."""
        manifest = self.manifest
        if manifest is None:
            return ABSENT
        difference = self._what_differs(manifest)
        if difference is not None:
            return difference
        return REPUBLISHED if self.is_republished(manifest) else None

    def why_not_loaded(self, warehouse: str) -> str | None:
        """Why the warehouse does not have the month as the lake has it; None if it does."""
        manifest, reason = self.manifest, self.why_not_in_lake()
        if manifest is None or reason is not None:
            return reason
        row = self.state.ledger(warehouse).get(self.partition)
        where = kind_of(warehouse)
        if row is None:
            return f"not in {where}"
        if row.status != "loaded":
            return f"{row.status} in {where}"
        if (row.publisher, row.rules, row.sha256) != (manifest.publisher, manifest.rules, manifest.source.sha256):
            return f"{where} has another version"
        if row.parquet_sha256 != manifest.parquet.sha256:
            return f"{where} has an older Parquet file"
        return None

    def is_made_of(self, sha256: str) -> bool:
        """Whether the lake has the month as asked for, made from a raw file with this SHA-256 and any ETag."""
        manifest = self.manifest
        return manifest is not None and self._what_differs(manifest) is None and manifest.source.sha256 == sha256

    def _what_differs(self, manifest: Manifest) -> str | None:
        """What differs from what is asked for, besides the version of the source; None if nothing does."""
        if manifest.publisher != self.job.publisher_label:
            return f"publisher changed from {manifest.publisher}"
        if manifest.rules != self.job.rules:
            return f"rules changed from {manifest.rules}"
        declared = datasets.get(manifest.dataset)
        newly_declared = sorted(name for name in manifest.unknown_columns if declared.column_for(name))
        if newly_declared:
            return f"column {', '.join(newly_declared)} was unknown and is declared now"
        return None

    def is_republished(self, manifest: Manifest) -> bool:
        """Whether the publisher was seen to have another file since the one of the manifest was fetched."""
        current = self.version_since(manifest.source.last_look, manifest.source.fetched_at)
        return current is not None and not self.has_version(manifest, current)

    def version_since(self, last_look: str | None, fetched_at: dt.datetime) -> Version | None:
        """The version last observed at the publisher, if that was after a file was fetched; None for nothing newer.

        ``last_look`` is what ``last_observation`` returned when the file was fetched. Files of earlier versions do not
        have it. Then ``fetched_at`` is compared with the time of the observation.

        A publisher on this machine is asked now, which costs nothing.
        """
        if self.job.publisher.is_local:
            try:
                return self.job.publisher.version(self.partition)
            except PipelineError:
                return None  # a check that fails changes nothing
        observed = self.state.observation(self.job, self.partition)
        if not observed or not observed.get("version"):
            return None
        if observation_id(observed) == last_look:
            return None
        if last_look is None:
            checked_at, now = dt.datetime.fromisoformat(observed["checked_at"]), dt.datetime.now(dt.UTC)
            if checked_at <= fetched_at <= now:  # otherwise one of the clocks was wrong
                return None
        return Version.from_dict(observed["version"])

    def has_version(self, manifest: Manifest, current: Version) -> bool:
        """Whether the manifest's source is the current version. A local file that was only touched stays the same."""
        source = manifest.source
        recorded = Version(etag=source.etag or None, length=source.length, last_modified=source.last_modified)
        return self.job.publisher.is_unchanged(self.partition, recorded, source.sha256, current)

    def last_observation(self) -> str:
        """The id of the last observation of the publisher; empty for a local publisher, which has none."""
        if self.job.publisher.is_local:
            return ""
        return observation_id(self.state.observation(self.job, self.partition))


def observation_id(observed: dict[str, Any] | None) -> str:
    """The id of one observation of a publisher, a digest of its time and version; empty where no version was seen."""
    if not observed or not observed.get("version"):
        return ""
    seen = f"{observed.get('checked_at')} {Version.from_dict(observed['version']).fingerprint}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def is_recent(time: dt.datetime, seconds: float) -> bool:
    """Whether a time is at most so many seconds ago. One in the future comes from a wrong clock and is not recent."""
    return 0 <= (dt.datetime.now(dt.UTC) - time).total_seconds() <= seconds
