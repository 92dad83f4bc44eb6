"""publisher -> raw file, checked."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ..job import retry_policy
from ..lake import layout
from ..planning.scratch import RAW
from ..publishers import Version
from ..reporting.progress import StageProgress
from . import servers
from .base import Stage
from .servers import Server
from .target import StoreTarget


class Download(Stage):
    """The raw file of a month, as the publisher has it now."""

    @property
    def resources(self) -> dict[str, int]:
        return {f"download_{self.publisher.partition('=')[0]}": 1}

    def output(self) -> StoreTarget:
        return StoreTarget(self.scratch.store, self.scratch.path(RAW))

    def complete(self) -> bool:
        record = self.scratch.record(RAW)
        with self.shared_state() as state:
            if record is None:
                return self.completeness(state).why_not_in_lake() is None
            fetched_at = dt.datetime.fromisoformat(record["fetched_at"])
            current = self.completeness(state).version_since(record["last_look"], fetched_at)
        fetched = Version.from_dict(record["version"])
        return current is None or current.same_as(fetched)

    def _last_loaded(self) -> dt.date | None:
        """The newest month in the lake: it must be at the publisher, so it tells "not there" from "not now"."""
        names = self.job.lake.store.list(f"{layout.MANIFESTS}/{self.dataset}")
        months = [month for name in names if (month := layout.month_of(name)) and month != self.month]
        return max(months, default=None)

    def work_with_retries(self, progress: StageProgress) -> dict[str, Any]:
        return self.work_once(progress)  # the transfer tries again by itself, from where it broke off

    @property
    def work_servers(self) -> list[Server]:
        return [] if self.job.publisher.is_local else [servers.of_publisher(self.publisher)]

    def work(self, progress: StageProgress) -> dict[str, Any]:
        started = dt.datetime.now(dt.UTC)
        with self.shared_state() as state:
            last_look = self.completeness(state).last_observation()
        publisher = self.job.publisher
        with self.scratch.resumable(RAW) as target:
            fetched = publisher.fetch(
                self.partition,
                target,
                retry_policy(),
                known_month=self._last_loaded() if publisher.needs_known_month else None,
                progress=lambda done, total: progress(done, total or 0, "bytes"),
                on_silence=self.diagnose,
            )
            record = {
                "url": fetched.url,
                "sha256": fetched.sha256,
                "version": fetched.version.to_dict(),
                "length": fetched.length,
                "format": publisher.layout.format_of(self.dataset),
                "fetched_at": started.isoformat(),
                "last_look": last_look,
            }
            self.scratch.keep(fetched.path, RAW, record)
        return {"bytes": fetched.length}
