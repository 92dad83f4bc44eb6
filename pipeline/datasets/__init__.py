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

__all__ = ["DATASETS", "MONTHLY", "Column", "Dataset", "get", "is_leftover", "monthly_names"]


def get(name: str) -> Dataset:
    """The dataset of that name; ``UsageError`` names the choices for any other."""
    try:
        return DATASETS[name]
    except KeyError:
        raise UsageError(f"unknown dataset {name!r}; choose one of {', '.join(DATASETS)}") from None


def monthly_names(text: str) -> list[str]:
    """The datasets of a comma-separated list, validated, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    monthly = [name for name in dict.fromkeys(names) if get(name).is_monthly]
    if not monthly:
        raise UsageError(f"{text!r} names no dataset with months; choose from {', '.join(MONTHLY)}")
    return monthly
