"""The test suite's servers, for benchmarks: on loopback, stopped with the case that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.gcs import GcsServer
from tests.servers.postgres import PostgresServer, Unavailable, start_postgres

from .case import Skip


@contextmanager
def postgres(**settings: str) -> Iterator[PostgresServer]:
    """A PostgreSQL server; the case is skipped where there is none."""
    try:
        with start_postgres(**settings) as server:
            yield server
    except Unavailable as error:
        raise Skip(f"no PostgreSQL: {error}") from error


@contextmanager
def gcs() -> Iterator[GcsServer]:
    """A stand-in for Cloud Storage; the case is skipped where there is none."""
    try:
        with GcsServer() as server:
            yield server
    except pytest.skip.Exception as reason:
        raise Skip(str(reason)) from reason


class Databases:
    """Databases of a server, one at a time."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._count = 0

    def fresh(self) -> str:
        """The URL of an empty database; the one before is dropped."""
        self.server.run(f"DROP DATABASE IF EXISTS bench_{self._count} WITH (FORCE)")
        self._count += 1
        self.server.run(f"CREATE DATABASE bench_{self._count} OWNER {self.server.role}")
        self.server.run("CHECKPOINT")  # what the one before has written is not paid for by the next
        return self.server.url(f"bench_{self._count}")
