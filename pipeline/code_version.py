"""The version of the code: a digest of the pipeline's own sources and of the libraries that make the rows.

Scratch of one stage is trusted by the next only if the same code made it. A version number would not do: a checkout
changes between two releases.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ._version import __version__

#: In the environment of a run's processes: the digest of the code that the run was started with. It counts although
#: somebody replaces the files during the run: what then loads the new ones does not pass for theirs later.
CODE = "PIPELINE_RUN_CODE"

#: Libraries whose version may change the rows or the bytes of a file.
LIBRARIES = ("pyarrow", "numpy")


def digest() -> str:
    """Twelve hexadecimal digits that change with the code."""
    given = os.environ.get(CODE, "")
    return given if re.fullmatch("[0-9a-f]{12}", given) else _digest()


def export_to_environment() -> None:
    """Let all processes of this run take the code for what it is now."""
    os.environ[CODE] = _digest()


@cache
def of_sources() -> str:
    """A digest of the version and the sources alone; some milliseconds.

    The sources are read wherever the package lies, in a folder or a zip file. Where only byte code was installed, that
    is read: it changes with the Python version and the folder too, so scratch is made again more often than it must.
    """
    found = hashlib.sha256(__version__.encode())
    for name, content in sorted(_sources(importlib.resources.files(__package__), "")):
        found.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:12]


@cache
def _digest() -> str:
    """The digest of sources and libraries, for this process."""
    found = hashlib.sha256(of_sources().encode())
    for library in LIBRARIES:
        found.update(f"\0{library}\0{_version_of(library)}".encode())
    return found.hexdigest()[:12]


def _sources(folder: Any, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.name.endswith(".py"):
            yield f"{path}{entry.name}", entry.read_bytes()
        elif entry.name.endswith(".pyc"):
            yield f"{path}{entry.name}", entry.read_bytes()[16:]  # without the time of its source
        elif entry.name != "__pycache__" and entry.is_dir():
            yield from _sources(entry, f"{path}{entry.name}/")


def _version_of(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"
