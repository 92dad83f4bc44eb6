"""``pipeline.read``: one month of a dataset from the lake as a pandas DataFrame."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import datasets, settings
from ..errors import DamagedLakeFile, UsageError
from ..partition import Partition, typed_month
from ..redo_command import EVERYWHERE, redo_command
from ..storage import open_store
from .lake import Lake

_DTYPES = {
    pa.int64(): pd.Int64Dtype(),
    pa.string(): pd.StringDtype(),
}


def read(dataset: str, month: str | None = None) -> pd.DataFrame:
    """See ``pipeline.read``."""
    found = datasets.get(dataset)
    partition = Partition(found.name, typed_month(month) if month else None)
    if found.is_monthly == (partition.month is None):
        what = "name a month, such as 2021-01" if found.is_monthly else "it has no months"
        raise UsageError(f"{found.name}: {what}")
    lake = Lake(open_store(settings.LakeSettings().url))
    manifest = lake.manifest(partition)
    if manifest is None:
        load = redo_command(partition)
        raise FileNotFoundError(f"{partition} is not in the lake {lake.url}; load it with: {load}")
    with lake.file(manifest).local() as path:
        try:
            return pq.read_table(path).to_pandas(types_mapper=_DTYPES.get)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            cause = " ".join(str(error).split())[:100]
            raise DamagedLakeFile(
                f"{partition}: {manifest.parquet.path} in the lake {lake.url} cannot be read: {cause}; see what else "
                "is damaged with: python -m pipeline verify --deep; do the month again with: "
                + redo_command(partition, {EVERYWHERE})
            ) from None
