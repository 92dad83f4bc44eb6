"""Mapping of a file's columns to the declared ones, where they are not one to one."""

from __future__ import annotations

import pytest

from pipeline import datasets
from pipeline.cleaning.header import Header


@pytest.mark.parametrize("dataset", datasets.DATASETS)
def test_the_name_of_a_repeated_column_is_never_that_of_a_declared_one(dataset: str) -> None:
    """A month counts as incomplete as soon as a declaration has the name of a column that was kept out of it."""
    declared = datasets.get(dataset)
    names = [name for column in declared.columns for name in (column.name, *column.aliases)]
    header = Header.of(names * 3, declared)
    assert list(header.unknown.values()) == [f"{name} (2nd)" for name in names] + [f"{name} (3rd)" for name in names]
    assert not any(map(declared.column_for, header.unknown.values()))
    assert sorted(i for positions in header.columns.values() for i in positions) == list(range(len(names)))
