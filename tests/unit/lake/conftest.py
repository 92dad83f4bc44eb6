"""A month to publish, made by hand."""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.lake import Manifest, Source, layout
from pipeline.lake.lake import digest_of
from pipeline.partition import Partition

MakeMonth = Callable[..., tuple[Path, Path, Manifest]]


@pytest.fixture
def make_month(tmp_path: Path) -> MakeMonth:
    """Write two local files and return them with a manifest that names them; the bytes are no real Parquet."""

    def make(
        month: dt.date | None = dt.date(2020, 4, 1),
        content: bytes = b"first",
        dataset: str = "green",
        **changes: object,
    ) -> tuple[Path, Path, Manifest]:
        parquet, rejects = (tmp_path / f"{zlib.crc32(content)}.{kind}.parquet" for kind in ("data", "rejects"))
        parquet.write_bytes(content)
        rejects.write_bytes(b"rejects of " + content)
        values: dict[str, object] = {
            "dataset": dataset,
            "month": month,
            "publisher": "tlc",
            "source": Source(
                "https://example.org/a.parquet",
                "ab" * 32,
                '"etag"',
                123,
                None,
                "parquet",
                dt.datetime(2021, 4, 1, 5, tzinfo=dt.UTC),
            ),
            "rows_read": 10,
            "rows_written": 7,
            "rows_rejected": {"zero_passengers": 2, "bad_value": 1},
            "rules": "zero_passengers@1",
            "schema_version": "0123456789ab",
            "parquet": digest_of(parquet, layout.data(Partition(dataset, month))),
            "rejects": digest_of(rejects, layout.rejects(Partition(dataset, month))),
            "run_id": "20260101T000000-abcdef",
            "created_at": dt.datetime(2026, 1, 1, 12, 30, tzinfo=dt.UTC),
            "pipeline_version": "0.1.0",
        }
        return parquet, rejects, Manifest(**{**values, **changes})  # type: ignore[arg-type]

    return make
