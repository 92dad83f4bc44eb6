"""The number of rows that COPY holds in memory at a time."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.warehouse.postgresql import copy as postgresql_copy


@pytest.mark.parametrize(
    "groups, most",
    [([100], 32), ([400, 400, 7], 32), ([80, 400, 400], 10), ([3, 400], 1), ([], 32)],
    ids=["one", "large", "of long texts", "tiny", "none"],
)
def test_rows_of_long_texts_go_in_smaller_batches(
    groups: list[int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their row groups have fewer rows; the last one may be short by itself."""
    monkeypatch.setattr(postgresql_copy, "BATCH_ROWS", 32)
    written, schema = io.BytesIO(), pa.schema([("a", pa.int64())])
    with pq.ParquetWriter(written, schema) as writer:
        for rows in groups:
            writer.write_table(pa.table({"a": range(rows)}, schema))
    told: list[tuple[int, int]] = []
    with pq.ParquetFile(written) as file:
        batches = list(postgresql_copy._batches(file, lambda *counts: told.append(counts)))
    assert sum(batch.num_rows for batch in batches) == sum(groups)
    assert max((batch.num_rows for batch in batches), default=most) == most
    assert not batches or told[-1] == (sum(groups), sum(groups))
