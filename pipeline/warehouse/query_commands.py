"""The shell command that queries a warehouse of each kind: DuckDB in Python, psql, or bq; without a password."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from urllib.parse import unquote

from ..local_paths import short_path
from .urls import duckdb_path, kind_of

#: A query, from what its tables are called before their own names, such as ```project.dataset`.``.
Query = Callable[[str], str]


def query_command(label: str, url: str, query: Query) -> str:
    """A command that runs the query; "" where there is none. ``url`` is that of the settings, "" if it is not there."""
    return _COMMANDS[kind_of(label)](label, url, query)


def _python(label: str, url: str, query: Query) -> str:
    path = duckdb_path(label)
    if not os.path.exists(path):
        return ""
    file, text = (json.dumps(text, ensure_ascii=False) for text in (short_path(path), query("")))
    code = f"import duckdb; print(duckdb.connect({file}, read_only=True).sql({text}))"
    return f"{shlex.quote(short_path(sys.executable))} -c {shlex.quote(code)}"


def _psql(label: str, url: str, query: Query) -> str:
    return f"psql {shlex.quote(_without_password(url))} -c {shlex.quote(query(''))}" if url else ""


def _bq(label: str, url: str, query: Query) -> str:
    project, _, dataset = label.partition("://")[2].partition("/")
    text = query(f"`{project}.{dataset}`.")
    return f"bq query --project_id={project} --use_legacy_sql=false {shlex.quote(text)}"


_COMMANDS: dict[str, Callable[[str, str, Query], str]] = {"duckdb": _python, "postgresql": _psql, "bigquery": _bq}


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
