"""Where things lie in a lake: one function per kind of path, all relative to the lake's root.

Other people's scripts rest on these paths. Nothing else in the package puts a lake path together.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re

DATA = "data"
REJECTS = "rejects"
MANIFESTS = "manifests"
VERSIONS = "versions"
OBSERVATIONS = "observations"

_MONTHLY_NAME = re.compile(r"[a-z0-9_]+_tripdata_(\d{4})-(\d{2})$")


def name(dataset: str, month: dt.date | None) -> str:
    """Name of a month's files without suffix, as TLC names them; of the zone table where there are no months."""
    return f"{dataset}_tripdata_{month:%Y-%m}" if month else "taxi_zone_lookup"


def data(dataset: str, month: dt.date | None) -> str:
    return f"{DATA}/{dataset}/{name(dataset, month)}.parquet"


def rejects(dataset: str, month: dt.date | None) -> str:
    return f"{REJECTS}/{dataset}/{name(dataset, month)}.parquet"


def manifest(dataset: str, month: dt.date | None) -> str:
    return f"{MANIFESTS}/{dataset}/{name(dataset, month)}.json"


def version(dataset: str, month: dt.date | None, parquet_sha256: str, suffix: str = "parquet") -> str:
    """Where a replaced Parquet file stays, by its own SHA-256; its manifest beside it with ``suffix="json"``."""
    return f"{VERSIONS}/{dataset}/{name(dataset, month)}.{parquet_sha256[:12]}.{suffix}"


def observations(publisher: str) -> str:
    """What was last seen at a publisher. ``publisher`` is its label, which may hold an address."""
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", publisher).strip("-.")
    if slug != publisher:
        # Different addresses may give the same slug; a long one may be longer than a file name can be.
        slug = f"{slug[:60]}-{hashlib.sha256(publisher.encode()).hexdigest()[:8]}"
    return f"{OBSERVATIONS}/{slug}.json"


def month_of(path: str) -> dt.date | None:
    """The month of a data, rejects, manifest or version path; None for one of the zone table.

    Raises ``ValueError`` for a path that none of the functions above gives.
    """
    stem = path.rsplit("/", 1)[-1].split(".", 1)[0]
    if stem == "taxi_zone_lookup":
        return None
    match = _MONTHLY_NAME.match(stem)
    if not match:
        raise ValueError(f"{path} is not the path of a month's file")
    return dt.date(int(match[1]), int(match[2]), 1)
