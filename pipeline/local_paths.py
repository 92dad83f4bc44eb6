"""Local paths: those of ``file:`` URLs, their length, broken links on their way, and how people read them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

from .errors import UsageError

#: How messages end that refuse such a URL.
FORMS = "write file:relative or file:///absolute/folder"

#: Bytes of the longest name, and of the longest path to which names are still added.
LONGEST_NAME, LONGEST_PATH = 255, 3800


def check_path_length(path: str | os.PathLike[str], what: str) -> None:
    """Raise UsageError for a path that no file system can have. ``what`` names its setting."""
    try:
        names = [len(os.fsencode(name)) for name in Path(path).parts]
    except UnicodeEncodeError:
        raise UsageError(f"{what} the path holds characters that no file name can have") from None
    if max(names, default=0) > LONGEST_NAME or sum(names) + len(names) > LONGEST_PATH:
        raise UsageError(
            f"{what} the path is too long: a name has {LONGEST_NAME} bytes at most, a path {LONGEST_PATH:,}"
        )


def broken_link(path: Path) -> str:
    """What to say of a path that leads over a link to something that is not there; "" for any other path."""
    if os.path.exists(path):
        return ""
    for place in (path, *path.parents):
        if os.path.islink(place) and not os.path.exists(place):
            there = os.readlink(place)
            return f"{place} is a link to {there}, which is not there; mount the disk that has it, or remove the link"
    return ""


def path_of(url: str) -> Path:
    """The absolute path of a ``file:`` URL (``file:relative``, ``file:/absolute``, ``file:///absolute``), decoded."""
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        host, slash, tail = rest[2:].partition("/")
        if host not in ("", "localhost") or not slash:
            host = host.rpartition("@")[2]
            raise UsageError(f"file://{host} names the host {host!r}, not a folder; {FORMS}")
        rest = slash + tail
    path = unquote(rest)
    if not path or "\0" in path:
        raise UsageError(f"file: names no folder; {FORMS}")
    check_path_length(os.path.abspath(path), "file:")
    return Path(os.path.abspath(path))


def url_of(path: str | os.PathLike[str]) -> str:
    """The ``file:`` URL of a path of any name, percent-encoded."""
    return "file:" + quote(os.fsencode(path))


def short_path(path: str) -> str:
    """Relative to the current folder if it lies below that."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
