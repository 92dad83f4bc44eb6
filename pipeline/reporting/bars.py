"""Progress bars on a terminal while a run lasts: one for each stage at work and one for the whole run.

They are drawn from the run's journal, which the worker processes write.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..planning.plan import TO_DO
from ..sanitize import one_line, printable
from . import journal_reader, logs, outcomes
from .console import clock
from .outcomes import AT_WORK, DONE, FAILED

if TYPE_CHECKING:
    from rich.text import Text

#: Seconds between two readings of the journal.
INTERVAL = 0.2

#: Widest bar, and the narrowest one that still says something.
BAR, LEAST_BAR = 24, 6


@dataclass
class Stage:
    """A stage that is at work. ``done`` of ``total`` units only grows; a total of 0 means unknown."""

    began: float
    done: int = 0
    total: int = 0
    text: str = ""
    waiting: str = ""


class BarState:
    """What the bars show, made from a run's events: one line for each stage at work, one for the whole run."""

    def __init__(self) -> None:
        self._reader = outcomes.Reader()
        self._stages: dict[tuple[Any, ...], Stage] = {}
        self._began: float | None = None

    def read(self, event: Mapping[str, Any]) -> None:
        self._reader.read(event)
        with suppress(KeyError, TypeError):  # of another version of the pipeline, or of somebody else
            self._read(event)

    def _read(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "given up":
            self._stages.pop(self._key(event, "family"), None)
        if event["event"] != "stage":
            return
        key, state, at = self._key(event, "stage"), event["state"], event.get("at", 0.0)
        self._began = at if self._began is None else self._began
        if state == "started":
            self._stages[key] = Stage(at)
        elif state in ("running", "waiting"):
            stage = self._stages.setdefault(key, Stage(at))
            stage.waiting = event.get("note", "") if state == "waiting" else ""
            if state == "running":
                self._grow(stage, event)
        else:
            self._stages.pop(key, None)

    @staticmethod
    def _key(event: Mapping[str, Any], name: str) -> tuple[Any, ...]:
        return event.get(name), event.get("dataset"), event.get("month"), event.get("warehouse")

    @staticmethod
    def _grow(stage: Stage, event: Mapping[str, Any]) -> None:
        stage.done, stage.total = max(stage.done, event["done"]), event["total"] or 0
        of = f" of {stage.total:,}" if stage.total else ""
        stage.text = f"{stage.done:,}{of} {event['unit']}{event['note']}"

    def lines(self, width: int, now: float, color: bool = True) -> list[Text]:
        """The bars, each at most ``width`` wide: dataset and month are never cut, the text after the bar is."""
        rows = [
            (
                one_line(" ".join(str(part) for part in key[:3] if part)),
                stage.done,
                stage.total,
                one_line(stage.waiting or stage.text),
                f"{clock(max(0.0, now - stage.began))}",
            )
            for key, stage in self._stages.items()
        ]
        whole = self._whole(now)
        if whole:
            rows.append(whole)
        names = max((len(row[0]) for row in rows), default=0)
        return [_line(row, names, width, color) for row in rows]

    def _whole(self, now: float) -> tuple[str, int, int, str, str] | None:
        outcome = self._reader.outcome(is_alive=True)
        wanted = outcome.having(TO_DO, DONE, FAILED, AT_WORK, outcomes.PARTLY)
        if len(wanted) < 2 and not outcome.waiting:
            return None
        done, failed = len(outcome.having(DONE)), len(outcome.having(FAILED))
        left = len(wanted) - done - failed
        parts = [f"{done:,} of {len(wanted):,} done", *([f"{failed:,} failed"] if failed else []), f"{left:,} left"]
        elapsed = now - self._began if self._began is not None else 0.0
        if done and elapsed > 0:
            parts.append(f"{done * 60 / elapsed:.1f} a minute")
            if left:
                parts.append(f"{clock(left * elapsed / done)} to go")
        text = one_line(outcome.waiting or ", ".join(parts))
        return "all", done + failed, len(wanted), text, clock(max(0.0, elapsed))


def _line(row: tuple[str, int, int, str, str], names: int, width: int, color: bool) -> Text:
    from rich.text import Text

    name, done, total, text, clock = row
    least = names + len(clock) + 3  # with a blank between name, bar, clock and text
    bar = max(LEAST_BAR, min(BAR, (width - least) // 3)) if width - least > LEAST_BAR else 0
    filled = min(bar, bar * done // total) if total else 0
    line = Text(no_wrap=True, overflow="crop")
    line.append(f"{name:{names}} ")
    line.append("━" * filled, "cyan")
    line.append(("━" if color else "─") * (bar - filled), "bright_black")
    line.append(f"{' ' if bar else ''}{clock} ")
    room = width - line.cell_len
    line.append(text if len(text) <= room else f"{text[: max(0, room - 1)]}…" if room > 1 else "")
    return line


class Bars:
    """Shows the bars of the run on stderr, while it is started and stderr is a terminal."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None and sys.stderr is not None and sys.stderr.isatty():
            os.environ[logs.THROUGH_JOURNAL] = "1"
            self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
            os.environ.pop(logs.THROUGH_JOURNAL, None)

    def _show(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live

        console, bars, position = Console(stderr=True, markup=False, emoji=False, highlight=False), BarState(), 0
        color = console.color_system is not None and not console.no_color

        def drawn() -> Group:
            return Group(*bars.lines(console.width - 1, time.time(), color))

        with Live(
            console=console,
            transient=True,
            auto_refresh=False,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        ) as live:
            while True:
                stopping = self._stop.wait(INTERVAL)
                events, position = journal_reader.events(position)
                for event in events:
                    if event["event"] == "log" and event.get("text"):
                        console.print(printable(event["text"], keep="\n\t"), soft_wrap=True)
                    else:
                        bars.read(event)
                live.update(drawn(), refresh=True)
                if stopping:
                    return
