"""The text of an error after the title of its task: nothing is repeated."""

from __future__ import annotations

import pytest

from pipeline.errors import PipelineError, text_after


@pytest.mark.parametrize(
    ("title", "text", "shown"),
    [
        ("Download green 2022-02", "green 2022-02: file:/x is not there", "file:/x is not there"),
        ("Download zones", "zones: file:/x is not there", "file:/x is not there"),
        ("Load zones into duckdb:////w", "duckdb:////w: held by python (PID 1)", "held by python (PID 1)"),
        ("Load green 2022-02 into a", "duckdb:////w: held", "duckdb:////w: held"),
        ("Clean green 2022-02", "green_tripdata_2022-02.parquet: no rows", "green_tripdata_2022-02.parquet: no rows"),
        ("Clean green 2022-02", "no colon", "no colon"),
    ],
)
def test_what_a_title_ends_with_is_not_said_twice(title: str, text: str, shown: str) -> None:
    assert text_after(title, PipelineError(text)) == shown
