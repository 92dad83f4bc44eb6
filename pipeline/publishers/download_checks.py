"""Checks of a file while it is downloaded: its format, a Parquet footer at its end, all zones in the zone table."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from ..datasets.zones import KNOWN_IDS
from ..format_detection import mismatch

#: Bytes at the beginning of a file that are looked at, and quoted from, to tell its format.
HEAD = 512


class Damage(Exception):
    """A file is not what it should be.

    ``quote`` are its first words, if it is of another format. ``is_cut``: it is right as far as it goes.
    """

    def __init__(self, message: str, *, quote: str | None = None, is_cut: bool = False) -> None:
        super().__init__(message)
        self.quote = quote
        self.is_cut = is_cut


#: How files of each format begin, and how the format is called. Text is recognised by its first line.
_BEGINNINGS = {"parquet": (b"PAR1", "a Parquet file"), "csv.gz": (b"\x1f\x8b\x08", "a gzip file")}


def check_head(head: bytes, file_format: str) -> None:
    """Check the first ``HEAD`` bytes of a file, or all that it has."""
    magic, title = _BEGINNINGS.get(file_format, (b"", "the zone table"))
    if not head.startswith(magic) or not (magic or _is_csv(head)):
        raise Damage(f"this is {mismatch(head, title)}", quote=_first_words(head))


def _is_csv(head: bytes) -> bool:
    """Whether this is text whose first line has a comma. Pages and messages begin with a bracket."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return b"\0" not in head and text[:1] not in (b"<", b"{", b"[") and b"," in text.split(b"\n", 1)[0]


def check_end(path: Path, file_format: str) -> None:
    """Check that a complete Parquet file has a readable footer. Clean finds what else can be damaged."""
    if file_format != "parquet":
        return
    from ..cleaning.parquet_file import BadFooter, footer

    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        if file.read() != b"PAR1":
            raise Damage("the Parquet file has no footer, its end is cut off", is_cut=True)
        try:
            footer(file)
        except BadFooter as error:
            raise Damage(str(error)) from None


def check_zones(path: Path) -> None:
    """Check a zone table from the web, where its end proves nothing: it must have all zones that are known."""
    text = path.read_bytes().decode("utf-8-sig", "replace")
    try:
        header, *rows = csv.reader(line for line in re.split(r"[\r\n]+", text) if line.strip())
    except csv.Error as error:
        raise Damage(f"the zone table cannot be read ({error})") from None
    names = [name.strip().lower() for name in header]
    if "locationid" not in names:
        raise Damage("this is text, not the zone table", quote=_first_words(text[:HEAD].encode()))
    column = names.index("locationid")
    width = len(header) - (not names[-1])  # a comma at its end is no column
    ids: set[int] = set()
    for row in rows:
        is_whole = len(row) >= width and not any(row[width:])
        if not is_whole or not re.fullmatch(r"[0-9]{1,9}", row[column].strip()):
            raise Damage(f"the line behind zone {max(ids, default=0)} is no zone", is_cut=row is rows[-1])
        ids.add(int(row[column]))
    lacking = sorted(KNOWN_IDS - ids)
    if lacking:
        raise Damage(
            f"{len(lacking)} of {len(KNOWN_IDS)} zones are missing, from {lacking[0]} to {lacking[-1]}", is_cut=True
        )
    if text[-1] not in "\r\n":
        raise Damage("its last line is cut off", is_cut=True)


def _first_words(head: bytes) -> str:
    """The beginning of a file as a person would quote it: ``<html>… Access Denied``, or the first bytes as numbers."""
    text = head.decode("utf-8", "replace")
    if sum(not (char.isprintable() or char.isspace()) or char == "\ufffd" for char in text) > len(text) // 20:
        return head[:8].hex(" ")
    tag = re.match(r"\s*<[!?]?(\w+)", text)
    plain = " ".join(re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>?", " ", text).split())
    return (f"<{tag[1]}>… " if tag else "") + (plain if len(plain) <= 80 else plain[:80].rstrip() + "…")
