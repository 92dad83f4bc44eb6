"""Reading the lake from Python."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import datasets, settings
from ..lake import Lake, open_store
from ..stages.parameters import Month

_DTYPES = {
    pa.int64(): pd.Int64Dtype(),
    pa.string(): pd.StringDtype(),
}


def read(dataset: str, month: str) -> pd.DataFrame:
    """See ``pipeline.read``."""
    name = datasets.get(dataset).name
    first_day = Month().parse(month)
    lake = Lake(open_store(settings.lake().url))
    manifest = lake.manifest(name, first_day)
    if manifest is None:
        raise FileNotFoundError(
            f"{name} {month} is not in the lake {lake.url}; load it with: luigi --module pipeline MonthlyTrips "
            f"--dataset {name} --month {month} --local-scheduler"
        )
    with lake.file(manifest).local() as path:
        return pq.read_table(path).to_pandas(types_mapper=_DTYPES.get)
