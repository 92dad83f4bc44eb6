"""Detects the format of a file (gzip, Parquet, HTML, ...) by its first bytes, so that errors can name it."""

from __future__ import annotations

import re
from typing import BinaryIO

from .errors import WrongFormat

_SIGNATURES = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a zip archive or Excel workbook"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"PAR1", "Parquet"),
    (b"PARE", "encrypted Parquet"),
    (b"ARROW1", "Arrow IPC"),
    (b"FEA1", "Feather"),
    (b"ORC", "ORC"),
    (b"Obj\x01", "Avro"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"%PDF", "PDF"),
    (b"SQLite format 3", "an SQLite database"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)
_PAGE = re.compile(rb"<(!doctype html|html|head|body)\b", re.IGNORECASE)


def identify(head: bytes) -> str | None:
    """The format of a file that begins with ``head``, if it is a known one that is not CSV; None for everything else.

    Some 512 bytes suffice.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head and not head.strip(b"\0"):
        return "nothing but NUL bytes"
    half = len(head) // 2
    if half >= 8 and max(head[::2].count(0), head[1::2].count(0)) > half * 0.8:  # every second byte of ASCII text
        return "UTF-32" if head.count(0) > half * 1.2 else "UTF-16"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        return "an HTML page" if _PAGE.search(text) else "XML"
    return "JSON" if text[:1] in (b"{", b"[") else None


def mismatch(head: bytes, title: str, container: str = "") -> str:
    """What a file is that should be ``title``, as the end of a sentence: ``gzip inside gzip, not CSV``.

    ``container`` is what it was unpacked from.
    """
    found = identify(head)
    if found is None:
        return f"not {title}"
    if found.startswith("UTF-"):
        return f"{found}, not UTF-8"
    return f"{found} inside {container}, not {title}" if container else f"{found}, not {title}"


def check_magic(stream: BinaryIO, magic: bytes, title: str) -> None:
    """Raise ``WrongFormat``, naming what the file is instead, unless it begins with ``magic``."""
    head = stream.read(512)
    stream.seek(0)
    if not head.startswith(magic):
        found = identify(head)
        raise WrongFormat(
            f"no {title} file{f' but {found}' if found else ''}. Check the file at its publisher, or download it again"
        )
