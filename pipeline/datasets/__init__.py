"""The datasets, each declared once in a file of its own; everything else is derived from the declarations."""

from __future__ import annotations

from ..errors import UsageError
from .fhv import FHV
from .fhvhv import FHVHV
from .green import GREEN
from .schema import Column, Dataset, is_leftover
from .yellow import YELLOW
from .zones import ZONES

#: Every dataset by its name, the zone table last.
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (YELLOW, GREEN, FHV, FHVHV, ZONES)}

#: Names of the datasets that come in months.
MONTHLY: tuple[str, ...] = tuple(name for name, dataset in DATASETS.items() if dataset.is_monthly)

__all__ = ["DATASETS", "MONTHLY", "Column", "Dataset", "get", "is_leftover"]


def get(name: str) -> Dataset:
    """The dataset of that name; ``UsageError`` names the choices for any other."""
    try:
        return DATASETS[name]
    except KeyError:
        raise UsageError(f"unknown dataset {name!r}; choose one of {', '.join(DATASETS)}") from None
