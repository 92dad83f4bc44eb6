"""All cases, in the order of the table."""

from __future__ import annotations

from ..case import Case
from . import clean

CASES: tuple[Case, ...] = (*clean.CASES,)
