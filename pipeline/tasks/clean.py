"""raw file -> typed batches and rejects.

The batches wait in an Arrow IPC file for WriteParquet: typed, uncompressed, read back without parsing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .. import datasets, settings
from ..errors import DamagedFile, TooManyUnreadable, UnreadableFile
from ..lake.lake import digest_of
from ..planning.scratch import RAW, REJECTS, ROWS
from ..prefetch import ahead
from ..reporting.progress import StageProgress, rejects
from .base import Stage
from .download import Download
from .target import StoreTarget

if TYPE_CHECKING:
    import pyarrow as pa

    from ..cleaning.chunks import Report

LOGGER = logging.getLogger("pipeline")


class Clean(Stage):
    """The month's rows in the canonical schema, and the rows that were refused with the reason."""

    resources: ClassVar = {"memory": 1}

    def requires(self) -> Download:
        return self.sibling(Download)

    def output(self) -> StoreTarget:
        return StoreTarget(self.scratch.store, self.scratch.path(ROWS))

    def complete(self) -> bool:
        with self.shared_state() as state:
            if not self.requires().complete():
                return False  # what lies in the scratch was made from a file that the publisher has replaced since
            raw = self.scratch.record(RAW)
            if raw is None or self.completeness(state).is_made_of(raw["sha256"]):
                return True  # the lake has what there is to clean; maybe with another ETag, but of the same bytes
        rows = self.scratch.record(ROWS)
        return rows is not None and rows["sha256"] == raw["sha256"] and not _too_many_unreadable(rows["report"])

    def work(self, progress: StageProgress) -> dict[str, Any]:
        raw = self.scratch.need(RAW)
        try:
            return self._clean(raw, progress)
        except DamagedFile:
            with self.scratch.local(RAW) as source:
                if digest_of(source, RAW).sha256 == raw["sha256"]:
                    raise
            raise self.scratch.damaged(RAW, "is not what was fetched") from None

    def _clean(self, raw: dict[str, Any], progress: StageProgress) -> dict[str, Any]:
        source_name = raw["url"].rsplit("/", 1)[-1]
        with (
            self.scratch.local(RAW) as source,
            self.scratch.staging(ROWS) as rows_path,
            self.scratch.staging(REJECTS) as rejects_path,
        ):
            report = self._write(raw, source, rows_path, rejects_path, progress)
            self._check(report, source_name)
            if self.scratch.record(RAW) != raw:  # in a bucket, by another run, and maybe before it was read
                raise self.scratch.taken_away(RAW)
            about = {"sha256": raw["sha256"]}
            self.scratch.keep(rejects_path, REJECTS, about)
            self.scratch.keep(rows_path, ROWS, {**about, "report": vars(report)})
        self._warn(report, source_name)
        return {
            "rows_read": report.rows_read,
            "rejected": sum(report.rows_rejected.values()),
            "rows_rejected": dict(report.rows_rejected),
        }

    def _write(
        self, raw: dict[str, Any], source: Path, rows_path: Path, rejects_path: Path, progress: StageProgress
    ) -> Report:
        """Write the rows and the rejects of a raw file, batch by batch."""
        import pyarrow.parquet as pq

        from ..cleaning.chunks import REJECTS_SCHEMA, Report
        from ..cleaning.cleaner import clean
        from ..cleaning.parquet_file import read_footer
        from ..cleaning.rules import Rules

        dataset, rules, report = datasets.get(self.dataset), Rules.parse(self.rules), Report()
        source_name = raw["url"].rsplit("/", 1)[-1]
        rows_file = partial(ipc_file, schema=dataset.schema)
        rejects_file = partial(pq.ParquetWriter, schema=REJECTS_SCHEMA, compression="zstd")
        rows_read, rows_rejected = 0, Counter[str]()  # so far; the report is being filled ahead
        rows_in_all = 0  # where the file tells
        with ExitStack() as stack:
            stream = stack.enter_context(source.open("rb"))
            cleaned = clean(stream, raw["format"], dataset, self.month, rules, source_name=source_name, report=report)
            write_rows = stack.enter_context(self.scratch.writer(rows_path, ROWS, rows_file))
            write_rejects = stack.enter_context(self.scratch.writer(rejects_path, REJECTS, rejects_file))
            for batch in stack.enter_context(closing(ahead(cleaned))):
                if raw["format"] == "parquet" and not rows_read:  # by now it is known to be readable
                    with source.open("rb") as file:
                        rows_in_all = read_footer(file).num_rows
                write_rows(batch.rows)
                rows_read += batch.rows_read
                if batch.rejects.num_rows:
                    write_rejects(batch.rejects)
                    for reason in batch.rejects.column("reason").value_counts().to_pylist():
                        rows_rejected[reason["values"]] += reason["counts"]
                if rows_in_all:
                    progress(rows_read, rows_in_all, note=rejects(rows_rejected))
                else:
                    note = f", {rows_read:,} rows read{rejects(rows_rejected)}"
                    progress(stream.tell(), raw["length"], "bytes", note=note)
        return report

    def _warn(self, report: Report, source_name: str) -> None:
        """One line for each thing about the file that somebody should know although the month is done."""
        texts = [
            f"column {name!r} of {source_name} is not declared and is left out, with {count:,} values"
            for name, count in report.unknown_columns.items()
        ]
        repairs = dict(sorted(report.repaired.items()))
        if report.repeated_headers:
            repairs["repeated_headers"] = report.repeated_headers
        if repairs:
            repaired = ", ".join(f"{kind} {count:,}" for kind, count in repairs.items())
            texts.append(f"repaired in {source_name}: {repaired}; the manifest has the counts")
        outside = report.other_months.total()
        if outside > report.pickups_in_month:
            found, count = report.other_months.most_common(1)[0]
            texts.append(
                f"{outside:,} of {outside + report.pickups_in_month:,} trips in {source_name} are of other months, "
                f"most of {found} ({count:,}); is it another month's file?"
            )
        for text in texts:
            LOGGER.warning("%s: %s", self.title, text)

    def _check(self, report: Report, source_name: str) -> None:
        """Raise UnreadableFile or TooManyUnreadable for a file that looks damaged as a whole."""
        if not report.rows_read:  # no month was ever without a trip; to believe it would empty a full partition
            raise UnreadableFile(f"{source_name}: there is no row below the header. Check the file at its publisher")
        # A table without months only grows. One with fewer rows than before is mostly one that was cut off.
        with self.shared_state() as state:
            before = self.completeness(state).manifest if self.month is None else None
        if before is not None and report.rows_written < before.rows_written:
            raise UnreadableFile(
                f"{source_name}: it has {report.rows_written:,} rows, and the table in the lake has "
                f"{before.rows_written:,}, so it looks cut off. If it is right, run "
                f"`python -m pipeline forget --dataset {self.dataset}` and then this again"
            )
        first = report.first_unreadable
        if first is not None and _too_many_unreadable(vars(report)):
            what = f"{first.reason} in {first.column}" if first.column else first.reason
            limit = settings.CleanSettings().max_unreadable
            raise TooManyUnreadable(
                f"{source_name}: {report.unreadable:,} of {report.rows_read:,} rows cannot be read, more than the "
                f"{limit:g} % of [clean] max_unreadable; the first is row {first.line} ({what}): {first.original}"
            )


def _too_many_unreadable(report: dict[str, Any]) -> bool:
    """Whether a file is refused for its unreadable rows, as ``[clean] max_unreadable`` is now."""
    return bool(report["unreadable"] * 100 > settings.CleanSettings().max_unreadable * report["rows_read"])


@contextmanager
def ipc_file(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    """An Arrow IPC file to write batches to. It is ended before it is closed."""
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        yield writer
