"""The pipeline's own stages as work for ``benchmarks.contestant``: the real tasks, with everything they do.

The settings come from the environment. What comes before the stages that are timed is done by the real tasks too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], dict[str, Any]]


def stages(folder: str, dataset: str, month: str, timed: list[str], before: list[str] | None = None) -> Work:
    """The ``timed`` stages of a month, after those that come ``before`` (names of the stages, in their order)."""
    import pyarrow.parquet  # noqa: F401  (what the stages import when they run)

    import pipeline
    import pipeline.cleaning.cleaner
    from pipeline import settings

    def task(name: str) -> Any:
        return getattr(pipeline, name)(dataset=dataset, month=dt.date.fromisoformat(f"{month}-01"))

    first = task(timed[0])
    assert first.job.lake_object
    if "Load" in timed:
        assert settings.open_warehouse(settings.warehouse_labels())
    for name in before or []:
        task(name).run()

    def work() -> dict[str, Any]:
        for name in timed:
            task(name).run()
        if "Clean" not in timed:
            return {}
        report = first.scratch.need("rows.arrow")["report"]
        return {"rows_read": report["rows_read"], "rows_rejected": sum(report["rows_rejected"].values())}

    return work


def upload(folder: str, source: str) -> Work:
    """Upload of a month whose Parquet is the file ``source``, and which has no rejects.

    The scratch is filled by its own functions, with the records that the stages before would have written.
    """
    import shutil

    import pipeline
    from pipeline import datasets
    from pipeline.cleaning import Report
    from pipeline.stages.clean import REJECTS, ROWS
    from pipeline.stages.download import RAW
    from pipeline.stages.write_parquet import PARQUET

    task = pipeline.Upload(dataset="yellow", month=dt.date(2021, 1, 1))
    assert task.job.lake_object
    raw = {"url": "https://example.org/yellow_tripdata_2021-01.csv.gz", "sha256": "ab" * 32, "version": {"etag": '"1"'}}
    about = {"length": 1, "format": "csv.gz", "fetched_at": dt.datetime.now(dt.UTC).isoformat()}
    schema_version = datasets.get("yellow").schema_version
    report = vars(Report(rows_read=1, rows_written=1))
    records: dict[str, dict[str, Any]] = {
        RAW: {**raw, **about},
        REJECTS: {"sha256": raw["sha256"], "schema_version": schema_version},
        ROWS: {"sha256": raw["sha256"], "schema_version": schema_version, "report": report},
        PARQUET: {"sha256": raw["sha256"], "parquet_sha256": _sha256(source), "rows_written": 1},
    }
    for name, record in records.items():
        file = Path(folder, name)
        shutil.copyfile(source, file) if name == PARQUET else file.write_bytes(b"x")
        task.scratch.keep(file, name, record)

    def work() -> dict[str, Any]:
        task.run()
        return {}

    return work


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
