"""What a person sees of a run: bars while it lasts if stderr is a terminal, and a table at its end.

Everything shown comes from the run's journal, which the worker processes write.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..plain import one_line, plain
from ..planning.planner import COMPLETE, MISSING, NOT_YET, TO_DO, UNASKED
from . import journal, logs, outcomes, places, streams
from .outcomes import AT_WORK, DONE, FAILED, MonthOutcome, RunOutcome, count

if TYPE_CHECKING:
    from rich.text import Text

#: Seconds between two looks into the journal.
INTERVAL = 0.2

#: Reasons of months that failed which are printed below the table.
REASONS = 20

#: Width of a table that no terminal limits.
WIDTH = 140

#: Width from which a table has room for the reasons of rejects.
ROOM = 120

#: Widest bar, and the narrowest one that still says something.
BAR, LEAST_BAR = 24, 6


class Drawn(str):
    """A line that was drawn here: its control characters are colours of ours."""


def say(text: str = "", error: bool = False, keep: str = "") -> None:
    """Print a line, without control characters other than those of ``keep``.

    Where it cannot be written it is dropped: the work is done, whoever reads of it.
    """
    line = text if isinstance(text, Drawn) else plain(text, keep)
    streams.write_line(line, sys.stderr if error else sys.stdout)


def answer(text: str = "", keep: str = "") -> None:
    """Print a line that a verb was asked for, as ``say`` does. ``python -m pipeline`` notices if it got lost."""
    say(text, keep=keep)


# -- the end of a run ------------------------------------------------------------------------------


def show(outcome: RunOutcome, roots: Iterable[Any], is_told: bool = False) -> None:
    """Print what became of a run. ``is_told`` says that its failure is said elsewhere."""
    if outcome.result in (outcomes.REFUSED, outcomes.PLANNING_FAILED) and is_told:
        return
    for line in summary(outcome, list(roots), is_told):
        say(line)
    if outcome.result == outcomes.STOPPED and not is_told:
        say("told to stop; the same command goes on from here", error=True)


def summary(outcome: RunOutcome, roots: list[Any], is_told: bool = False) -> Iterator[str]:
    """The lines at the end of a run: table, failures, places, and how to go on."""
    is_idle = not outcome.having(DONE, FAILED, AT_WORK, outcomes.PARTLY, outcomes.NOT_DONE)
    if is_idle and outcome.result == COMPLETE:
        yield f"Nothing to do: {told}." if (told := _counts(outcome)) else "Nothing to do."
    elif outcome.touched:
        yield from table(outcome)
    yield from failures(outcome, is_told)
    if outcome.complete_before and not (is_idle and outcome.result == COMPLETE):
        yield f"{count(outcome.complete_before)} complete before this run."
    yield from _places(outcome, roots)
    seconds = None if outcome.start is None else (outcome.end or time.time()) - outcome.start
    took = f", {_clock(seconds)}" if seconds is not None else ""
    log = f"; log {places.short(str(logs.path()))}" if logs.path().exists() else ""
    yield f"Run        {outcome.run or journal.run_id()}{took}{log}"
    again = outcome.again or shlex.join(outcome.command)
    if outcome.result != COMPLETE and again:
        yield f"Again      {again}"


def _counts(outcome: RunOutcome) -> str:
    """``3 months complete, 2 months not yet published``."""
    numbers = {
        state: sum(1 for month in outcome.having(state) if month.month)
        for state in (COMPLETE, NOT_YET, MISSING, UNASKED)
    }
    return ", ".join(f"{count(number)} {state}" for state, number in numbers.items() if number)


def failures(outcome: RunOutcome, is_told: bool = False) -> Iterator[str]:
    """One line for each reason why months failed, and why the run as a whole is not well."""
    failed = outcomes.by_reason(outcome.failures)
    yield from failed[:REASONS]
    if len(failed) > REASONS:
        yield f"... and {len(failed) - REASONS:,} more; the log has them"
    for month in outcome.having(MISSING, UNASKED):
        if month.error:
            yield f"{month.title}: {month.why}"
    if outcome.failure and not is_told:
        yield outcome.failure


def table(outcome: RunOutcome, width: int | None = None) -> Iterator[str]:
    """The table of the months that this run touched or left, with a row of totals if they are several.

    Where there is no room for the reasons of rejects beside each month, they stand below the table.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    width = width or (shutil.get_terminal_size().columns if is_terminal else WIDTH)
    has_room = width >= ROOM
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1) if has_room else (0, 1, 0, 0))
    for name in ("dataset", "month", "rows read", "loaded", "rejected", "seconds", "state"):
        is_number = name in ("rows read", "loaded", "seconds") or (name == "rejected" and not has_room)
        is_whole = is_number or name in ("dataset", "month")
        shown.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_whole)
    months = outcome.touched
    for month in months:
        cells = month.dataset, month.month or "", *_numbers(month, has_room), month.state
        shown.add_row(*map(one_line, cells))
    if len(months) > 1:
        shown.add_section()
        total = MonthOutcome("total", None, rows_read=outcome.total("rows_read"), loaded=outcome.total("loaded"))
        total.rejected, total.seconds = outcome.rejected, sum(month.seconds for month in months)
        shown.add_row("total", _done(months, has_room), *map(one_line, _numbers(total, has_room)), "")
    printed = io.StringIO()
    target = Console(file=printed, force_terminal=is_terminal, width=width, markup=False, emoji=False, highlight=False)
    target.print(shown)
    yield from map(Drawn, printed.getvalue().rstrip("\n").split("\n"))
    if outcome.rejected and not has_room:
        yield f"Rejected: {_reasons(outcome.rejected)}"


def _done(months: Iterable[MonthOutcome], has_room: bool) -> str:
    """``2 months``, or ``1 of 2 months`` if not all of them are done. The zone table is no month."""
    statuses = [month.status for month in months if month.month]
    done = statuses.count(DONE)
    if done == len(statuses):
        return count(done) if done else ""
    return f"{done:,} of {count(len(statuses)) if has_room else len(statuses)}"


def _numbers(month: MonthOutcome, with_reasons: bool) -> tuple[str, str, str, str]:
    rejected = sum(month.rejected.values())
    return (
        "" if month.rows_read is None else f"{month.rows_read:,}",
        "" if month.loaded is None else f"{month.loaded:,}",
        _reasons(month.rejected) if with_reasons else f"{rejected:,}" if rejected else "",
        f"{month.seconds:.1f}" if month.seconds else "",
    )


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in rejected.items())


def _places(outcome: RunOutcome, roots: list[Any]) -> Iterator[str]:
    """Where everything is, and how to look at it."""
    tasks = [root if hasattr(root, "job") else getattr(root, "_first", None) for root in roots]
    ours = [task for task in tasks if hasattr(task, "job")]
    task = next((task for task in ours if hasattr(task, "warehouse")), next(iter(ours), None))
    if task is None:
        return
    if task.job.publisher_object.is_synthetic:
        yield "These rows are synthetic: made on this machine, not TLC's."
    yield f"Lake       {places.shown(task.job.lake)}"
    labels = [label for label in getattr(task, "warehouse", "").split(",") if label]
    for label in labels:
        yield f"Warehouse  {places.shown(label)}"
    for line in places.queries(labels, _to_look_at(outcome)):
        yield f"Query      {line}"


def _to_look_at(outcome: RunOutcome) -> set[str]:
    """The datasets to query: what this run loaded, or else what is there; months rather than the zone table."""
    loaded = [month for month in outcome.months if month.loaded is not None]
    there = outcome.having(COMPLETE, DONE)
    choices = ([month for month in months if month.month] for months in (loaded, there))
    return {month.dataset for month in next(filter(None, choices), loaded or there)}


def _clock(seconds: float) -> str:
    """``0:07``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# -- bars ------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A stage that is at work. ``done`` of ``total`` units only grows; a total of 0 means that nobody knows."""

    began: float
    done: int = 0
    total: int = 0
    text: str = ""
    waiting: str = ""


class Picture:
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
                f"{_clock(max(0.0, now - stage.began))}",
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
                parts.append(f"{_clock(left * elapsed / done)} to go")
        text = one_line(outcome.waiting or ", ".join(parts))
        return "all", done + failed, len(wanted), text, _clock(max(0.0, elapsed))


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
    """Shows the picture of the run on stderr, while it is started and stderr is a terminal."""

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

        console, picture, position = Console(stderr=True, markup=False, emoji=False, highlight=False), Picture(), 0
        color = console.color_system is not None and not console.no_color

        def drawn() -> Group:
            return Group(*picture.lines(console.width - 1, time.time(), color))

        with Live(
            console=console,
            transient=True,
            auto_refresh=False,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        ) as live:
            while True:
                stopping = self._stop.wait(INTERVAL)
                events, position = journal.events(position)
                for event in events:
                    if event["event"] == "log" and event.get("text"):
                        console.print(plain(event["text"], keep="\n\t"), soft_wrap=True)
                    else:
                        picture.read(event)
                live.update(drawn(), refresh=True)
                if stopping:
                    return
