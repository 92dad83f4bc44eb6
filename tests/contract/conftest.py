"""An empty warehouse and an empty store of each kind, by their adapters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.storages import STORAGES, Storage
from tests.contract.warehouses import BACKENDS, Backend
from tests.servers.bigquery import bigquery_server
from tests.servers.gcs import gcs_bucket, gcs_server
from tests.servers.postgres import postgres_server

__all__ = ["bigquery_server", "gcs_bucket", "gcs_server", "postgres_server"]


@pytest.fixture(scope="session")
def lake_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Parquet files that are made once and never changed."""
    folder = tmp_path_factory.mktemp("lake-files") / "lake"
    folder.mkdir()
    return folder


@pytest.fixture(params=BACKENDS, ids=lambda kind: kind.name)
def backend(request: pytest.FixtureRequest, lake_files: Path, tmp_path: Path) -> Iterator[Backend]:
    """A warehouse without rows; it may have tables."""
    folder = tmp_path / "warehouse"
    folder.mkdir()
    with request.param.empty(lake_files, folder, request, has_tables=True) as made:
        yield made


@pytest.fixture(params=BACKENDS, ids=lambda kind: kind.name)
def new_backend(request: pytest.FixtureRequest, lake_files: Path, tmp_path: Path) -> Iterator[Backend]:
    """A warehouse in which nothing was ever made."""
    folder = tmp_path / "warehouse"
    folder.mkdir()
    with request.param.empty(lake_files, folder, request) as made:
        yield made


@pytest.fixture(params=STORAGES, ids=lambda kind: kind.name)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with request.param.empty(tmp_path, request) as made:
        yield made
