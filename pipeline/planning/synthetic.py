"""Keeps synthetic months apart from published ones, in lake and warehouses, unless ``[publisher] allow_synthetic``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import settings
from ..errors import SyntheticData, UsageError
from ..job import open_warehouse

if TYPE_CHECKING:
    from ..job import Job
    from .completeness import Completeness
    from .state import State


def _ensure_not_mixed(is_synthetic: bool, others: Iterable[bool], where: str) -> None:
    """Raise SyntheticData if synthetic months would lie beside published ones."""
    if not settings.PublisherSettings().allow_synthetic and any(other != is_synthetic for other in others):
        why = "takes published months only" if is_synthetic else "holds synthetic months"
        raise SyntheticData(f"{where} {why}; choose another, or set [publisher] allow_synthetic")


def ensure_upload_allowed(state: State, job: Job, dataset: str) -> None:
    """Raise SyntheticData if a month of the job's publisher would lie in the lake beside months of another kind."""
    found = [found.is_synthetic for name in (dataset, "zones") for found in state.manifests(job, name).values()]
    _ensure_not_mixed(job.publisher.is_synthetic, found, f"lake {job.lake_url}")


def ensure_load_allowed(state: State, is_synthetic: bool, warehouse: str) -> None:
    """Raise SyntheticData if the warehouse takes published months only, or holds months of another kind."""
    if is_synthetic and not open_warehouse(warehouse).takes_synthetic:
        _ensure_not_mixed(True, [False], warehouse)
    _ensure_not_mixed(is_synthetic, (bool(row.is_synthetic) for row in state.ledger(warehouse).values()), warehouse)


def ensure_allowed(completeness: Completeness, warehouses: list[str]) -> None:
    """Raise UsageError if what is to be done for a month would be refused when it is uploaded or loaded."""
    state, job, manifest = completeness.state, completeness.job, completeness.manifest
    try:
        if manifest is None or completeness.why_not_in_lake() is not None:
            ensure_upload_allowed(state, job, completeness.partition.dataset)
            is_synthetic = job.publisher.is_synthetic
        else:
            is_synthetic = manifest.is_synthetic
        for warehouse in warehouses:
            if completeness.why_not_loaded(warehouse) is not None:
                ensure_load_allowed(state, is_synthetic, warehouse)
    except SyntheticData as error:
        raise UsageError(str(error)) from None
