"""The warehouses, each named by a URL: ``open_warehouse`` gives the class for one; ``urls`` knows them all."""

from __future__ import annotations

import importlib

from .base import LedgerRow, Options, Warehouse
from .urls import backend_of, kind_of, label_of, path_of, split_urls

__all__ = ["LedgerRow", "Options", "Warehouse", "kind_of", "label_of", "open_warehouse", "path_of", "split_urls"]


def open_warehouse(url: str, options: Options | None = None) -> Warehouse:
    """The warehouse that ``url`` names. Connects to nothing; raises UsageError if the URL cannot be right."""
    url = url.strip()
    backend = backend_of(url)
    backend.label(url)  # a URL that is malformed is refused here, not in the middle of a run
    module = importlib.import_module(f"{__name__}.{backend.module}")
    warehouse: Warehouse = getattr(module, backend.class_name)(url, options)
    return warehouse
