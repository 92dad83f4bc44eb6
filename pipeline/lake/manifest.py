"""The manifest beside each lake file: source version, rows read, written and rejected, rules, schema, digests.

The whole record is the manifest's JSON file. Its ``summary`` is the part that decides completeness, small enough for
the metadata of a GCS object, so that one listing answers for all months.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..partition import Partition

#: The key of the metadata that holds the summary, as compact JSON.
SUMMARY_KEY = "manifest"

#: GCS allows 8 KiB of custom metadata per object, keys and values together.
SUMMARY_LIMIT = 8 * 1024

#: What only the JSON file holds: counters that decide nothing and may grow with the file's oddities.
_ONLY_IN_JSON = ("ignored_columns", "unknown_codes")


@dataclass(frozen=True)
class Source:
    """One version of one raw file at its publisher.

    ``url`` carries no credentials and no query string. ``etag`` is the ETag, or size and time for a local file; with
    ``length`` (bytes) it is the cheap sign that the file may have changed, ``sha256`` of the raw bytes is the proof.
    ``last_modified`` is kept for people only: publishers touch it without any change of data. ``format`` is ``csv``,
    ``csv.gz`` or ``parquet``. ``last_look`` is the id of the last observation of the publisher before the file was
    fetched (see ``completeness.observation_id``); None in manifests of earlier versions.
    """

    url: str
    sha256: str
    etag: str
    length: int
    last_modified: str | None
    format: str
    fetched_at: dt.datetime
    last_look: str | None = None


@dataclass(frozen=True)
class Digest:
    """A file of the lake and the bytes that it must have: path below the lake's root, SHA-256 and size."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What is known about one month of one dataset in the lake.

    ``month`` is the first day of the file's month, None for a dataset without months. ``publisher`` is the label.
    ``rows_rejected`` counts by reason; ``rows_read`` are the data lines, so ``rows_read == rows_written + all rejects``
    (``ValueError`` otherwise); blank lines and repeated headers are counted apart, and ``surplus_values`` are rows with
    empty values beyond the last name. ``repaired`` counts what was read as it is meant, not as it is written, by kind
    (see ``cleaning.chunks``). ``unknown_columns`` are columns that no declaration names, or that come again, with their
    number of non-null values; ``ignored_columns`` are left over from the tool that wrote the file, such as an index;
    ``unknown_codes`` counts, per column, the kept values that are not in its code table. ``created_at`` is UTC.
    """

    dataset: str
    month: dt.date | None
    publisher: str
    source: Source
    rows_read: int
    rows_written: int
    rows_rejected: Mapping[str, int]
    rules: str
    schema_version: str
    parquet: Digest
    rejects: Digest
    run_id: str
    created_at: dt.datetime
    pipeline_version: str
    is_synthetic: bool = False
    blank_lines: int = 0
    repeated_headers: int = 0
    surplus_values: int = 0
    repaired: Mapping[str, int] = field(default_factory=dict)
    unknown_columns: Mapping[str, int] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    unknown_codes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows_read != self.rows_written + self.rejected_count:
            raise ValueError(
                f"{self.partition}: {self.rows_read} rows read, but {self.rows_written} written and "
                f"{self.rejected_count} rejected; a row is lost or counted twice"
            )

    @property
    def partition(self) -> Partition:
        return Partition(self.dataset, self.month)

    @property
    def rejected_count(self) -> int:
        return sum(self.rows_rejected.values())

    def to_json(self) -> str:
        """Readable JSON; the same manifest always gives the same text."""
        return json.dumps(_plain(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """The inverse of ``to_json``; unknown keys are left out. ``ValueError`` for anything that is not a manifest."""
        try:
            return cls._from_plain(json.loads(text))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a manifest: {type(error).__name__} {error}") from error

    def summary(self) -> dict[str, str]:
        """All but the bulky counters, as the metadata of an object; {} in the rare case that it would exceed 8 KiB."""
        plain = {key: value for key, value in _plain(self).items() if key not in _ONLY_IN_JSON}
        text = json.dumps(plain, separators=(",", ":"))  # ASCII, because metadata travel as HTTP headers too
        return {SUMMARY_KEY: text} if len(SUMMARY_KEY) + len(text) < SUMMARY_LIMIT else {}

    @classmethod
    def from_summary(cls, metadata: Mapping[str, str]) -> Manifest | None:
        """The manifest without its bulky counters; None where the metadata hold no summary (then read the JSON)."""
        try:
            text = metadata.get(SUMMARY_KEY)
            return cls._from_plain(_plain_of_fields(metadata) if text is None else json.loads(text))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            return None

    @classmethod
    def _from_plain(cls, plain: Mapping[str, Any]) -> Manifest:
        values = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
        values["month"] = Partition.parse(plain["dataset"], plain["month"]).month
        values["created_at"] = dt.datetime.fromisoformat(plain["created_at"])
        values["ignored_columns"] = tuple(plain.get("ignored_columns", ()))
        for key, kind in _NESTED.items():
            values[key] = kind(**{f.name: plain[key][f.name] for f in fields(kind) if f.name in plain[key]})
        values["source"] = replace(
            values["source"], fetched_at=dt.datetime.fromisoformat(plain["source"]["fetched_at"])
        )
        return cls(**values)


_NESTED: dict[str, type[Source] | type[Digest]] = {"source": Source, "parquet": Digest, "rejects": Digest}


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON knows it, keys in the order of the fields, counters by name."""
    plain = asdict(manifest)
    plain["month"] = manifest.partition.month_text
    plain["created_at"] = manifest.created_at.isoformat(timespec="seconds")
    plain["source"]["fetched_at"] = manifest.source.fetched_at.isoformat()
    for counts in ("rows_rejected", "repaired", "unknown_columns"):
        plain[counts] = dict(sorted(getattr(manifest, counts).items()))
    plain["unknown_codes"] = {
        column: dict(sorted(codes.items())) for column, codes in sorted(manifest.unknown_codes.items())
    }
    return plain


def _plain_of_fields(metadata: Mapping[str, str]) -> dict[str, Any]:
    """A summary with one key per field, as version 0.1.0 wrote it: values are JSON or plain text."""
    plain = {key: _value(text) for key, text in metadata.items()}
    for key, kind in _NESTED.items():
        plain[key] = {f.name: plain[f"{key}_{f.name}"] for f in fields(kind) if f"{key}_{f.name}" in plain}
    return plain


def _value(text: str) -> Any:
    is_json = text[:1] in ('"', "{", "[") or text in ("null", "true", "false") or text.lstrip("-").isdigit()
    return json.loads(text) if is_json else text
