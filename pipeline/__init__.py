"""Keeps a data lake and a warehouse complete with the NYC taxi trip records.

This module is what ``luigi --module pipeline`` loads: the tasks, and nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import luigi_config, settings, validation, waiting  # luigi_config before all that imports luigi
from ._version import __version__
from .reporting.progress import RunProgress
from .runner import command_line
from .tasks.clean import Clean
from .tasks.download import Download
from .tasks.load import Load
from .tasks.range_monthly import RangeMonthly
from .tasks.refresh import Refresh
from .tasks.upload import Upload
from .tasks.wrappers import AllTrips, MonthlyTrips, TaxiZones
from .tasks.write_parquet import WriteParquet

if TYPE_CHECKING:
    import pandas

__all__ = [
    "AllTrips",
    "Clean",
    "Download",
    "Load",
    "MonthlyTrips",
    "RangeMonthly",
    "Refresh",
    "TaxiZones",
    "Upload",
    "WriteParquet",
    "__version__",
    "read",
]

luigi_config.complete(luigi_config.DEFAULTS)
settings.add_task(RangeMonthly, ("of", "dataset", "start", "stop"), old_names=("datasets",))
settings.apply_environment()
waiting.set_default_listener(RunProgress())
command_line.install()
# Health checks of images made from an older Dockerfile call it by this name.
settings.validate = validation.validate_by_old_name  # type: ignore[attr-defined]


def read(dataset: str, month: str | None = None) -> pandas.DataFrame:
    """The month (``YYYY-MM``) of a dataset from the configured lake, or the table ``zones``, for notebooks.

    Whole numbers stay whole where values are missing (nullable dtypes); texts are strings, times ``datetime64[us]``.
    ``file_month`` has ``datetime.date`` objects (dtype ``object``).
    Raises ``FileNotFoundError`` if the lake has no complete month of that name.
    """
    from .lake.read import read

    return read(dataset, month)
