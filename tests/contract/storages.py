"""Adapters of the storages for the contract suite. A new backend is tested by a new class in ``STORAGES``."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.storage import Store, StoreOptions, gcs, open_store
from tests.servers.gcs import GcsServer


class Storage(abc.ABC):
    """An empty store at ``url``, and what strangers do to it."""

    #: The id in the names of the tests.
    name: ClassVar[str]

    #: Whether objects have metadata.
    has_metadata: ClassVar[bool]

    def __init__(self, url: str) -> None:
        self.url = url
        #: What a process needs in its environment to reach it.
        self.environment: dict[str, str] = {}

    @classmethod
    @abc.abstractmethod
    def empty(cls, folder: Path, request: pytest.FixtureRequest) -> contextlib.AbstractContextManager[Storage]:
        """A new store without anything in it. ``folder`` is the test's own."""

    @abc.abstractmethod
    def plant(self, path: str, data: bytes) -> None:
        """Put an object there as a stranger does, with a name that the pipeline would not give."""

    @abc.abstractmethod
    def unusable(self) -> str:
        """The URL of a store of this kind that cannot be used."""

    def open(self, **options: Any) -> Store:
        return open_store(self.url, StoreOptions(**{"lock_timeout": 0.2, "patience": 10, **options}))


class LocalStorage(Storage):
    name = "local"
    has_metadata = False

    @classmethod
    @contextlib.contextmanager
    def empty(cls, folder: Path, request: pytest.FixtureRequest) -> Iterator[LocalStorage]:
        yield cls(f"file:{folder}/store")

    @property
    def folder(self) -> Path:
        return Path(self.url.removeprefix("file:"))

    def plant(self, path: str, data: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def unusable(self) -> str:
        self.folder.write_text("a file in the place of the folder")
        return self.url


class GcsStorage(Storage):
    name = "gcs"
    has_metadata = True

    @classmethod
    @contextlib.contextmanager
    def empty(cls, folder: Path, request: pytest.FixtureRequest) -> Iterator[GcsStorage]:
        storage = cls(f"gs://{request.getfixturevalue('gcs_bucket')}/lake")
        server: GcsServer = request.getfixturevalue("gcs_server")
        storage.environment = {"STORAGE_EMULATOR_HOST": server.url}
        yield storage

    def plant(self, path: str, data: bytes) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gcs, "checked", lambda path: path)
            self.open().write(path, data)

    def unusable(self) -> str:
        return "gs://no-such-bucket-here/lake"


STORAGES: tuple[type[Storage], ...] = (LocalStorage, GcsStorage)
