"""The pipeline as a user has it: settings in the environment, everything below one folder, the real commands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

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
