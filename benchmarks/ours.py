"""The pipeline's own stages as work for ``benchmarks.contestant``: the real tasks, with everything they do.

The settings come from the environment. What comes before the stages that are timed is done by the real tasks too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
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
