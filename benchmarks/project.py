"""The pipeline as a user has it: settings in the environment, everything below one folder, the real commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.partition import add_months, format_month

from .contest import Work
from .inputs import Published

CHECKOUT = Path(__file__).resolve().parent.parent


def settings(folder: Path, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a pipeline whose lake, workspace and DuckDB file lie in ``folder``.

    All other settings are those of luigi.cfg. Synthetic months may go everywhere.
    """
    return {
        "LUIGI_CONFIG_PATH": str(CHECKOUT / "luigi.cfg"),
        "PIPELINE_LAKE_URL": f"file:{folder}/lake",
        "PIPELINE_WORKSPACE_URL": f"file:{folder}/workspace",
        "PIPELINE_WAREHOUSE_URL": f"duckdb:///{folder}/warehouse.duckdb",
        "PIPELINE_PUBLISHER_ALLOW_SYNTHETIC": "true",
        **(changes or {}),
    }


def luigi(*words: str) -> list[str]:
    """The luigi command of this environment."""
    return [str(Path(sys.executable).parent / "luigi"), *words]


def stages_of(
    published: Published,
    name: str,
    timed: Sequence[str],
    before: Sequence[str] = (),
    changes: Callable[[Path], Mapping[str, str]] = lambda folder: {},
) -> Work:
    """The real stages of the first published month, as a contestant; ``changes`` to the settings for its folder."""
    return Work(
        name,
        "benchmarks.ours:stages",
        {
            "dataset": published.dataset,
            "month": format_month(published.months[0]),
            "timed": list(timed),
            "before": list(before),
        },
        lambda folder: settings(folder, {**published.settings, **changes(folder)}),
    )


def luigi_range(published: Published) -> list[str]:
    """The words of a RangeMonthly over all published months."""
    start, stop = published.months[0], add_months(published.months[-1], 1)
    return [
        *("RangeMonthly", "--of", "MonthlyTrips", "--of-params", json.dumps({"dataset": published.dataset})),
        *("--start", format_month(start), "--stop", format_month(stop)),
    ]
