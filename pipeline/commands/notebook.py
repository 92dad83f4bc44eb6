"""Reading the lake from Python."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import datasets, settings
from ..errors import DamagedLakeFile, UsageError
from ..lake import Lake
from ..storage import open_store
from ..tasks.parameters import Month
from . import verify

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
    title = f"{name} {first_day:%Y-%m}" if first_day else name
    lake = Lake(open_store(settings.lake().url))
    manifest = lake.manifest(name, first_day)
    if manifest is None:
        load = verify.commands(name, first_day, {verify.NOTHING})
        raise FileNotFoundError(f"{title} is not in the lake {lake.url}; load it with: {load}")
    with lake.file(manifest).local() as path:
        try:
            return pq.read_table(path).to_pandas(types_mapper=_DTYPES.get)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            cause = " ".join(str(error).split())[:100]
            raise DamagedLakeFile(
                f"{title}: {manifest.parquet.path} in the lake {lake.url} cannot be read: {cause}; see what else is "
                "damaged with: python -m pipeline verify --deep; do the month again with: "
                + verify.commands(name, first_day, {verify.EVERYWHERE})
            ) from None
