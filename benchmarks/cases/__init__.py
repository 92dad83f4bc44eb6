"""All cases, in the order of the table."""

from __future__ import annotations

from ..case import Case
from . import clean, load

CASES: tuple[Case, ...] = (*clean.CASES, *load.CASES)
