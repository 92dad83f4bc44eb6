"""All cases, in the order of the table."""

from __future__ import annotations

from ..case import Case
from . import clean, idle, imports, load, memory, planning, runs, transfers

CASES: tuple[Case, ...] = (
    *clean.CASES,
    *memory.CASES,
    *load.CASES,
    *runs.CASES,
    *idle.CASES,
    *planning.CASES,
    *imports.CASES,
    *transfers.CASES,
)
