"""Raw bytes in; rows in the canonical schema and rejects out.

Pure functions on binary streams and Arrow batches, which know nothing of Luigi, settings, paths or clouds:

* ``clean`` streams one file. Its memory is bounded by a block of the file, whatever the size of the month.
* ``header`` maps the names of any era to the canonical columns.
* ``csv_reader`` and ``parquet_reader`` turn a stream into chunks of typed rows and unreadable rows.
* ``values`` is the only place that says what a text or number means in a column.
* ``rules`` are the checks on readable rows that a user can switch on and off.

Every row read leaves as a row written or as a reject; ``clean`` checks the sum before it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .rules import RULES, Rule, Rules

if TYPE_CHECKING:
    from .chunks import REJECTS_SCHEMA, Report
    from .cleaner import FORMATS, Cleaned, clean
    from .parquet_file import read_footer

__all__ = [
    "FORMATS",
    "REJECTS_SCHEMA",
    "RULES",
    "Cleaned",
    "Report",
    "Rule",
    "Rules",
    "clean",
    "read_footer",
]


def __getattr__(name: str) -> Any:
    """What needs Arrow is loaded when it is used: a task's parameters name rules, and should cost nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import chunks, cleaner, parquet_file

    return getattr(next(module for module in (chunks, cleaner, parquet_file) if hasattr(module, name)), name)
