"""Where bytes lie: a local folder or a Cloud Storage bucket behind one interface, for lake and workspace alike."""

from __future__ import annotations

from ..errors import UsageError
from .base import Store, StoredObject, StoreOptions, without_secrets

__all__ = ["Store", "StoreOptions", "StoredObject", "open_store"]


def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """The store that ``url`` names: ``file:…`` or ``gs://bucket/prefix``. Asks nothing of it yet."""
    scheme, colon, _ = url.partition(":")
    if colon and scheme == "file":
        from .local import LocalStore

        return LocalStore(url, options)
    if colon and scheme == "gs":
        from .gcs import GcsStore

        return GcsStore(url, options)
    raise UsageError(f"{without_secrets(url)!r} cannot be a lake or workspace; write file:folder or gs://bucket/prefix")
