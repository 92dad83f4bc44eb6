"""A file in a store as a Luigi target."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import luigi

if TYPE_CHECKING:
    from ..storage.base import Store


class StoreTarget(luigi.Target):
    """Exists when the store has the path. The task decides whether it is still the one asked for."""

    def __init__(self, store: Store, path: str) -> None:
        self.store = store
        self.path = path

    @property
    def uri(self) -> str:
        """``file:`` or ``gs://``; percent-encoded."""
        return self.store.uri(self.path)

    def local(self) -> AbstractContextManager[Path]:
        """The path of the file on this machine, within the context; a remote one is fetched for it."""
        return self.store.local(self.path)

    def exists(self) -> bool:
        return self.store.stat(self.path) is not None

    def __str__(self) -> str:
        return f"{self.store.url}/{self.path}"
