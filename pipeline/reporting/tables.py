"""The printer of tables, for a terminal of any width and for a pipe; all verbs and the end of a run use it.

A pipe gets plain text in lines that are never folded, so that they can be searched. A terminal gets columns that are
folded at its width, but no number is ever cut: where there is no room for the numbers, the lines are longer.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..sanitize import one_line
from .console import Drawn, say

#: Blanks between two columns.
GAP = 2

#: The narrowest column that is folded.
LEAST = 20


@dataclass(frozen=True)
class Column:
    """A column: its name, if the table has a head, and its least width. Long cells are folded if ``is_folded``."""

    name: str = ""
    width: int = 0
    is_number: bool = False
    is_folded: bool = False


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None if it is none."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else None


def show(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that a verb was asked for."""
    for line in lines(columns, rows):
        say(line)


def lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] | None = None,
    *,
    width: int | None = None,
    is_ruled: bool = False,
    is_dense: bool = False,
) -> list[str]:
    """The lines of a table, each as ``console.say`` takes it, in colours if stdout is a terminal that wants them.

    ``total`` is a last row below a line. Columns that have names have a head; with ``is_ruled`` a line below it and
    blanks around the columns, fewer if ``is_dense``. ``width`` is that of the terminal unless it is given.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    shown = [[one_line(cell) for cell in row] for row in (*rows, *([total] if total else []))]
    has_head = any(column.name for column in columns)
    if not shown and not has_head:
        return []
    padding = ((0, 1, 0, 0) if is_dense else (0, 1)) if is_ruled else (0, GAP, 0, 0)
    table = Table(box=box.SIMPLE_HEAD if is_ruled else None, padding=padding, pad_edge=is_ruled, show_header=has_head)
    needed = 2 * is_ruled
    for number, column in enumerate(columns):
        natural = max([column.width, cell_len(column.name), *(cell_len(row[number]) for row in shown)])
        needed += padding[1] + padding[-1] + (min(natural, LEAST) if column.is_folded else natural)
        table.add_column(
            column.name,
            justify="right" if column.is_number else "left",
            min_width=column.width or None,
            no_wrap=not column.is_folded,
            overflow="fold",
        )
    for row in shown:
        if total and row is shown[-1]:
            table.add_section()
        table.add_row(*row)
    has_colors = terminal_width() is not None and not os.environ.get("NO_COLOR")
    limit = max(width or terminal_width() or 1 << 20, needed)
    printed = io.StringIO()
    Console(file=printed, force_terminal=has_colors, width=limit, markup=False, emoji=False, highlight=False).print(
        table
    )
    return [Drawn(line.rstrip()) for line in printed.getvalue().rstrip("\n").split("\n")]
