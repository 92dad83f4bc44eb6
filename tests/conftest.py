"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real TLC files (publishers, eras, samples, damaged); skips where it is missing."""
    folder = Path(os.environ.get("TRIPS_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not (folder / "publishers").is_dir():
        pytest.skip(f"no real TLC files in {folder}; set TRIPS_TEST_DATA to a folder that has them")
    return folder
