"""typed batches -> one Parquet file, the same bytes for the same input."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from .. import datasets
from ..datasets.schema import Column
from ..lake.lake import digest_of
from ..planning.scratch import PARQUET, RAW, ROWS
from ..prefetch import ahead
from ..reporting.progress import StageProgress, rejects
from .base import Stage
from .clean import Clean
from .target import StoreTarget

if TYPE_CHECKING:
    import pyarrow as pa


#: Rows of a row group: enough for good compression and few footers, little enough to hold several in memory.
ROW_GROUP = 256 * 1024
#: Bytes of a row group that make it one of fewer rows: its texts are longer than those of any published file.
GROUP_BYTES = 96 * 1024 * 1024


class WriteParquet(Stage):
    """The month as it will lie in the lake."""

    resources: ClassVar = {"memory": 1}

    def requires(self) -> Clean:
        return self.sibling(Clean)

    def output(self) -> StoreTarget:
        return StoreTarget(self.scratch.store, self.scratch.path(PARQUET))

    def complete(self) -> bool:
        with self.shared_state() as state:
            if not self.requires().complete():
                return False
            raw = self.scratch.record(RAW)
            if raw is None or self.completeness(state).is_made_of(raw["sha256"]):
                return True  # as in Clean
        parquet = self.scratch.record(PARQUET)
        return parquet is not None and parquet["sha256"] == raw["sha256"]

    def work(self, progress: StageProgress) -> dict[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        raw = self.scratch.need(RAW)
        cleaned = self.scratch.need(ROWS, raw["sha256"])
        dataset = datasets.get(self.dataset)
        expected = cleaned["report"]["rows_written"]
        note = rejects(cleaned["report"]["rows_rejected"])
        written = 0
        # No times, run ids or ETags: the same input has to give the same bytes.
        schema = dataset.table_schema.with_metadata(
            {
                "publisher": self.publisher,
                "source_url": raw["url"],
                "source_sha256": raw["sha256"],
                "rules": self.rules,
                "schema_version": dataset.schema_version,
                "rows": str(expected),
                "synthetic": str(self.job.publisher.is_synthetic).lower(),
            }
        )
        parquet_file = partial(
            pq.ParquetWriter,
            schema=schema,
            compression="zstd",
            use_dictionary=[column.name for column in dataset.table_columns if _repeats(column)],
            write_page_index=True,
        )
        with self.scratch.local(ROWS) as source, self.scratch.staging(PARQUET) as target:
            with (
                self.scratch.checking(ROWS),
                pa.OSFile(str(source), "rb") as file,
                pa.ipc.open_file(file) as reader,
                self.scratch.writer(target, PARQUET, parquet_file) as write,
                closing(ahead(self._groups(reader, schema))) as tables,
            ):
                for table in tables:
                    write(table, row_group_size=ROW_GROUP)
                    written += table.num_rows
                    progress(written, expected, note=note)
            if written != expected:
                raise self.scratch.damaged(ROWS, f"has {written:,} rows and not the {expected:,} that were cleaned")
            digest = digest_of(target, PARQUET)
            record = {"sha256": raw["sha256"], "parquet_sha256": digest.sha256, "rows_written": written}
            self.scratch.keep(target, PARQUET, record)
        return {"rows": written, "bytes": digest.bytes}

    def _groups(self, reader: pa.ipc.RecordBatchFileReader, schema: pa.Schema) -> Generator[pa.Table, None, None]:
        """The rows in tables of ``ROW_GROUP`` rows, the last and those of long texts of fewer, as they shall lie in the
        file."""
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            if waiting and sum(part.nbytes for part in waiting) + batch.nbytes > GROUP_BYTES:
                yield self._table(waiting, schema)
                waiting, rows = [], 0
            while rows + batch.num_rows >= ROW_GROUP:
                waiting.append(batch.slice(0, ROW_GROUP - rows))
                batch = batch.slice(ROW_GROUP - rows)
                yield self._table(waiting, schema)
                waiting, rows = [], 0
            if batch.num_rows:
                waiting.append(batch)
                rows += batch.num_rows
        if waiting:
            yield self._table(waiting, schema)

    def _table(self, batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
        import pyarrow as pa

        table = pa.Table.from_batches(batches)
        if self.month is not None:
            table = table.append_column("file_month", pa.repeat(pa.scalar(self.month, pa.date32()), table.num_rows))
        return table.cast(schema)


def _repeats(column: Column) -> bool:
    """Whether values come again so often that a dictionary makes the file smaller. Times and places hardly do."""
    return column.type != "timestamp" and not column.unit.startswith("degrees")
