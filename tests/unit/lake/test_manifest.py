"""Manifests: nothing is lost on the way to JSON and metadata, and the rows must add up."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.lake import Manifest, Source

from .conftest import MakeMonth

FEWER = settings(max_examples=50)


def test_json_is_stable_and_complete(make_month: MakeMonth) -> None:
    _, _, manifest = make_month(
        rows_rejected={"b": 1, "a": 2},
        unknown_columns={"neu": 3},
        repaired={"line_ends": 4, "booleans": 1},
        ignored_columns=("__index_level_0__",),
        unknown_codes={"payment_type": {"9": 4}},
    )
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text
    plain = json.loads(text)
    assert plain["month"] == "2020-04"
    assert list(plain["rows_rejected"]) == ["a", "b"]
    assert list(plain["repaired"]) == ["booleans", "line_ends"]
    assert plain["created_at"] == "2026-01-01T12:30:00+00:00"


def test_a_manifest_from_before_repairs_were_counted_and_looks_named_has_none(make_month: MakeMonth) -> None:
    _, _, manifest = make_month()
    plain = json.loads(manifest.to_json())
    del plain["repaired"], plain["source"]["last_look"]
    assert Manifest.from_json(json.dumps(plain)) == manifest
    left_out = ("repaired", "source_last_look")
    summary = {key: value for key, value in manifest.summary().items() if key not in left_out}
    assert Manifest.from_summary(summary) == manifest


@FEWER
@given(url=st.text(), etag=st.text(), columns=st.dictionaries(st.text(max_size=8), st.integers(0), max_size=5))
def test_any_text_survives_json_and_metadata(
    make_month: MakeMonth, url: str, etag: str, columns: dict[str, int]
) -> None:
    source = Source(url, "0" * 64, etag, 5, None, "csv", dt.datetime(2021, 4, 1, 5, tzinfo=dt.UTC))
    _, _, manifest = make_month(source=source, unknown_columns=columns)
    assert Manifest.from_json(manifest.to_json()) == manifest
    summary = manifest.summary()
    assert all(value.isascii() for value in summary.values())
    if summary:
        assert Manifest.from_summary(summary) == manifest


def test_summary_leaves_out_only_what_decides_nothing(make_month: MakeMonth) -> None:
    _, _, manifest = make_month(
        month=None, is_synthetic=True, ignored_columns=("x",), unknown_codes={"payment_type": {"9": 4}}, blank_lines=3
    )
    restored = Manifest.from_summary(manifest.summary())
    assert restored == dataclasses.replace(manifest, ignored_columns=(), unknown_codes={})


def test_summary_that_does_not_fit_is_empty(make_month: MakeMonth) -> None:
    _, _, manifest = make_month(unknown_columns={f"column {n}": n for n in range(1000)})
    assert manifest.summary() == {}
    assert Manifest.from_summary({}) is None


def test_rows_must_add_up(make_month: MakeMonth) -> None:
    with pytest.raises(ValueError, match=r"green 2020-04: 11 rows read, but 7 written and 3 rejected"):
        make_month(rows_read=11)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"dataset": "green", "month": 5}', "[" * 200_000])
def test_other_json_is_no_manifest(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_json(text)


def test_unknown_keys_are_left_out(make_month: MakeMonth) -> None:
    _, _, manifest = make_month()
    plain = {**json.loads(manifest.to_json()), "later_addition": 1}
    assert Manifest.from_json(json.dumps(plain)) == manifest
    assert manifest.created_at.tzinfo is dt.UTC
