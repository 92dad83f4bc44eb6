"""Strict parsing of JSON from files that anybody may have written."""

from __future__ import annotations

import pytest

from pipeline.strict_json import json_object


def test_an_object_is_read_as_it_is() -> None:
    assert json_object('{"a": [1, {"b": null}], "é": -1.5e3}'.encode()) == {"a": [1, {"b": None}], "é": -1500.0}


@pytest.mark.parametrize(
    "data, says",
    [
        (b'{"a": 1, "a": 1}', "a name stands there twice"),
        (b'{"a": [{"b": 1, "b": 2}]}', "a name stands there twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": [-Infinity]}', "-Infinity is no number"),
        (b"[" * 200_000, "cannot be read"),
        (b'{"a": 1} {}', "cannot be read"),
        (b"", "cannot be read"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "cannot be read"),
        (b'{"a": 1%s}' % (b"0" * 5000), "cannot be read"),
    ],
)
def test_anything_else_is_refused_in_one_line(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        json_object(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 200
