"""Compare published figures, manifest, lake, ledger and tables of every month: do they agree, and if not, by how much.

Each neighbour is compared with the next: published figure and rows read, manifest and the Parquet files in the lake,
manifest and ledger row, ledger row and the rows counted in the table. One listing per dataset, two queries per
warehouse and dataset, and the footers of the files; with ``deep`` all their bytes, and the text in the tables.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

from .. import datasets, job
from ..datasets import row_counts
from ..errors import PipelineError
from ..lake import Lake
from ..lake.layout import DATA, MANIFESTS, month_of
from ..lake.manifest import Digest, Manifest
from ..partition import Partition
from ..redo_command import EVERYWHERE, NOTHING, redo_command
from ..storage import open_store
from ..warehouse.base import LedgerRow

#: Files looked into at once.
CONCURRENT = 8


@dataclass
class Comparison:
    """What is known about one month. Numbers are rows; None where there is nothing to count.

    ``in_warehouse`` has the rows of ledger and table by warehouse. ``problems`` are disagreements, ``notes`` are not.
    ``text`` has the characters in each column of text of the Parquet file, where those were counted.
    """

    partition: Partition
    published: int | None = None
    read: int | None = None
    in_lake: int | None = None
    rejected: int | None = None
    in_warehouse: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    text: dict[str, int] = field(default_factory=dict)
    _to_forget: set[str] = field(default_factory=set)

    def disagrees(self, problem: str, forget: str) -> None:
        """Note a problem, and what has to be forgotten (see ``redo_command``) to solve it."""
        self.problems.append(problem)
        self._to_forget.add(forget)

    def compare(self, what: str, found: int, other: str, expected: int, forget: str, unit: str = "") -> None:
        if found != expected:
            counted = f"{found:,} {unit}".rstrip()
            self.disagrees(f"{what} {counted}, {other} {expected:,} ({found - expected:+,})", forget)

    @property
    def remedy(self) -> str:
        """What to do about the problems, as one command line; empty without any."""
        return redo_command(self.partition, self._to_forget) if self.problems else ""


def compare(
    names: Iterable[str], is_asked: Callable[[dt.date | None], bool], labels: Mapping[str, str], deep: bool
) -> list[Comparison]:
    """Every month of these datasets that is asked for and that lake, ledger or tables know, in order.

    ``labels`` are those of the warehouses by the names that problems have. With ``deep`` all bytes are read.
    """
    lake = Lake(open_store(job.lake_url()))
    ledgers = {short: job.open_warehouse(label).ledger() for short, label in labels.items()}
    return [line for name in names for line in _dataset(lake, name, is_asked, labels, ledgers, deep)]


def _dataset(
    lake: Lake,
    name: str,
    is_asked: Callable[[dt.date | None], bool],
    labels: Mapping[str, str],
    ledgers: Mapping[str, Mapping[Partition, LedgerRow]],
    deep: bool,
) -> list[Comparison]:
    manifests = lake.manifests(name)
    stored = {month for folder in (DATA, MANIFESTS) for month in _months(lake.store.list(f"{folder}/{name}"))}
    opened = {short: job.open_warehouse(label) for short, label in labels.items()}
    counts = {short: warehouse.counts(datasets.get(name)) for short, warehouse in opened.items()}
    texts = {short: warehouse.texts(datasets.get(name)) if deep else {} for short, warehouse in opened.items()}
    rows = {short: {month: row for (of, month), row in ledgers[short].items() if of == name} for short in labels}
    counted = {month for of_one in counts.values() for month, rows_there in of_one.items() if rows_there}
    known = stored.union(counted, *rows.values())
    asked = sorted((Partition(name, month) for month in known if is_asked(month)), key=lambda each: each.sort_key)
    some = [Comparison(partition) for partition in asked]

    def into_lake(line: Comparison) -> None:
        _check_lake(lake, line, manifests.get(line.partition), deep)

    with ThreadPoolExecutor(CONCURRENT) as pool:
        list(pool.map(into_lake, some))
    for line in some:
        month = line.partition.month
        manifest = manifests.get(line.partition)
        if manifest:
            _check_published(line, manifest)
        elif not any(month in known_rows for known_rows in rows.values()):
            line.disagrees("not complete in the lake; the next run does it again", NOTHING)
        for short in labels:
            _check_warehouse(line, short, manifest, rows[short].get(month), counts[short].get(month))
            for column, characters in texts[short].get(month, {}).items():
                if manifest and column in line.text:
                    what, expected = f"{short}: the text of {column} has", line.text[column]
                    line.compare(what, characters, "the Parquet file", expected, short, "characters")
    return some


def _check_published(line: Comparison, manifest: Manifest) -> None:
    line.read = manifest.rows_read
    figure = (
        None if manifest.is_synthetic else row_counts.published(manifest.publisher.partition("=")[0], line.partition)
    )
    if figure is None:
        line.notes.append("no published figure" + (": synthetic" if manifest.is_synthetic else ""))
        return
    line.published = figure.rows
    difference = manifest.rows_read - figure.rows
    if difference and figure.size_bytes is not None and manifest.source.length != figure.size_bytes:
        line.notes.append(f"differs from the published figure by {difference:+,}: another publication of the month")
    elif difference:
        line.disagrees(f"differs from the published figure by {difference:+,}", EVERYWHERE)


def _check_lake(lake: Lake, line: Comparison, manifest: Manifest | None, deep: bool) -> None:
    if manifest is None:
        return
    line.in_lake = _rows(lake, line, "the Parquet file", manifest.parquet, deep)
    if line.in_lake is not None:
        line.compare("the Parquet file has", line.in_lake, "its manifest", manifest.rows_written, EVERYWHERE)
    line.rejected = _rows(lake, line, "the rejects file", manifest.rejects, deep)
    if line.rejected is not None:
        line.compare("the rejects file has", line.rejected, "its manifest", manifest.rejected_count, EVERYWHERE)


def _rows(lake: Lake, line: Comparison, what: str, digest: Digest, deep: bool) -> int | None:
    """Rows of a Parquet file of the lake by its footer; None, and a problem, where it is not what it should be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if deep:
            with lake.store.local(digest.path) as path, path.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
                if digest.path.startswith(f"{DATA}/"):
                    line.text = _characters(file)
            if actual != digest.sha256:
                line.disagrees(f"{what} has SHA-256 {actual[:12]}…, its manifest {digest.sha256[:12]}…", EVERYWHERE)
        with lake.store.open(digest.path) as file:
            return int(pq.read_metadata(file).num_rows)
    except FileNotFoundError:
        line.disagrees(f"{what} is missing", EVERYWHERE)
    except PipelineError as error:
        line.disagrees(str(error), EVERYWHERE)
    except (pa.ArrowException, OSError) as error:
        line.disagrees(f"{what} cannot be read: {' '.join(str(error).split())[:100]}", EVERYWHERE)
    return None


def _characters(file: BinaryIO) -> dict[str, int]:
    """The number of characters in each column of text of a Parquet file."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    names = [field.name for field in parquet.schema_arrow if pa.types.is_string(field.type)]
    found = dict.fromkeys(names, 0)
    for batch in parquet.iter_batches(columns=names):
        for name in names:
            found[name] += pc.sum(pc.utf8_length(batch.column(name))).as_py() or 0
    return found


def _check_warehouse(
    line: Comparison, where: str, manifest: Manifest | None, row: LedgerRow | None, counted: int | None
) -> None:
    line.in_warehouse[where] = (row.row_count if row else None, counted)
    if row is None:
        if manifest:
            line.disagrees(f"{where}: not loaded", NOTHING)
        if counted:
            line.disagrees(f"{where}: {counted:,} rows in the table that the ledger does not know", NOTHING)
        return
    is_to_do = manifest is None or row.status != "loaded" or row.parquet_sha256 != manifest.parquet.sha256
    forget = NOTHING if is_to_do else where
    line.compare(f"{where}: table has", counted or 0, "ledger", row.row_count, forget)
    if row.status != "loaded":
        if manifest:
            line.disagrees(f"{where}: {row.status}", NOTHING)
        else:
            line.notes.append(f"{where}: {row.status}")
    elif manifest is None:
        line.disagrees(f"{where}: loaded, but the lake has no complete month", NOTHING)
    elif (row.sha256, row.rules, row.parquet_sha256) != (
        manifest.source.sha256,
        manifest.rules,
        manifest.parquet.sha256,
    ):
        difference = row.row_count - manifest.rows_written
        line.disagrees(f"{where}: another version than the lake's, {difference:+,} rows", NOTHING)
    else:
        line.compare(f"{where}: ledger has", row.row_count, "the manifest", manifest.rows_written, forget)


def _months(paths: Iterable[str]) -> Iterable[dt.date | None]:
    for path in paths:
        try:
            yield month_of(path)
        except ValueError:
            continue  # somebody else's file
