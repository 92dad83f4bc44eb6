"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import real_data as published

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with published files (publishers, eras, samples, damaged); see ``tests/real_data.py``."""
    return published.FOLDER
