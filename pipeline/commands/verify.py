"""``verify``: do published figures, manifest, lake, ledger and tables agree about every month, and if not, by how much.

Each neighbour is compared with the next: published figure and rows read, manifest and the Parquet files in the lake,
manifest and ledger row, ledger row and the rows counted in the table. One listing per dataset, two queries per
warehouse and dataset, and the footers of the files; with ``--deep`` all their bytes, and the text in the tables.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from .. import datasets, job
from ..datasets import row_counts
from ..errors import PipelineError
from ..lake import Lake
from ..lake.layout import DATA, MANIFESTS, month_of
from ..lake.manifest import Digest, Manifest
from ..remedies import EVERYWHERE, NOTHING, redo
from ..reporting import tables
from ..reporting.console import answer, answer_json
from ..reporting.tables import Column
from ..storage import open_store
from ..tasks.ranges import check_span
from ..warehouse.base import LedgerRow
from . import arguments

Month = dt.date | None

HELP = "whether published figures, lake, ledger and tables agree about every month"

#: Files looked into at once.
CONCURRENT = 8

AGREES = "agrees"


@dataclass
class Line:
    """What is known about one month. Numbers are rows; None where there is nothing to count.

    ``in_warehouse`` has the rows of ledger and table by warehouse. ``problems`` are disagreements, ``notes`` are not.
    ``text`` has the characters in each column of text of the Parquet file, where those were counted.
    """

    dataset: str
    month: Month
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
        """Note a problem, and what has to be forgotten (see above) to solve it."""
        self.problems.append(problem)
        self._to_forget.add(forget)

    def compare(self, what: str, found: int, other: str, expected: int, forget: str, unit: str = "") -> None:
        if found != expected:
            counted = f"{found:,} {unit}".rstrip()
            self.disagrees(f"{what} {counted}, {other} {expected:,} ({found - expected:+,})", forget)

    @property
    def title(self) -> str:
        return f"{self.dataset} {self.month:%Y-%m}" if self.month else self.dataset

    @property
    def remedy(self) -> str:
        """What to do about the problems, as one command line; empty without any."""
        return redo(self.dataset, self.month, self._to_forget) if self.problems else ""

    def plain(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "month": f"{self.month:%Y-%m}" if self.month else None,
            "published": self.published,
            "rows_read": self.read,
            "lake_rows": self.in_lake,
            "rejects_rows": self.rejected,
            "warehouses": {
                label: {"ledger": ledger, "table": table} for label, (ledger, table) in self.in_warehouse.items()
            },
            "agrees": not self.problems,
            "problems": self.problems,
            "remedy": self.remedy or None,
            "notes": self.notes,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", type=arguments.dataset, help="only this one; default: all")
    parser.add_argument("--start", **arguments.MONTH, help="first month; default: the first there is")
    parser.add_argument("--stop", **arguments.MONTH, help="month after the last; default: all there are")
    parser.add_argument("--deep", action="store_true", help="read all bytes in the lake, not only the footers")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every month that lake or ledger knows. Returns 0 if all agree, 1 if not."""
    check_span(args.start, args.stop, dt.date.today())
    lake = Lake(open_store(job.lake_url()))
    labels = _short(job.warehouses())
    ledgers = {name: job.open_warehouse(label).ledger() for name, label in labels.items()}
    lines: list[Line] = []
    for name in [args.dataset] if args.dataset else datasets.DATASETS:
        manifests = lake.manifests(name)
        stored = {month for folder in (DATA, MANIFESTS) for month in _months(lake.store.list(f"{folder}/{name}"))}
        opened = {short: job.open_warehouse(label) for short, label in labels.items()}
        counts = {short: warehouse.counts(datasets.get(name)) for short, warehouse in opened.items()}
        texts = {short: warehouse.texts(datasets.get(name)) if args.deep else {} for short, warehouse in opened.items()}
        rows = {short: {month: row for (of, month), row in ledgers[short].items() if of == name} for short in labels}
        counted = {month for of_one in counts.values() for month, rows_there in of_one.items() if rows_there}
        known = stored.union(counted, *rows.values())
        asked = sorted((month for month in known if _is_asked(month, args)), key=lambda month: month or dt.date.min)
        some = [Line(name, month) for month in asked]

        def into_lake(line: Line, manifests: dict[Month, Manifest] = manifests) -> None:
            _check_lake(lake, line, manifests.get(line.month), args.deep)

        with ThreadPoolExecutor(CONCURRENT) as pool:
            list(pool.map(into_lake, some))
        for line in some:
            manifest = manifests.get(line.month)
            if manifest:
                _check_published(line, manifest)
            elif not any(line.month in known_rows for known_rows in rows.values()):
                line.disagrees("not complete in the lake; the next run does it again", NOTHING)
            for short in labels:
                _check_warehouse(line, short, manifest, rows[short].get(line.month), counts[short].get(line.month))
                for column, characters in texts[short].get(line.month, {}).items():
                    if manifest and column in line.text:
                        what, expected = f"{short}: the text of {column} has", line.text[column]
                        line.compare(what, characters, "the Parquet file", expected, short, "characters")
        lines += some
    _show(lines, list(labels), args.json)
    return 1 if any(line.problems for line in lines) else 0


def _check_published(line: Line, manifest: Manifest) -> None:
    line.read = manifest.rows_read
    figure = (
        None
        if manifest.is_synthetic
        else row_counts.published(manifest.publisher.partition("=")[0], line.dataset, line.month)
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


def _check_lake(lake: Lake, line: Line, manifest: Manifest | None, deep: bool) -> None:
    if manifest is None:
        return
    line.in_lake = _rows(lake, line, "the Parquet file", manifest.parquet, deep)
    if line.in_lake is not None:
        line.compare("the Parquet file has", line.in_lake, "its manifest", manifest.rows_written, EVERYWHERE)
    line.rejected = _rows(lake, line, "the rejects file", manifest.rejects, deep)
    if line.rejected is not None:
        line.compare("the rejects file has", line.rejected, "its manifest", manifest.rejected_count, EVERYWHERE)


def _rows(lake: Lake, line: Line, what: str, digest: Digest, deep: bool) -> int | None:
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
    line: Line, where: str, manifest: Manifest | None, row: LedgerRow | None, counted: int | None
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


def _months(paths: Iterable[str]) -> Iterable[Month]:
    for path in paths:
        try:
            yield month_of(path)
        except ValueError:
            continue  # somebody else's file


def _is_asked(month: Month, args: argparse.Namespace) -> bool:
    if month is None:
        return not (args.start or args.stop)
    return (not args.start or month >= args.start) and (not args.stop or month < args.stop)


def _short(labels: list[str]) -> dict[str, str]:
    """Labels by a short name: the kind of warehouse where there is one of the kind."""
    kinds = [label.partition(":")[0].partition("@")[0] for label in labels]
    return {kind if kinds.count(kind) == 1 else label: label for kind, label in zip(kinds, labels, strict=True)}


def _show(lines: list[Line], warehouses: list[str], as_json: bool) -> None:
    if as_json:
        answer_json([line.plain() for line in lines])
        return
    counted = ["published", "read", "in lake", "rejected", *(f"in {name}" for name in warehouses)]
    columns = [Column("dataset"), Column("month"), *(Column(name, is_number=True) for name in counted)]
    rows = []
    for line in lines:
        numbers = [line.published, line.read, line.in_lake, line.rejected]
        numbers += [line.in_warehouse[name][1] for name in warehouses]
        words = line.problems or [AGREES]
        rows.append(
            [
                line.dataset,
                f"{line.month:%Y-%m}" if line.month else "",
                *("" if number is None else f"{number:,}" for number in numbers),
                "; ".join(words) + "".join(f" ({note})" for note in line.notes),
            ]
        )
    tables.show([*columns, Column(is_folded=True)], rows)
    for line in lines:
        if line.remedy:
            answer(f"{line.title}: {line.remedy}")
    disagreeing = sum(bool(line.problems) for line in lines)
    answer(f"{len(lines):,} looked at, {len(lines) - disagreeing:,} agree, {disagreeing:,} do not.")
