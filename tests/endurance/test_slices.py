"""The first attempts of every campaign of ``make endurance``."""

from __future__ import annotations

from pathlib import Path

import pytest

from endurance.campaign import Campaign
from endurance.campaigns import all_campaigns
from endurance.runner import Record, run

from ..servers.postgres import Unavailable


@pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in all_campaigns().items()])
def test_slice(kind: type[Campaign], tmp_path: Path) -> None:
    record = Record.of(tmp_path, kind.name, seed=1, commit="slice")
    (tmp_path / "campaign").mkdir()
    try:
        run(kind(tmp_path / "campaign"), record, seed=1, count=kind.slice, seconds=None)
    except Unavailable as error:
        pytest.skip(f"no PostgreSQL: {error}")
    assert record.differences == {}
    assert record.attempts == kind.slice
