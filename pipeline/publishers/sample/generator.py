"""Synthetic months: files of any dataset, era and size that look like TLC's and hold nobody's trips.

They are the offline publisher of ``make run``, of the tests and of the benchmarks. Every file says that it is
synthetic: Parquet in its key-value metadata, csv.gz in the name inside the gzip header, the folder in SYNTHETIC.txt.

The values come from ``trips``, as whole numbers, and are the same on every machine; the layouts from ``layouts``.
Here they are turned into the era's types and spellings and written. The bytes of a file also depend on the compressor
(pyarrow for Parquet, zlib for csv.gz), whose versions are part of ``version``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.errors import NeverOffered, SyntheticData, UsageError
from pipeline.partition import ZONES, Partition, parse_month
from pipeline.publishers import catalog
from pipeline.publishers.catalog import README
from pipeline.publishers.sample.layouts import (
    AIRPORTS,
    BOROUGHS,
    FIRST_MONTHS,
    MONEY,
    TIMES,
    Column,
    CsvStyle,
    Layout,
    layout_of,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pipeline.publishers.sample.trips import Numbers

#: Raised with every change of the values or the bytes.
GENERATOR = 1

LAYOUTS = tuple(FIRST_MONTHS)
DATASETS = tuple(FIRST_MONTHS["tlc"])

#: A row group has at most 64 Mi rows in pyarrow, and a file has one row group, as TLC's.
MAX_ROWS = 64 * 1024 * 1024

# -- the face ------------------------------------------------------------------------------------


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
            elif layout == "tlc":
                _write_parquet(file, partition, rows, seed)
            else:
                _write_csv(file, partition, rows, seed)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def version(partition: Partition, rows: int, seed: int, layout: str) -> str:
    """A sign that changes whenever the bytes of ``make_file`` would, without making them."""
    import zlib
    from importlib.metadata import version as installed

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


# -- writing -------------------------------------------------------------------------------------


def _write_parquet(file: BinaryIO, partition: Partition, rows: int, seed: int) -> None:
    """One row group, as TLC's files have; the whole month stays in memory, about 50 bytes a row of the widest.

    The columns are held as dictionaries of narrow integers and unfolded one by one by the Parquet writer. The
    schema that readers are to see, without dictionaries, is therefore stored by hand.
    """
    import base64

    import pyarrow as pa
    import pyarrow.parquet as pq

    layout = layout_of(partition, "tlc")
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in layout.columns])
    names = schema.names
    table = pa.Table.from_batches(
        [
            pa.RecordBatch.from_arrays(
                [_encode(column, numbers[column.key], partition.first_day) for column in layout.columns], names=names
            )
            for numbers in _chunks(partition, rows, seed, "tlc", layout)
        ]
    )
    # Level 1 of gzip is ten times faster than pyarrow's default, the file 4 % larger.
    with pq.ParquetWriter(
        file, table.schema, compression=layout.compression, compression_level=1, store_schema=False
    ) as writer:
        writer.write_table(table, row_group_size=rows)
        writer.add_key_value_metadata(
            {
                "ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()).decode(),
                "synthetic": "true",
                "generator": f"pipeline.sample {GENERATOR}",
            }
        )


def _write_csv(file: BinaryIO, partition: Partition, rows: int, seed: int) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.compute as pc

    layout = layout_of(partition, "dtc")
    style = layout.csv
    assert style is not None
    quote = '"' if style.quoted else ""
    header = ",".join(f"{quote}{column.name}{quote}" for column in layout.columns)
    name = f"{partition.dataset}_tripdata_{partition.month_text}.synthetic.csv"
    end = pa.scalar("," * style.surplus + "\r\n")
    with gzip.GzipFile(name, "wb", compresslevel=6, fileobj=file, mtime=0) as zipped:
        zipped.write((header + style.header_end).encode())
        for numbers in _chunks(partition, rows, seed, "dtc", layout):
            texts = [_spell(column, numbers[column.key], partition.first_day, style) for column in layout.columns]
            values = pc.binary_join_element_wise(*texts, ",", null_handling="replace", null_replacement=quote + quote)
            # The text of an Arrow string column lies in one piece in its last buffer: those are the lines.
            zipped.write(pc.binary_join_element_wise(values, end, "").buffers()[2])


def _chunks(partition: Partition, rows: int, seed: int, name: str, layout: Layout) -> Iterator[Numbers]:
    from pipeline.publishers.sample.trips import chunks

    return chunks(partition, rows, layout, lambda number: _digest(*_inputs(partition, rows, seed), name, number))


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


# -- from numbers to values ----------------------------------------------------------------------


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    aliases = {"timestamp": "timestamp[us]"}
    return pa.null() if name == "null" else pa.type_for_alias(aliases.get(name, name))


def _encode(column: Column, numbers: np.ndarray, month: dt.date) -> pa.Array:
    """Numbers of one key as a Parquet column: a dictionary of the column's type (texts of times are written out)."""
    import pyarrow as pa

    from pipeline.publishers.sample.trips import FIRST_SECOND

    if column.type == "null":
        return pa.nulls(len(numbers))
    if column.key in TIMES:
        times = _dictionary(numbers, FIRST_SECOND, _times(month))
        return times.dictionary_decode().cast(pa.string()) if column.type == "string" else times
    words = _words(column.key, month.year, codes=False) if column.type.endswith("string") else None
    if words:
        return _dictionary(numbers, 0, pa.array(words))
    first, values = _scale(column.key)
    if column.type == "string":
        return _dictionary(numbers, first, pa.array([str(value) for value in values]))
    return _dictionary(numbers, first, _values(column.key, column.type))


def _spell(column: Column, numbers: np.ndarray, month: dt.date, style: CsvStyle) -> pa.Array:
    """Numbers of one key as the texts of a CSV column; null where the value is empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.publishers.sample.trips import FIRST_SECOND

    if column.key in TIMES:
        texts = _dictionary(numbers, FIRST_SECOND, _times(month)).dictionary_decode()
        texts = texts.cast(pa.timestamp("s")).cast(pa.string())
        return pc.binary_join_element_wise('"', texts, '"', "") if style.quoted else texts
    words = _words(column.key, month.year, codes=not style.exact)
    if words:
        quote = '"' if style.quoted else ""
        return _dictionary(numbers, 0, pa.array([f"{quote}{word}{quote}" for word in words])).dictionary_decode()
    return _dictionary(numbers, _scale(column.key)[0], _texts(column.key, style)).dictionary_decode()


def _dictionary(numbers: np.ndarray, first: int, values: pa.Array) -> pa.DictionaryArray:
    """``values[number - first]`` of each number, null of NULL, in the narrowest index."""
    import numpy as np
    import pyarrow as pa

    from pipeline.publishers.sample.trips import NULL

    width = np.uint8 if len(values) <= 256 else np.uint16 if len(values) <= 65_536 else np.int32
    nulls = numbers == NULL
    if not nulls.any():
        return pa.DictionaryArray.from_arrays(pa.array((numbers - first).astype(width)), values)
    indices = np.where(nulls, 0, numbers - first).astype(width)
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=nulls), values)


def _scale(key: str) -> tuple[int, Sequence[float]]:
    """The first number of a key and the values of that number and the following."""
    if key in MONEY:
        return -32_768, [cents / 100 for cents in range(-32_768, 32_768)]
    if key == "distance":
        return 0, [hundredths / 100 for hundredths in range(65_536)]
    if key.endswith("_lon"):  # 0.0 for unknown, then ten-thousandths of a degree
        return 0, [0.0, *(-(720_000 + number) / 10_000 for number in range(1, 30_001))]
    if key.endswith("_lat"):
        return 0, [0.0, *((400_000 + number) / 10_000 for number in range(1, 20_001))]
    return 0, range(65_536 if key in ("seconds", "index") else 300)


@cache
def _values(key: str, type_: str) -> pa.Array:
    import pyarrow as pa

    return pa.array(_scale(key)[1], type=_arrow_type(type_))


@cache
def _texts(key: str, style: CsvStyle) -> pa.Array:
    """Spelling of each value of ``_scale``."""
    import numpy as np
    import pyarrow as pa

    values = _scale(key)[1]
    if key.endswith(("_lon", "_lat")):  # single precision in 2015 and 2016 and in green
        texts = [f"{value if style.exact else float(np.float32(value)):.17g}" for value in values]
    elif isinstance(values, range):
        texts = [f"{value}.0" if style.float_ids else str(value) for value in values]
    elif style.exact:
        texts = [f"{value:.17g}" for value in values]
    elif key == "distance":  # .86, 1.50
        texts = [f"{value:.2f}".removeprefix("0") for value in values]
    else:
        texts = [f"{value:g}" for value in values]
    return pa.array([f'"{text}"' for text in texts] if style.quoted else texts)


@lru_cache(maxsize=1)  # 29 MB a month
def _times(month: dt.date) -> pa.Array:
    """timestamp[us] of the numbers from ``FIRST_SECOND``, the odd pickups and drop-offs last."""
    import numpy as np
    import pyarrow as pa

    from pipeline.publishers.sample.trips import FIRST_SECOND, LAST_SECOND, ODD_PICKUPS, ODD_TRIP_SECONDS

    seconds = np.datetime64(month, "s") + np.arange(FIRST_SECOND, LAST_SECOND).astype("timedelta64[s]")
    pickups = np.array(ODD_PICKUPS, dtype="datetime64[s]")
    odd = np.stack([pickups, pickups + np.timedelta64(ODD_TRIP_SECONDS, "s")], axis=1).ravel()
    return pa.array(np.concatenate([seconds, odd]).astype("datetime64[us]"))


def _words(key: str, year: int, *, codes: bool) -> list[str] | None:
    """The words that the numbers of a key stand for; vendors and payments are words only without ``codes``."""
    from pipeline.publishers.sample.trips import BASES

    if key == "vendor":
        return None if codes else ["", "CMT", "VTS", "DDS"]
    if key == "payment":
        payments = {2009: ["Credit", "CASH", "No Charge", "Dispute"], 2010: ["CRE", "CAS", "NOC", "DIS"]}
        return None if codes else ["", *payments.get(year, ["CRD", "CSH", "NOC", "DIS"])]
    if key in ("base", "originating", "affiliated"):
        return BASES
    if key in ("shared_request", "shared_match", "wav_request", "wav_match"):
        return ["N", "Y"]
    return {
        "flag": ["0", "1"] if year in (2009, 2010) else ["N", "Y"],
        "source": ["A", "B"],
        "license": [f"HV000{number}" for number in range(6)],
        "access_a_ride": ["N", "Y", " "],
    }.get(key)
