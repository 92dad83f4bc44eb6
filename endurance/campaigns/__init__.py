"""The campaigns: each module here holds one class that attacks one part of the pipeline."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from ..campaign import Campaign


def all_campaigns() -> dict[str, type[Campaign]]:
    """By name, all that lie in this folder."""
    found: dict[str, type[Campaign]] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for _, kind in inspect.getmembers(importlib.import_module(f"{__name__}.{module}"), inspect.isclass):
            if (
                issubclass(kind, Campaign)
                and kind.__module__ == f"{__name__}.{module}"
                and not inspect.isabstract(kind)
            ):
                found[kind.name] = kind
    return found
