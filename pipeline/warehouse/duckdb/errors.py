"""What DuckDB's errors mean: one line with the remedy for each, and who holds a file that cannot be opened."""

from __future__ import annotations

import os
import re
from pathlib import Path

import duckdb

from ...errors import WarehouseError

#: What DuckDB raises, and says, where the file is damaged.
_CORRUPT = (duckdb.InternalException, duckdb.SerializationException, duckdb.FatalException)
_SIGNS_OF_DAMAGE = ("not a valid DuckDB database", "Corrupt", "enough bytes", "deserialize")


def translate(error: duckdb.Error, label: str, path: Path, memory_limit: str) -> WarehouseError:
    """DuckDB's error as one line with a remedy."""
    text = " ".join(str(error).split("\n\n")[0].split()).rstrip(".!")
    if isinstance(error, duckdb.OutOfMemoryException) and "disk" not in text.lower():
        remedy = f"raise [warehouse] memory_limit, which is {memory_limit}"
    elif isinstance(error, _CORRUPT) or any(sign in text for sign in _SIGNS_OF_DAMAGE):
        remedy = "name another file in [warehouse] url, or move this one away and load again from the lake"
    elif "version number" in text:
        remedy = f"DuckDB {duckdb.__version__} is older than the file: install a newer one, or name another file"
    elif isinstance(error, duckdb.ConstraintException | duckdb.DependencyException):
        remedy = "drop what you added to the table (a constraint, an index, a view), then run again"
    elif "generated column" in text:
        remedy = "the pipeline fills the columns that it declares: make it a plain one"
    elif "replaying WAL" in text:
        remedy = f"{path}.wal belongs to another database: put that one back, or remove the file"
    elif isinstance(error, duckdb.CatalogException):
        remedy = "rename what has the name of one of the pipeline's tables, or name another file in [warehouse] url"
    elif "No space left" in text or "File too large" in text or "Could not write" in text:
        remedy = "make room on its disk; nothing was changed, so run again afterwards"
    else:
        remedy = "check the path and permissions of the file; nothing was changed"
    return WarehouseError(f"{label}: {text}; {remedy}")


def holder_of(error: duckdb.Error) -> str | None:
    """Who holds the file, if that is what the error says. DuckDB has no class of error for it, only texts."""
    text = str(error)
    if "Could not set lock" in text:
        match = re.search(r"lock is held in (?P<program>.+?) \(PID (?P<pid>\d+)\)", text)
        return f"{os.path.basename(match['program'])} (PID {match['pid']})" if match else "another process"
    if "with a different configuration" in text or "Unique file handle conflict" in text:
        return f"another connection of this process (PID {os.getpid()})"
    return None
