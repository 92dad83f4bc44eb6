"""The version of a published file: ETag, length and time, which tell that a month was republished."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


def _sane(header: str | None) -> str | None:
    """The value of a header; None for one that could not be sent back, or that PostgreSQL has no text for."""
    text = (header or "").strip()
    return text if text and text.isprintable() and len(text) <= 1_000 else None


@dataclass(frozen=True)
class Version:
    """What tells two publications of one file apart without reading it. Every part may be unknown.

    ``etag`` is as sent, quotes and ``W/`` included; of a local file ``<size>-<mtime in ns>``, of a sample what it is
    made from, both unquoted. ``length`` in bytes. ``last_modified`` is for reading only: it changes without the data.
    """

    etag: str | None = None
    length: int | None = None
    last_modified: str | None = None

    @property
    def is_strong(self) -> bool:
        """Whether the ETag promises the same bytes, so that a broken transfer may be resumed."""
        return self.etag is not None and self.etag.startswith('"')

    @property
    def fingerprint(self) -> str:
        """ETag and length as one text, equal for equal publications; empty when neither is known.

        A weak ETag counts as its strong twin: a server or proxy may send either for the same bytes. The unquoted
        tags of local files and samples say all by themselves.
        """
        etag = (self.etag or "").removeprefix("W/")
        if etag and not etag.startswith('"'):
            return etag
        return f"{etag} {'' if self.length is None else self.length}".strip()

    def same_as(self, other: Version) -> bool:
        """Whether nothing that both versions know differs, and something that both know agrees."""
        if self.fingerprint == other.fingerprint:
            return self.fingerprint != ""
        mine, theirs = ((v.etag or "").removeprefix("W/") or None for v in (self, other))
        known = [(a, b) for a, b in ((mine, theirs), (self.length, other.length)) if None not in (a, b)]
        return bool(known) and all(a == b for a, b in known)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Version:
        return cls(values.get("etag"), values.get("length"), values.get("last_modified"))

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Version:
        """Of an answer; for a part of a file (``Content-Range``) the length is that of the whole."""
        length = headers.get("Content-Length", "")
        if "Content-Range" in headers:
            length = headers["Content-Range"].rpartition("/")[2]
        if headers.get("Content-Encoding", "identity") != "identity":
            length = ""  # of what is on the wire, not of the file
        return cls(
            etag=_sane(headers.get("ETag")),
            length=int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
            last_modified=_sane(headers.get("Last-Modified")),
        )

    @classmethod
    def from_stat(cls, stat: os.stat_result) -> Version:
        modified = dt.datetime.fromtimestamp(stat.st_mtime, dt.UTC).isoformat(timespec="seconds")
        return cls(f"{stat.st_size}-{stat.st_mtime_ns}", stat.st_size, modified)
