"""Reading the lake from Python."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import datasets, settings
from ..errors import UsageError
from ..lake import Lake, open_store
from ..stages.parameters import Month

_DTYPES = {
    pa.int64(): pd.Int64Dtype(),
    pa.string(): pd.StringDtype(),
}


def read(dataset: str, month: str | None = None) -> pd.DataFrame:
    """See ``pipeline.read``."""
    found = datasets.get(dataset)
    name, first_day = found.name, Month().parse(month or "")
    if found.is_monthly == (first_day is None):
        raise UsageError(f"{name}: {'name a month, such as 2021-01' if found.is_monthly else 'it has no months'}")
    lake = Lake(open_store(settings.lake().url))
    manifest = lake.manifest(name, first_day)
    if manifest is None:
        task = f"MonthlyTrips --dataset {name} --month {month}" if month else "TaxiZones"
        raise FileNotFoundError(
            f"{name}{f' {month}' if month else ''} is not in the lake {lake.url}; load it with: "
            f"luigi --module pipeline {task} --local-scheduler"
        )
    with lake.file(manifest).local() as path:
        return pq.read_table(path).to_pandas(types_mapper=_DTYPES.get)
