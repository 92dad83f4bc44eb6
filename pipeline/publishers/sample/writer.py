"""Writes synthetic months as Parquet or csv.gz: turns the numbers of ``trips`` into an era's types and spellings."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
from collections.abc import Callable
from functools import cache, lru_cache
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...partition import Partition
from .layouts import MONEY, TIMES, Column, CsvStyle, Layout, layout_of
from .trips import BASES, FIRST_SECOND, LAST_SECOND, NULL, ODD_PICKUPS, ODD_TRIP_SECONDS, chunks

#: The seed of each chunk of a month, by its number.
Seed = Callable[[int], bytes]


def write_month(file: BinaryIO, partition: Partition, rows: int, name: str, seed: Seed, generator: int) -> None:
    """Write a month in the layout of that name, with the number of the generator that has made its values."""
    layout = layout_of(partition, name)
    if layout.csv:
        _write_csv(file, partition, rows, layout, layout.csv, seed)
    else:
        _write_parquet(file, partition, rows, layout, seed, generator)


def _write_parquet(file: BinaryIO, partition: Partition, rows: int, layout: Layout, seed: Seed, generator: int) -> None:
    """One row group, as TLC's files have; the whole month stays in memory, about 50 bytes a row of the widest.

    The columns are held as dictionaries of narrow integers and unfolded one by one by the Parquet writer. The
    schema that readers are to see, without dictionaries, is therefore stored by hand.
    """
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in layout.columns])
    names = schema.names
    table = pa.Table.from_batches(
        [
            pa.RecordBatch.from_arrays(
                [_encode(column, numbers[column.key], partition.first_day) for column in layout.columns], names=names
            )
            for numbers in chunks(partition, rows, layout, seed)
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
                "generator": f"pipeline.sample {generator}",
            }
        )


def _write_csv(file: BinaryIO, partition: Partition, rows: int, layout: Layout, style: CsvStyle, seed: Seed) -> None:
    quote = '"' if style.quoted else ""
    header = ",".join(f"{quote}{column.name}{quote}" for column in layout.columns)
    name = f"{partition.dataset}_tripdata_{partition.month_text}.synthetic.csv"
    end = pa.scalar("," * style.surplus + "\r\n")
    with gzip.GzipFile(name, "wb", compresslevel=6, fileobj=file, mtime=0) as zipped:
        zipped.write((header + style.header_end).encode())
        for numbers in chunks(partition, rows, layout, seed):
            texts = [_spell(column, numbers[column.key], partition.first_day, style) for column in layout.columns]
            values = pc.binary_join_element_wise(*texts, ",", null_handling="replace", null_replacement=quote + quote)
            # The text of an Arrow string column lies in one piece in its last buffer: those are the lines.
            zipped.write(pc.binary_join_element_wise(values, end, "").buffers()[2])


def _arrow_type(name: str) -> pa.DataType:
    own = {"null": pa.null(), "timestamp": pa.timestamp("us")}
    return own[name] if name in own else pa.type_for_alias(name)


def _encode(column: Column, numbers: np.ndarray, month: dt.date) -> pa.Array:
    """Numbers of one key as a Parquet column: a dictionary of the column's type (texts of times are written out)."""
    if column.type == "null":
        return pa.nulls(len(numbers))
    if column.key in TIMES:
        times = _times(numbers, month)
        return times.dictionary_decode().cast(pa.string()) if column.type == "string" else times
    words = _words(column.key, month.year, codes=False) if column.type.endswith("string") else None
    if words:
        return _dictionary(numbers, 0, pa.array(words))
    scale = _scale_of(column.key)
    if column.type == "string":
        return _dictionary(numbers, _first(scale), pa.array([str(value) for value in _scale(scale).tolist()]))
    return _dictionary(numbers, _first(scale), _values(scale, column.type))


def _spell(column: Column, numbers: np.ndarray, month: dt.date, style: CsvStyle) -> pa.Array:
    """Numbers of one key as the texts of a CSV column; null where the value is empty."""
    if column.key in TIMES:
        texts = _times(numbers, month).dictionary_decode()
        texts = texts.cast(pa.timestamp("s")).cast(pa.string())
        return pc.binary_join_element_wise('"', texts, '"', "") if style.quoted else texts
    words = _words(column.key, month.year, codes=not style.exact)
    if words:
        quote = '"' if style.quoted else ""
        return _dictionary(numbers, 0, pa.array([f"{quote}{word}{quote}" for word in words])).dictionary_decode()
    scale = _scale_of(column.key)
    return _dictionary(numbers, _first(scale), _texts(scale, style)).dictionary_decode()


def _dictionary(numbers: np.ndarray, first: int, values: pa.Array) -> pa.DictionaryArray:
    """``values[number - first]`` of each number, null of NULL, in the narrowest index."""
    width = np.uint8 if len(values) <= 256 else np.uint16 if len(values) <= 65_536 else np.int32
    nulls = numbers == NULL
    if not nulls.any():
        return pa.DictionaryArray.from_arrays(pa.array((numbers - first).astype(width)), values)
    indices = np.where(nulls, 0, numbers - first).astype(width)
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=nulls), values)


def _scale_of(key: str) -> str:
    """The name of the scale on which the numbers of a key lie."""
    if key in MONEY:
        return "money"
    if key == "distance":
        return key
    if key.endswith(("_lon", "_lat")):
        return key[-3:]
    return "long" if key in ("seconds", "index") else "short"


def _first(scale: str) -> int:
    """The number of the first value of a scale."""
    return -32_768 if scale == "money" else 0


def _scale(scale: str) -> np.ndarray:
    """The values of a scale, for consecutive numbers."""
    if scale == "money":  # cents
        return np.arange(-32_768, 32_768) / 100
    if scale == "distance":  # hundredths
        return np.arange(65_536) / 100
    if scale == "lon":  # 0.0 for unknown, then ten-thousandths of a degree
        return np.append(0.0, -(720_000 + np.arange(1, 30_001)) / 10_000)
    if scale == "lat":
        return np.append(0.0, (400_000 + np.arange(1, 20_001)) / 10_000)
    return np.arange(65_536 if scale == "long" else 300)


@cache
def _values(scale: str, type_: str) -> pa.Array:
    return pa.array(_scale(scale), type=_arrow_type(type_))


@cache
def _texts(scale: str, style: CsvStyle) -> pa.Array:
    """Spelling of each value of ``_scale``."""
    values = _scale(scale).tolist()
    if scale in ("lon", "lat"):  # single precision in 2015 and 2016 and in green
        texts = [f"{value if style.exact else float(np.float32(value)):.17g}" for value in values]
    elif scale in ("long", "short"):
        texts = [f"{value}.0" if style.float_ids else str(value) for value in values]
    elif style.exact:
        texts = [f"{value:.17g}" for value in values]
    elif scale == "distance":  # .86, 1.50
        texts = [f"{value:.2f}".removeprefix("0") for value in values]
    else:
        texts = [f"{value:g}" for value in values]
    return pa.array([f'"{text}"' for text in texts] if style.quoted else texts)


def _times(numbers: np.ndarray, month: dt.date) -> pa.DictionaryArray:
    """Numbers of seconds as timestamp[us]; a dictionary of all the month's where there are many."""
    if len(numbers) > 100_000:
        return _dictionary(numbers, FIRST_SECOND, _all_times(month))
    known, places = np.unique(numbers, return_inverse=True)
    indices = pa.array(places.astype(np.int32), mask=numbers == NULL)
    return pa.DictionaryArray.from_arrays(indices, _times_of(known, month))


@lru_cache(maxsize=1)  # 29 MB a month
def _all_times(month: dt.date) -> pa.Array:
    """The times of the numbers from ``FIRST_SECOND``, the odd pickups and drop-offs last."""
    return _times_of(np.arange(FIRST_SECOND, LAST_SECOND + 2 * len(ODD_PICKUPS)), month)


def _times_of(numbers: np.ndarray, month: dt.date) -> pa.Array:
    times = np.datetime64(month, "s") + numbers.astype("timedelta64[s]")
    pickups = np.array(ODD_PICKUPS, dtype="datetime64[s]")
    odd = np.stack([pickups, pickups + np.timedelta64(ODD_TRIP_SECONDS, "s")], axis=1).ravel()
    is_odd = numbers >= LAST_SECOND
    times[is_odd] = odd[numbers[is_odd] - LAST_SECOND]
    return pa.array(times.astype("datetime64[us]"))


def _words(key: str, year: int, *, codes: bool) -> list[str] | None:
    """The words that the numbers of a key stand for; vendors and payments are words only without ``codes``."""
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
