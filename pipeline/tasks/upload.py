"""Parquet and rejects -> lake, with the manifest that names them."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from dataclasses import replace
from typing import Any

from .. import datasets, settings
from .._version import __version__
from ..errors import PipelineError
from ..lake import layout
from ..lake.lake import digest_of
from ..lake.manifest import Digest, Manifest, Source
from ..planning.scratch import PARQUET, RAW, REJECTS, ROWS
from ..planning.synthetic import ensure_upload_allowed
from ..reporting import journal
from ..reporting.progress import StageProgress
from ..storage import page_of
from .base import Stage
from .target import StoreTarget
from .write_parquet import WriteParquet

#: The outcome of a month that was published anew without any change: only the new ETag is written down, so that the
#: file is not fetched for it again. Its Parquet file and the tables stay as they are.
SAME_BYTES = "same bytes as before"

#: What a manifest takes over from the report of Clean.
_REPORTED = (
    *("rows_read", "rows_rejected", "blank_lines", "repeated_headers", "surplus_values", "repaired"),
    *("unknown_columns", "unknown_codes"),
)


class Upload(Stage):
    """The month in the lake: rejects, Parquet and manifest, in this order: a manifest names files that are there."""

    def requires(self) -> WriteParquet:
        return self.sibling(WriteParquet)

    def output(self) -> StoreTarget:
        return StoreTarget(self.job.lake.store, layout.manifest(self.partition))

    def complete(self) -> bool:
        with self.shared_state() as state:
            return self.completeness(state).why_not_in_lake() is None

    def work_with_retries(self, progress: StageProgress) -> dict[str, Any]:
        details = super().work_with_retries(progress)
        with suppress(PipelineError):  # the month is in the lake all the same; what stays is swept some day
            self.scratch.discard()
        return details

    def work(self, progress: StageProgress) -> dict[str, Any]:
        scratch, lake = self.scratch, self.job.lake
        raw = scratch.need(RAW)
        source = _source_of(raw)
        known = lake.manifest(self.partition)
        with self.shared_state() as state:
            if known is not None and self.completeness(state).is_made_of(source.sha256):
                lake.restate(replace(known, source=source))
                return {"outcome": SAME_BYTES}
            cleaned, written = (scratch.need(name, raw["sha256"]) for name in (ROWS, PARQUET))
            scratch.need(REJECTS, raw["sha256"])
            ensure_upload_allowed(state, self.job, self.dataset)
        with scratch.local(PARQUET) as parquet, scratch.local(REJECTS) as rejects:
            digests = {
                "parquet": Digest(layout.data(self.partition), written["parquet_sha256"], parquet.stat().st_size),
                "rejects": digest_of(rejects, layout.rejects(self.partition)),
            }
            manifest = self._manifest(source, cleaned["report"], written["rows_written"], **digests)
            lake.publish(
                parquet,
                rejects,
                manifest,
                keep_versions=settings.LakeSettings().keep_versions,
                progress=lambda done, total: progress(done, total, "bytes"),
            )
        progress.link(page_of(lake.file(manifest).uri))
        return {
            "rows": manifest.rows_written,
            "bytes": manifest.parquet.bytes,
            "unknown_columns": sorted(manifest.unknown_columns),
        }

    def _manifest(
        self, source: Source, report: dict[str, Any], rows_written: int, parquet: Digest, rejects: Digest
    ) -> Manifest:
        return Manifest(
            dataset=self.dataset,
            month=self.month,
            publisher=self.publisher,
            source=source,
            rows_written=rows_written,
            rules=self.rules,
            schema_version=datasets.get(self.dataset).schema_version,
            parquet=parquet,
            rejects=rejects,
            run_id=journal.run_id(),
            created_at=dt.datetime.now(dt.UTC),
            pipeline_version=__version__,
            is_synthetic=self.job.publisher.is_synthetic,
            ignored_columns=tuple(report["ignored_columns"]),
            **{name: report[name] for name in _REPORTED},
        )


def _source_of(raw: dict[str, Any]) -> Source:
    """What a manifest says of the raw file, by its record in the scratch."""
    return Source(
        url=raw["url"],
        sha256=raw["sha256"],
        etag=raw["version"].get("etag") or "",
        length=raw["length"],
        last_modified=raw["version"].get("last_modified"),
        format=raw["format"],
        fetched_at=dt.datetime.fromisoformat(raw["fetched_at"]),
        last_look=raw["last_look"],
    )
