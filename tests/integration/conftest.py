"""Fixtures of the integration tests of several backends."""

from __future__ import annotations

from typing import Any

import pytest
import requests


@pytest.fixture
def time_outs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time-outs of all requests of the test, in seconds: to connect and between two signs of life."""
    seen: list[float] = []
    send = requests.Session.send

    def watch(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        given = options["timeout"]
        seen.extend(given if isinstance(given, tuple) else [given])
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", watch)
    return seen
