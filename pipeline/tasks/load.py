"""lake -> warehouse: one partition and its ledger row."""

from __future__ import annotations

import datetime as dt
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import luigi

from .. import datasets
from ..errors import DamagedLakeFile, TakenAway, UsageError, WarehouseError
from ..job import normalize_warehouses, open_warehouse, warehouse_labels
from ..lake.lake import is_intact
from ..planning.synthetic import ensure_load_allowed
from ..reporting import journal, locations
from ..reporting.progress import StageProgress, rejects
from ..warehouse import kind_of, path_of
from . import parameters, servers
from .base import Stage
from .servers import Server
from .upload import Upload

if TYPE_CHECKING:
    from ..lake.manifest import Manifest
    from ..warehouse import LedgerRow


class Load(Stage):
    """The month in one warehouse."""

    warehouse = parameters.FromSettings(
        warehouse_labels, normalize_warehouses, description="label of one warehouse of [warehouse] url"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.warehouse or "," in self.warehouse:
            raise UsageError(f"Load fills one warehouse: name it with --warehouse, one of {self.warehouse or 'none'}")

    @property
    def title(self) -> str:
        return f"{super().title} into {locations.shown(self.warehouse)}"

    @property
    def servers(self) -> list[Server]:
        is_server = path_of(self.warehouse) is None
        return super().servers + ([servers.of_warehouse(self.warehouse)] if is_server else [])

    @property
    def resources(self) -> dict[str, int]:
        return {f"load_{kind_of(self.warehouse)}": 1}

    def requires(self) -> Upload:
        return self.sibling(Upload)

    def output(self) -> LedgerTarget:
        return LedgerTarget(self)

    def complete(self) -> bool:
        with self.shared_state() as state:
            return self.completeness(state).why_not_loaded(self.warehouse) is None

    def made_at(self) -> dt.datetime | None:
        with self.shared_state() as state:
            row = state.ledger(self.warehouse).get(self.partition)
        return row.loaded_at if row else None

    def lock(self) -> AbstractContextManager[Any]:
        return self.scratch.lock(self.warehouse)

    def work(self, progress: StageProgress) -> dict[str, Any]:
        lake = self.job.lake
        manifest = lake.settled_manifest(self.partition)
        if manifest is None:  # forgotten, or in a bucket maybe being replaced by another run
            raise self._taken_away()
        warehouse = open_warehouse(self.warehouse)
        with self.shared_state() as state:
            ensure_load_allowed(state, manifest.is_synthetic, self.warehouse)
        row = ledger_row(manifest, journal.run_id())
        warehouse.on_job = progress.link
        note = rejects(manifest.rows_rejected)
        file = lake.file(manifest)
        try:
            warehouse.load(datasets.get(self.dataset), file, row, lambda done, total: progress(done, total, note=note))
        except FileNotFoundError as error:
            raise self._taken_away() from error
        except WarehouseError as error:
            if is_intact(file, manifest.parquet):
                raise
            now = lake.settled_manifest(self.partition)
            if now is None or now.parquet != manifest.parquet:  # another run replaces the month, with other rules maybe
                raise self._taken_away() from error
            lake.forget(self.partition)
            raise DamagedLakeFile(
                f"{file.uri} is not the file of its manifest any more; run again, and the month is fetched anew"
            ) from error
        return {
            "rows": manifest.rows_written,
            "rows_read": manifest.rows_read,
            "rows_rejected": dict(manifest.rows_rejected),
        }

    def _taken_away(self) -> TakenAway:
        store = self.job.lake.store
        return TakenAway(f"{store.url} does not have the month any more", may_return=not store.has_locks)


class LedgerTarget(luigi.Target):
    """The month in a warehouse, there when the ledger says so."""

    def __init__(self, task: Load) -> None:
        self._task = task

    def exists(self) -> bool:
        return self._task.complete()

    def __str__(self) -> str:
        return f"{self._task.warehouse} {self._task.dataset} {self._task.month}"


def ledger_row(manifest: Manifest, run_id: str) -> LedgerRow:
    """What a warehouse's ledger says of a month that was loaded from the lake's file of this manifest."""
    from ..warehouse import LedgerRow

    return LedgerRow(
        dataset=manifest.dataset,
        file_month=manifest.month,
        status="loaded",
        row_count=manifest.rows_written,
        rejected_count=manifest.rejected_count,
        publisher=manifest.publisher,
        sha256=manifest.source.sha256,
        source_url=manifest.source.url,
        source_etag=manifest.source.etag,
        rules=manifest.rules,
        schema_version=manifest.schema_version,
        parquet_sha256=manifest.parquet.sha256,
        is_synthetic=int(manifest.is_synthetic),
        run_id=run_id,
    )
