"""Where a run's results are, as paths instead of URLs, and a query for each warehouse that shows them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from .. import datasets, settings
from ..local_paths import path_of, short_path
from ..storage import is_local
from ..warehouse import label_of, split_urls
from ..warehouse import path_of as path_of_warehouse
from ..warehouse.query_commands import query_command
from ..warehouse.views import TRIP_DATASETS, TRIPS_VIEW, ZONES_TABLE


def shown(url: str) -> str:
    """A lake or the label of a warehouse: a path for what is on this machine, and else as it is."""
    path = str(path_of(url)) if is_local(url) else path_of_warehouse(url)
    return url if path is None else short_path(path)


def queries(labels: Sequence[str], loaded: Collection[str]) -> list[str]:
    """For each warehouse a command that shows what was loaded; ``loaded`` are names of datasets."""
    if not loaded:
        return []
    url_of = {label_of(url): url for url in split_urls(settings.WarehouseSettings().url)}
    commands = (query_command(label, url_of.get(label, ""), partial(sql, loaded)) for label in labels)
    return [command for command in commands if command]


def sql(loaded: Collection[str], prefix: str = "") -> str:
    """A query about the datasets that were loaded: a count per month, or the zones where there is nothing else."""
    if any(name in loaded for name in TRIP_DATASETS):
        return (
            "SELECT dataset, file_month, count(*) AS trips, avg(total_amount) AS mean_amount "
            f"FROM {prefix}{TRIPS_VIEW} GROUP BY 1, 2 ORDER BY 1, 2"
        )
    others = [name for name in datasets.MONTHLY if name in loaded]
    if others:
        table = datasets.get(others[0]).table
        return f"SELECT file_month, count(*) AS trips FROM {prefix}{table} GROUP BY 1 ORDER BY 1"
    return f"SELECT * FROM {prefix}{ZONES_TABLE} ORDER BY 1 LIMIT 5"
