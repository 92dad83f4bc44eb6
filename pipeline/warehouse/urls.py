"""Warehouse URLs: which backend a URL names, its label without secrets, and the list in ``[warehouse] url``.

``BACKENDS`` lists the backends; docs/development.md says how to add one. No database library is imported here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from ..errors import UsageError
from ..local_paths import check_path_length

_FORMS = (
    "use duckdb:///relative.duckdb (four slashes before an absolute path), "
    "postgresql+psycopg2://user@host/database or bigquery://project/dataset"
)

# Where SQLAlchemy splits: a password may hold any sign but "@", so no other split may be made before that one.
_POSTGRESQL = re.compile(
    r"(?:[^:/@]*(?::[^@]*)?@)?(?P<host>\[[^\]/?#@]+\]|[^:/?#@\[\]]*)(?::(?P<port>\d+))?"
    r"/(?P<database>[^/?#@]+)(?:\?(?P<query>[^#]*))?"
)
_BIGQUERY = re.compile(
    r"(?P<project>[a-z][a-z0-9.:-]*[a-z0-9])/(?P<dataset>[A-Za-z0-9_]{1,1024})/?"
    r"(?:\?location=(?P<location>[A-Za-z0-9-]+))?"
)


def duckdb_path(url: str) -> str:
    """Absolute path of the database file that a ``duckdb:`` URL names; percent-decoded, as in ``file:`` URLs."""
    rest = url.partition("://")[2]
    if not rest.startswith("/") or "?" in rest or "#" in rest:
        raise _bad("is not the URL of a DuckDB file")
    path = unquote(rest[1:])
    if not path or path.endswith("/") or path == ":memory:" or "\0" in path:
        raise _bad("names no DuckDB file")
    check_path_length(os.path.abspath(path), "[warehouse] url: duckdb:")
    return os.path.abspath(path)


def _duckdb_label(url: str) -> str:
    return "duckdb:///" + quote(duckdb_path(url))


def _postgresql_label(url: str) -> str:
    """``postgresql@host/database``; port, socket folder and schema are named where they are not the usual ones."""
    match = _POSTGRESQL.fullmatch(url.partition("://")[2])
    if match is None:
        raise _bad(
            "is not a PostgreSQL URL with a database; write the special signs of a password as %XX (a comma as %2C)"
        )
    if match["port"] and not 1 <= int(match["port"][:9]) <= 65535:
        raise _bad("has a port that is not between 1 and 65535", forms=False)
    query = dict(parse_qsl(match["query"] or ""))
    host = match["host"] or query.get("host") or "localhost"
    port = match["port"] or query.get("port") or "5432"
    label = f"postgresql@{host}" + (f":{port}" if port != "5432" else "") + f"/{match['database']}"
    schema = re.search(r"-c\s*search_path=([^\s]+)", query.get("options", ""))
    return f"{label}/{schema[1]}" if schema else label


def _bigquery_label(url: str) -> str:
    match = _BIGQUERY.fullmatch(url.partition("://")[2])
    if match is None:
        project, _, dataset = url.partition("://")[2].partition("?")[0].partition("/")
        if dataset and not re.fullmatch(r"\w+/?", dataset, re.ASCII):
            raise _bad("names no valid BigQuery dataset: a name has letters, digits and _ only", forms=False)
        if dataset and project != project.lower():
            raise _bad("names a Google Cloud project with capitals: use lower-case letters, digits and -", forms=False)
        raise _bad("is not bigquery://project/dataset")
    return f"bigquery://{match['project']}/{match['dataset']}"


@dataclass(frozen=True)
class Backend:
    """Where the class of a scheme is (module below this package, class) and how its URL becomes a label.

    ``path`` gives the file on this machine from the URL or the label; None for a warehouse that is a server.
    """

    module: str
    class_name: str
    label: Callable[[str], str]
    path: Callable[[str], str] | None = None


_POSTGRESQL_BACKEND = Backend("postgresql.warehouse", "PostgreSQL", _postgresql_label)

#: Scheme of the URL -> backend.
BACKENDS: dict[str, Backend] = {
    "duckdb": Backend("duckdb.warehouse", "DuckDB", _duckdb_label, path=duckdb_path),
    "postgresql+psycopg2": _POSTGRESQL_BACKEND,
    "postgresql": _POSTGRESQL_BACKEND,
    "bigquery": Backend("bigquery.warehouse", "BigQuery", _bigquery_label),
}


def label_of(url: str) -> str:
    """The name without secrets of the warehouse at ``url``, as ``Warehouse.label`` gives it; imports no backend."""
    url = url.strip()
    return backend_of(url).label(url)


def kind_of(label: str) -> str:
    """``duckdb``, ``postgresql`` or ``bigquery``: with this word each label begins."""
    return re.split("[:@]", label, maxsplit=1)[0]


def path_of(label: str) -> str | None:
    """The file on this machine that holds a warehouse; None for a warehouse that is a server."""
    backend = BACKENDS.get(kind_of(label))
    return backend.path(label) if backend is not None and backend.path is not None else None


def split_urls(text: str) -> list[str]:
    """The URLs of the comma-separated setting ``[warehouse] url``, in order; [] for a blank one.

    A comma ends a URL, so one inside a password or a path is written ``%2C``. Raises UsageError for a piece that
    is no warehouse URL and for a warehouse that is named twice.
    """
    urls = [piece.strip() for piece in text.split(",") if piece.strip()]
    labels = [label_of(url) for url in urls]
    for label in labels:
        if labels.count(label) > 1:
            raise _bad(f"names {label} twice; name each warehouse once", forms=False)
    return urls


def backend_of(url: str) -> Backend:
    """The backend of a URL's scheme. Raises UsageError where there is none."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        # Not quoted in the message: it may be the tail of a password with a comma in it.
        raise _bad("has a part that is no URL; write a comma inside a password or path as %2C")
    if scheme.lower() not in BACKENDS:
        raise _bad("has an unknown scheme")
    return BACKENDS[scheme.lower()]


def _bad(what: str, forms: bool = True) -> UsageError:
    """One line about the setting. The URL itself is never in it, because it may hold a password."""
    return UsageError(f"[warehouse] url {what}" + (f"; {_FORMS}" if forms else ""))
