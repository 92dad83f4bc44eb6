"""``pipeline.read`` of a month whose Parquet file was damaged, or is not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline import settings
from pipeline.errors import DamagedLakeFile
from pipeline.lake import Lake


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of green 2020-03 in the lake."""
    path = tmp_path / "green.parquet"
    pq.write_table(pa.table({"store_and_fwd_flag": ["N"] * 1000}), path)
    manifest = SimpleNamespace(parquet=SimpleNamespace(path=path.name))
    monkeypatch.setattr(settings, "LakeSettings", lambda: SimpleNamespace(url=f"file:{tmp_path}"))
    monkeypatch.setattr(Lake, "manifest", lambda self, partition: manifest)
    return path


@pytest.mark.parametrize("place", [slice(4, 40), slice(-4, None), slice(0, None)])
def test_damaged_file(parquet: Path, place: slice) -> None:
    assert len(pipeline.read("green", "2020-03")) == 1000
    data = bytearray(parquet.read_bytes())
    data[place] = b"\xff" * len(data[place])
    parquet.write_bytes(data)
    with pytest.raises(
        DamagedLakeFile, match=r"^green 2020-03: green\.parquet in the lake .* cannot be read: "
    ) as caught:
        pipeline.read("green", "2020-03")
    text = str(caught.value)
    assert "\n" not in text and "python -m pipeline verify --deep" in text
    assert "python -m pipeline forget --dataset green --month 2020-03 && luigi --module pipeline MonthlyTrips" in text


def test_month_that_is_not_there(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lake, "manifest", lambda self, partition: None)
    load = "luigi --module pipeline MonthlyTrips --dataset green --month 2020-03 --local-scheduler"
    with pytest.raises(FileNotFoundError, match=f"load it with: {load}$"):
        pipeline.read("green", "2020-03")
