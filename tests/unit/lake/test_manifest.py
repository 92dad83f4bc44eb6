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
    assert Manifest.from_summary({"manifest": json.dumps(plain)}) == manifest


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


def test_metadata_of_version_0_1_0_are_read(make_month: MakeMonth) -> None:
    """One key per field: what lies in the buckets of users, so that one listing still answers for all months."""
    source = Source(
        "https://example.org/\u00fc", "7" * 64, '"1"', 5, None, "csv", dt.datetime(2021, 4, 1, 5, tzinfo=dt.UTC)
    )
    _, _, manifest = make_month(
        month=None, dataset="zones", source=source, is_synthetic=True, unknown_columns={"neu": 3}
    )
    metadata = {
        "blank_lines": "0",
        "created_at": "2026-01-01T12:30:00+00:00",
        "dataset": "zones",
        "is_synthetic": "true",
        "month": "null",
        "parquet_bytes": str(manifest.parquet.bytes),
        "parquet_path": "data/zones/taxi_zone_lookup.parquet",
        "parquet_sha256": manifest.parquet.sha256,
        "pipeline_version": "0.1.0",
        "publisher": "tlc",
        "rejects_bytes": str(manifest.rejects.bytes),
        "rejects_path": "rejects/zones/taxi_zone_lookup.parquet",
        "rejects_sha256": manifest.rejects.sha256,
        "repeated_headers": "0",
        "rows_read": "10",
        "rows_rejected": '{"bad_value":1,"zero_passengers":2}',
        "rows_written": "7",
        "rules": "zero_passengers@1",
        "run_id": "20260101T000000-abcdef",
        "schema_version": "0123456789ab",
        "source_etag": '"\\"1\\""',
        "source_fetched_at": "2021-04-01T05:00:00+00:00",
        "source_format": "csv",
        "source_last_modified": "null",
        "source_length": "5",
        "source_sha256": f'"{"7" * 64}"',
        "source_url": '"https://example.org/\\u00fc"',
        "surplus_values": "0",
        "unknown_columns": '{"neu":3}',
    }
    assert Manifest.from_summary(metadata) == manifest
    del metadata["rows_read"]
    assert Manifest.from_summary(metadata) is None


def test_summary_that_does_not_fit_is_empty(make_month: MakeMonth) -> None:
    _, _, manifest = make_month(unknown_columns={f"column {n}": n for n in range(1000)})
    assert manifest.summary() == {}
    assert Manifest.from_summary({}) is None and Manifest.from_summary({"manifest": "null"}) is None


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
