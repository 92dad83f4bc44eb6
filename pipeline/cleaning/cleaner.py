"""One raw file as a stream of clean rows and rejects."""

from __future__ import annotations

import datetime as dt
import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from isal import igzip_threaded, isal_zlib

from ..datasets.schema import Dataset
from ..errors import DamagedFile, UnreadableFile, UsageError
from ..format_detection import check_magic
from ..prefetch import ahead
from .chunks import DUPLICATE_KEY, REJECTS_SCHEMA, Chunk, Reject, Report, reject_batch
from .csv_reader import read_csv
from .parquet_reader import read_parquet
from .rules import Rules

#: The formats of raw files, by the endings of their names.
FORMATS = ("csv", "csv.gz", "parquet")

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Cleaned:
    """What became of ``rows_read`` rows: ``rows`` in ``dataset.schema``, ``rejects`` in ``REJECTS_SCHEMA``."""

    rows: pa.RecordBatch
    rejects: pa.RecordBatch
    rows_read: int


def clean(
    stream: BinaryIO,
    format: str,
    dataset: Dataset,
    month: dt.date | None,
    rules: Rules,
    source_name: str,
    report: Report | None = None,
) -> Generator[Cleaned, None, None]:
    """Clean one raw file; ``report`` fills up on the way and is complete at the end.

    ``stream`` holds the raw bytes in ``format`` (one of ``FORMATS``), must be seekable and is not closed.
    ``month`` is the month of the file, None for a dataset without months. ``source_name`` names the file in rejects
    and errors. The pieces come in the order of the file; a file without rows gives none. Close the generator before the
    stream if not all of it is used: the file is read ahead.

    ``WrongFormat`` if the bytes are not of the format, ``UnreadableFile`` if they are damaged or of something else.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r} of {source_name}; choose one of {', '.join(FORMATS)}")
    report = Report() if report is None else report
    first_rows: dict[object, tuple[int, dict[str, object]]] = {}
    with _naming(source_name), closing(ahead(_chunks(stream, format, dataset, report))) as chunks:
        for chunk in chunks:
            report.count_unreadable(chunk.rejects)
            if dataset.key is not None:
                chunk = _without_repeated_keys(chunk, dataset.key, first_rows, report)
            yield _apply(chunk, dataset, month, rules, source_name, report)
    report.check()


@contextmanager
def _naming(source_name: str) -> Iterator[None]:
    """Say in each error about the file which one it is."""
    try:
        yield
    except DamagedFile as error:
        raise type(error)(f"{source_name}: {error}") from error.__cause__


def _chunks(stream: BinaryIO, format: str, dataset: Dataset, report: Report) -> Generator[Chunk, None, None]:
    if format == "parquet":
        yield from read_parquet(stream, dataset, report)
    elif format == "csv":
        yield from read_csv(stream, dataset, report)
    else:
        check_magic(stream, _GZIP_MAGIC, "gzip")
        try:
            with igzip_threaded.open(stream, "rb") as unpacked:
                yield from read_csv(unpacked, dataset, report, container="gzip")
        # isal's stubs declare its exception as an instance.
        except (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.IsalError) as error:  # type: ignore[misc]
            raise UnreadableFile(f"the gzip file is damaged or cut off ({error}). Download it again") from error


def _without_repeated_keys(
    chunk: Chunk, key: str, first_rows: dict[object, tuple[int, dict[str, object]]], report: Report
) -> Chunk:
    """The chunk with rows that have been there already among its rejects, so that a join never multiplies rows.

    ``first_rows`` has the first line and row of each key, and is filled. ``UnreadableFile`` for two rows that disagree.
    """
    stays = np.ones(chunk.rows.num_rows, bool)
    for i, row in enumerate(chunk.rows.to_pylist()):
        line = int(chunk.lines[i])
        first_line, first_row = first_rows.setdefault(row[key], (line, row))
        if first_row is row or row[key] is None:
            continue
        if first_row != row:
            raise UnreadableFile(
                f"rows {first_line} and {line} both have {key} {row[key]} but differ, and nothing says "
                "which is right. Have the file mended at its publisher"
            )
        stays[i] = False
    if stays.all():
        return chunk
    repeated, kept = np.flatnonzero(~stays), np.flatnonzero(stays)
    report.rows_rejected[DUPLICATE_KEY] += len(repeated)
    originals = chunk.originals(repeated)
    rejects = [
        Reject(DUPLICATE_KEY, key, int(chunk.lines[i]), text) for i, text in zip(repeated, originals, strict=True)
    ]
    return replace(
        chunk,
        rows=chunk.rows.filter(pa.array(stays)),
        lines=chunk.lines[kept],
        originals=lambda rows: chunk.originals(kept[rows]),
        rejects=chunk.rejects + rejects,
    )


def _apply(
    chunk: Chunk, dataset: Dataset, month: dt.date | None, rules: Rules, source_name: str, report: Report
) -> Cleaned:
    report.count_codes(chunk.rows, dataset)
    if month is not None and dataset.pickup is not None:
        report.count_months(chunk.rows.column(dataset.pickup), month)
    rows, refused_by = rules.apply(chunk.rows, dataset, month)
    rejects = reject_batch(chunk.rejects, source_name)
    refused = np.flatnonzero(refused_by >= 0)
    if len(refused):
        numbers = refused_by[refused]
        by_rule = pa.record_batch(
            [
                pa.array([rule.name for rule in rules.rules]).take(pa.array(numbers)),
                pa.array([rule.column_in(dataset) for rule in rules.rules], pa.string()).take(pa.array(numbers)),
                pa.repeat(source_name, len(refused)),
                pa.array(chunk.lines[refused], pa.int64()),
                pa.array(chunk.originals(refused), pa.string()),
            ],
            schema=REJECTS_SCHEMA,
        )
        rejects = pa.concat_batches([rejects, by_rule]).sort_by("source_line") if len(rejects) else by_rule
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            report.rows_rejected[rules.rules[number].name] += int(count)
    report.rows_read += chunk.rows_read
    report.rows_written += rows.num_rows
    return Cleaned(rows, rejects, chunk.rows_read)
