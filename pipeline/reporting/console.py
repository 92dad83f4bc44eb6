"""Print lines on stdout and stderr: the one place through which people and programs get text."""

from __future__ import annotations

import json
import sys
from typing import Any

from ..sanitize import printable
from . import streams


class Drawn(str):
    """A line that was drawn here: its control characters are colours of ours."""


def say(text: str = "", error: bool = False, keep: str = "") -> None:
    """Print a line, without control characters other than those of ``keep``.

    A line that cannot be written is dropped; that is no reason for a run to fail.
    """
    line = text if isinstance(text, Drawn) else printable(text, keep)
    streams.write_line(line, sys.stderr if error else sys.stdout)


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, indent=1), keep="\n")


def clock(seconds: float) -> str:
    """``0:07``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
