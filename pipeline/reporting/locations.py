"""Where a run's results lie, as paths instead of URLs, and the command that queries each warehouse."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from urllib.parse import unquote

from .. import datasets, settings
from ..local_paths import path_of, short_path
from ..storage import is_local
from ..warehouse import duckdb_path, label_of, split_urls
from ..warehouse.views import TRIP_DATASETS, TRIPS_VIEW, ZONES_TABLE


def shown(url: str) -> str:
    """A lake or the label of a warehouse: a path for what lies on this machine, and else as it is."""
    if is_local(url):
        return short_path(str(path_of(url)))
    return short_path(duckdb_path(url)) if url.startswith("duckdb:") else url


def queries(labels: Sequence[str], loaded: Collection[str]) -> list[str]:
    """For each warehouse a command that shows what was loaded; ``loaded`` are names of datasets."""
    if not loaded:
        return []
    url_of = {label_of(url): url for url in split_urls(settings.WarehouseSettings().url)}
    return [command for label in labels if (command := _query(label, url_of.get(label, ""), loaded))]


def _query(label: str, url: str, loaded: Collection[str]) -> str:
    if label.startswith("duckdb:"):
        path = duckdb_path(label)
        if not os.path.exists(path):
            return ""
        file, text = (json.dumps(text, ensure_ascii=False) for text in (short_path(path), sql(loaded)))
        code = f"import duckdb; print(duckdb.connect({file}, read_only=True).sql({text}))"
        return f"{shlex.quote(short_path(sys.executable))} -c {shlex.quote(code)}"
    if label.startswith("bigquery:"):
        project, _, dataset = label.partition("://")[2].partition("/")
        text = sql(loaded, f"`{project}.{dataset}`.")
        return f"bq query --project_id={project} --use_legacy_sql=false {shlex.quote(text)}"
    return f"psql {shlex.quote(_without_password(url))} -c {shlex.quote(sql(loaded))}" if url else ""


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


def _without_password(url: str) -> str:
    """A PostgreSQL URL as psql takes it, without driver and password: psql asks for that, or has it in PGPASSWORD."""
    rest = url.partition("://")[2]
    user, at, host = rest.rpartition("@")
    user = user.partition(":")[0]
    address, mark, query = host.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&"))
    leading = ("host", "port", "options", "sslmode")  # to the server and its schema
    kept = "&".join(f"{name}={value}" for name, _, value in pairs if unquote(name) in leading)
    return f"postgresql://{user}{at}{address}{mark if kept else ''}{kept}"
