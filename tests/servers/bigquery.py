"""BigQuery for the tests: the emulator of deploy/emulators, in this process, with faults on request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.emulators.bigquery import BigQueryServer, Fault

__all__ = ["BigQueryServer", "Fault", "bigquery_server"]


@pytest.fixture
def bigquery_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    """A new server, with BIGQUERY_EMULATOR_HOST set."""
    with BigQueryServer() as server:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
        yield server
