"""The pipeline's own stages as work for ``benchmarks.contestant``: the real tasks, with everything they do.

The settings come from the environment. What comes before the stages that are timed is done by the real tasks too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

Work = Callable[[], dict[str, Any]]


def clean_and_write(folder: str, dataset: str, month: str) -> Work:
    """Clean and WriteParquet of a month that Download has fetched."""
    import pyarrow.parquet  # noqa: F401  (imported by the stages when they run)

    import pipeline
    import pipeline.cleaning.cleaner

    month_of = dt.date.fromisoformat(f"{month}-01")
    download, clean, write = (
        stage(dataset=dataset, month=month_of) for stage in (pipeline.Download, pipeline.Clean, pipeline.WriteParquet)
    )
    download.run()

    def work() -> dict[str, Any]:
        clean.run()
        write.run()
        report = clean.scratch.need("rows.arrow")["report"]
        return {"rows_read": report["rows_read"], "rows_rejected": sum(report["rows_rejected"].values())}

    return work
