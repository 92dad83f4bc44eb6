"""Storage of files: a local folder or a Cloud Storage bucket behind one interface, for lake and workspace alike."""

from __future__ import annotations

from ..errors import UsageError
from .base import Store, StoredObject, StoreOptions, without_secrets

__all__ = ["Store", "StoreOptions", "StoredObject", "is_local", "open_store", "page_of"]


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


def is_local(url: str) -> bool:
    """Whether the store that ``url`` names, or one of its objects, is on this machine, so that no server is asked."""
    return url.startswith("file:")


def page_of(uri: str) -> str:
    """The address under which a browser shows an object of a store."""
    bucket = uri.removeprefix("gs://")
    return uri if bucket == uri else f"https://console.cloud.google.com/storage/browser/_details/{bucket}"
