"""Paths in a lake: one function per kind of file, all relative to the lake's root.

Other people's scripts rest on these paths. Nothing else in the package puts a lake path together.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re

from ..partition import Partition, parse_month

DATA = "data"
REJECTS = "rejects"
MANIFESTS = "manifests"
VERSIONS = "versions"
OBSERVATIONS = "observations"

_MONTHLY_NAME = re.compile(r"[a-z0-9_]+_tripdata_(\d{4}-\d{2})$")


def name(partition: Partition) -> str:
    """Name of a month's files without suffix, as TLC names them; of the zone table where there are no months."""
    return f"{partition.dataset}_tripdata_{partition.month_text}" if partition.month else "taxi_zone_lookup"


def data(partition: Partition) -> str:
    return f"{DATA}/{partition.dataset}/{name(partition)}.parquet"


def rejects(partition: Partition) -> str:
    return f"{REJECTS}/{partition.dataset}/{name(partition)}.parquet"


def manifest(partition: Partition) -> str:
    return f"{MANIFESTS}/{partition.dataset}/{name(partition)}.json"


def version(partition: Partition, parquet_sha256: str, suffix: str = "parquet") -> str:
    """Where a replaced Parquet file stays, by its own SHA-256; its manifest beside it with ``suffix="json"``."""
    return f"{VERSIONS}/{partition.dataset}/{name(partition)}.{parquet_sha256[:12]}.{suffix}"


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
    return parse_month(match[1])
