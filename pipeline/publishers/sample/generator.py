"""Synthetic months: files of any dataset, era and size that look like TLC's and hold nobody's trips.

They are the offline publisher of ``make run``, of the tests and of the benchmarks. Every file says that it is
synthetic: Parquet in its key-value metadata, csv.gz in the name inside the gzip header, the folder in SYNTHETIC.txt.

The values come from ``trips``, as whole numbers, and are the same on every machine; the layouts from ``layouts``;
``writer`` puts the one into the other. The bytes of a file also depend on the compressor (pyarrow for Parquet, zlib for
csv.gz), whose versions are part of ``version``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import zlib
from collections.abc import Iterable
from importlib.metadata import version as installed
from pathlib import Path

from ...errors import NeverOffered, SyntheticData, UsageError
from ...partition import ZONES, Partition, parse_month
from .. import catalog
from ..catalog import README
from .layouts import AIRPORTS, BOROUGHS, FIRST_MONTHS

#: Raised with every change of the values or the bytes.
GENERATOR = 1

LAYOUTS = tuple(FIRST_MONTHS)
DATASETS = tuple(FIRST_MONTHS["tlc"])

#: A row group has at most 64 Mi rows in pyarrow, and a file has one row group, as TLC's.
MAX_ROWS = 64 * 1024 * 1024


def make_file(partition: Partition, path: Path, *, rows: int, seed: int, layout: str = "tlc") -> None:
    """Write one synthetic file to ``path``, which appears only when it is complete.

    ``layout`` ``tlc`` gives Parquet with one row group, ``dtc`` csv.gz, both as the era of the month had them.
    The dataset ``zones`` has no month; its CSV always has 265 rows. The same arguments give the same file.

    Raises UsageError for arguments that cannot be right, NeverOffered for a month before the dataset's first.
    """
    _check(partition, rows, seed, layout)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if partition.month is None:
                file.write(_zone_table().encode())
            else:
                from .writer import write_month

                inputs = _inputs(partition, rows, seed)
                write_month(file, partition, rows, layout, lambda chunk: _digest(*inputs, layout, chunk), GENERATOR)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def version(partition: Partition, rows: int, seed: int, layout: str) -> str:
    """A sign that changes whenever the bytes of ``make_file`` would, without making them."""
    _check(partition, rows, seed, layout)
    if partition.month is None:
        return f"synthetic-{GENERATOR}-{ZONES.dataset}"
    writer = f"pyarrow {installed('pyarrow')}" if layout == "tlc" else f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    return f"synthetic-{GENERATOR}-{_digest(*_inputs(partition, rows, seed), layout, writer).hex()[:16]}"


def publish(
    folder: Path, dataset: str, months: Iterable[dt.date], *, rows: int, seed: int, layout: str = "tlc"
) -> list[Path]:
    """Write months and the zone table into ``folder`` as the publisher lays them out; return the months' paths.

    Raises SyntheticData if the folder holds files that are not known to be synthetic: they might be real ones.
    """
    partitions = [Partition(dataset, month) for month in months]
    for partition in partitions:
        _check(partition, rows, seed, layout)
    readme = folder / README
    if folder.is_dir() and any(folder.iterdir()) and not readme.exists():
        raise SyntheticData(
            f"{folder} holds files but no {README}: synthetic months never go where others are; name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    readme.write_text(
        "All files below this folder are synthetic: made by `python -m pipeline sample`, not published by anyone.\n"
        "They look like the TLC's trip records and describe no trip that ever took place.\n",
        encoding="ascii",
    )
    paths = []
    for each in (ZONES, *partitions):
        path = folder / catalog.LAYOUTS[layout].path(each)
        path.parent.mkdir(parents=True, exist_ok=True)
        make_file(each, path, rows=rows, seed=seed, layout=layout)
        paths.append(path)
    return paths[1:]


def _check(partition: Partition, rows: int, seed: int, layout: str) -> None:
    dataset, month = partition
    if layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r}: unknown; one of {', '.join(LAYOUTS)}")
    if month is None:
        if partition != ZONES:
            raise UsageError(f"dataset {dataset!r} has months: name one")
        return
    if dataset not in DATASETS:
        raise UsageError(f"dataset {dataset!r}: no monthly dataset; one of {', '.join(DATASETS)}")
    if not 1 <= rows <= MAX_ROWS:
        raise UsageError(f"rows {rows}: must be from 1 to {MAX_ROWS}")
    if seed < 0:
        raise UsageError(f"seed {seed}: must not be negative")
    first = FIRST_MONTHS[layout][dataset]
    if month < parse_month(first):
        raise NeverOffered(f"{partition}: before {first}, the first month in the layout {layout}")


def _digest(*inputs: object) -> bytes:
    return hashlib.sha256("|".join(map(str, (GENERATOR, *inputs))).encode()).digest()


def _inputs(partition: Partition, rows: int, seed: int) -> tuple[object, ...]:
    """What the values of a month are made from."""
    return partition.dataset, partition.month_text, rows, seed


def _zone_table() -> str:
    boroughs = {"B": "Brooklyn", "E": "EWR", "M": "Manhattan", "Q": "Queens", "S": "Staten Island", "X": "Bronx"}
    lines = ['"LocationID","Borough","Zone","service_zone"']
    for zone, letter in enumerate(BOROUGHS, start=1):
        service = {"E": "EWR", "M": "Yellow Zone"}.get(letter, "Boro Zone")
        service = "Airports" if zone in AIRPORTS else service
        borough, name = boroughs.get(letter.upper()), f"Zone {zone} (synthetic)"
        if borough is None:
            borough, name, service = ("Unknown", "NV", "N/A") if zone == 264 else ("N/A", "Outside of NYC", "N/A")
        lines.append(f'{zone},"{borough}","{name}","{service}"')
    return "".join(f"{line}\r\n" for line in lines)
