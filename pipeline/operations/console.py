"""What a person sees of a run: bars while it lasts if stderr is a terminal, and a table at its end.

Everything shown comes from the run's journal, which the worker processes write.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from ..errors import MissingAtPublisher
from ..planning import COMPLETE, MISSING, NOT_YET, TO_DO, UNASKED, Plan
from . import journal, logs

#: Seconds between two looks into the journal.
INTERVAL = 0.2

#: Failed months whose reasons are printed below the table.
REASONS = 20

#: How a month is called that got no further than a stage, without having failed.
STATES = {"Download": "downloaded", "Clean": "cleaned", "WriteParquet": "cleaned", "Upload": "in the lake"}

Key = tuple[str, str | None]


@dataclass
class Outcome:
    """What became of one month in this run."""

    rows_read: int | None = None
    loaded: int | None = None
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    state: str = ""
    reason: str = ""  # why it failed


class report:
    """Context around one run."""

    #: The root task, set when Luigi has built it.
    root: Any = None

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.only_missing = False

    def __enter__(self) -> report:
        if sys.stderr.isatty():
            os.environ[logs.THROUGH_JOURNAL] = "1"
            self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def finished(self, worker: Any) -> None:
        """Print the table, and tell whether the only failures are months that the publisher lacks."""
        import luigi.execution_summary

        self.__exit__()
        events, _ = journal.events()
        tasks = luigi.execution_summary._summary_dict(worker)
        missing = {event["task"] for event in events if event.get("error") == MissingAtPublisher.__name__}
        failed = {task.task_id for task in tasks["failed"]} | {task.task_id for task in tasks["ever_failed"]}
        self.only_missing = bool(failed) and failed <= missing and not tasks["scheduling_error"]
        plan = getattr(self.root, "__dict__", {}).get("plan")
        try:
            if tasks["already_done"] == {self.root} and not self.only_missing:
                print(f"Nothing to do: {describe(plan)}." if plan else "Nothing to do.")
            else:
                _print_table(outcomes(events, plan))
                complete = plan.counts().get(COMPLETE) if plan else None
                if complete:
                    print(f"{complete:,} complete before this run.")
            _print_places(self.root)
            sys.stdout.flush()
        except BrokenPipeError:  # `luigi ... | head`: the work is done, whoever reads of it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # -- bars --------------------------------------------------------------------------------------

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        position = 0
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bars = _Bars(progress)
            while True:
                stopping = self._stop.wait(INTERVAL)
                events, position = journal.events(position)
                for event in events:
                    if event["event"] == "log":
                        progress.console.print(event["text"], markup=False, highlight=False, soft_wrap=True)
                    elif event["event"] == "stage":
                        bars.show(event)
                bars.show_months(getattr(self.root, "__dict__", {}).get("plan"))
                if stopping:
                    return


class _Bars:
    """One bar for each stage that is at work, and one for all months of the plan."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._bars: dict[tuple[Any, ...], Any] = {}
        self._months: Any = None
        self._loaded: set[Key] = set()

    def show(self, event: dict[str, Any]) -> None:
        key = (event["stage"], event["dataset"], event["month"], event["warehouse"])
        if event["state"] in ("done", "failed"):
            if key in self._bars:
                self._progress.remove_task(self._bars.pop(key))
            if event["stage"] == "Load" and event["state"] == "done":
                self._loaded.add((event["dataset"], event["month"]))
            return
        if key not in self._bars:
            name = " ".join(str(part) for part in key[:3] if part)
            self._bars[key] = self._progress.add_task(name, total=None, note="")
        if event["state"] == "running":
            done, total, unit = event["done"], event["total"], event["unit"]
            of = f" of {total:,}" if total else ""
            note = f"{done:,}{of} {unit}{event['note']}"
            self._progress.update(self._bars[key], completed=done, total=total or None, note=note)

    def show_months(self, plan: Plan | None) -> None:
        total = len(plan.months(TO_DO)) if plan else 0
        if not total:
            return
        if self._months is None:
            self._months = self._progress.add_task("all", total=total, note="")
        done = len(self._loaded)
        self._progress.update(self._months, completed=done, note=f"{done} of {total} loaded")


def outcomes(events: list[dict[str, Any]], plan: Plan | None) -> dict[Key, Outcome]:
    """What became of each month that this run touched or could not do, by dataset and month."""
    found: dict[Key, Outcome] = defaultdict(Outcome)
    failures: dict[Key, dict[tuple[str, str | None], dict[str, Any]]] = defaultdict(dict)  # by stage and warehouse
    by_others: set[Key] = set()
    for event in events:
        if event["event"] == "all loaded":
            by_others.add((event["dataset"], event["month"]))  # unless it was this run
        if event["event"] != "stage" or event["state"] not in ("done", "failed"):
            continue
        key, step = (event["dataset"], event["month"]), (event["stage"], event["warehouse"])
        outcome = found[key]
        outcome.seconds += event["seconds"]
        if event["state"] == "failed":
            failures[key][step] = event
            continue
        failures[key].pop(step, None)  # tried again
        if "rows_rejected" in event:
            outcome.rows_read, outcome.rejected = event["rows_read"], event["rows_rejected"]
        if event["stage"] == "Load" and "rows" in event:
            outcome.loaded, outcome.state = event["rows"], "loaded"
        else:
            outcome.state = event.get("outcome") or STATES[event["stage"]]
    for key in by_others:
        if found[key].state in ("", *STATES.values()):
            found[key].state = "loaded by another run"
    for key, steps in failures.items():
        for event in steps.values():
            found[key].state, found[key].reason = f"failed: {event['error']}", event["message"]
    for entry in plan.entries if plan else ():
        key = entry.dataset, f"{entry.month:%Y-%m}" if entry.month else None
        if entry.state in (NOT_YET, MISSING, UNASKED):
            found[key].state = entry.state
        elif entry.state != COMPLETE and not found[key].state:
            found[key].state = "not done"
    return found


def describe(plan: Plan) -> str:
    """``3 months complete, 2 months not yet published``."""
    months = Plan([entry for entry in plan.entries if entry.month])
    return ", ".join(f"{count:,} month{'s' if count > 1 else ''} {state}" for state, count in months.counts().items())


def _print_places(root: Any) -> None:
    """Where everything is, and how to look at it."""
    from ..warehouse import duckdb_path

    task = root if hasattr(root, "job") else getattr(root, "_first", None)
    job = getattr(task, "job", None)
    if job is None:
        return
    if job.publisher_object.is_synthetic:
        print("These rows are synthetic: made on this machine, not TLC's.")
    print(f"Lake       {job.lake}")
    for label in filter(None, getattr(task, "warehouse", "").split(",")):
        print(f"Warehouse  {label}")
        if label.startswith("duckdb:") and os.path.exists(duckdb_path(label)):
            print(f"Query      {_query(label)}")


def _query(label: str) -> str:
    from ..warehouse import duckdb_path

    path, python = (_short(path) for path in (duckdb_path(label), sys.executable))
    return (
        f"""{python} -c "import duckdb; print(duckdb.connect('{path}', read_only=True).sql('FROM trips LIMIT 5'))\""""
    )


def _short(path: str) -> str:
    """Relative to the current directory if it lies below that."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _print_table(found: dict[Key, Outcome]) -> None:
    if not found:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("dataset", "month", "rows read", "loaded", "rejected", "seconds", "state"):
        table.add_column(
            name, justify="right" if name in ("rows read", "loaded", "seconds") else "left", overflow="fold"
        )
    for (dataset, month), outcome in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        table.add_row(
            dataset,
            month or "",
            "" if outcome.rows_read is None else f"{outcome.rows_read:,}",
            "" if outcome.loaded is None else f"{outcome.loaded:,}",
            ", ".join(f"{count:,} {reason}" for reason, count in outcome.rejected.items()),
            f"{outcome.seconds:.1f}" if outcome.seconds else "",
            outcome.state,
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    with console.capture() as shown:
        console.print(table)
    print(shown.get(), end="")
    failed = [(key, outcome.reason) for key, outcome in found.items() if outcome.reason]
    for (dataset, month), reason in failed[:REASONS]:
        title = f"{dataset} {month}" if month else dataset
        print(reason if reason.startswith(title) else f"{title}: {reason}")
    if len(failed) > REASONS:
        print(f"... and {len(failed) - REASONS:,} more; the log has them")
