"""The plan of a range: every month, an empty lake, a real luigid.

Quick: the run is stopped once its first task has run. Full: the run goes to its end, over tiny files, with one worker:
what its stages did not take is scheduling, asking what is complete, and Luigi itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.servers.http import HttpServer
from tests.servers.luigid import Luigid

from ..case import OURS, Bench, Case, Results, figure_at_least, figure_at_most
from ..contest import CouldNotRun, Measured, clean_environment
from ..history import all_months, publish_names, range_words
from ..project import luigi, settings

FIRST, SCHEDULING = "until the first task runs", "scheduling in the whole run"
SHOWN = "tasks that the visualiser shows as to come"

#: Seconds after which a run counts as hanging.
PATIENCE = {False: 300.0, True: 7200.0}

#: Rows of the tiny months.
ROWS = 50


def _run(bench: Bench) -> Results:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-planning-")))
        if bench.is_full:
            publisher = {"PIPELINE_PUBLISHER_NAME": "sample", "PIPELINE_PUBLISHER_URL": f"sample:?rows={ROWS}&seed=1"}
        else:
            server = stack.enter_context(HttpServer(publish_names(folder / "published")))
            publisher = {"PIPELINE_PUBLISHER_URL": server.url}
        luigid = stack.enter_context(Luigid(folder / "luigid"))
        words = range_words()
        figures = _measure(folder, luigi(*words, *luigid.flags), settings(folder, publisher), luigid, bench.is_full)
    seconds = Measured((figures[FIRST],))
    months = f"all months, {ROWS} rows each" if bench.is_full else f"{len(all_months())} months"
    return Results(f"{months}, an empty lake", {OURS: seconds}, figures)


def _measure(
    folder: Path, command: list[str], environment: dict[str, str], luigid: Luigid, whole: bool
) -> dict[str, float]:
    """Start the run; wait for its first task, or for its end."""
    with (folder / "output").open("w+b") as output:
        started = time.perf_counter()
        run = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(environment),
            stdout=output,
            stderr=output,
            process_group=0,
        )
        try:
            _wait_for_a_stage(folder, run, started + PATIENCE[whole])
            figures = {FIRST: time.perf_counter() - started}
            states = Counter(task["status"] for task in luigid.tasks())
            figures[SHOWN] = states["PENDING"]
            print(f"    first task after {figures[FIRST]:.1f} s, luigid shows {dict(states)}", file=sys.stderr)
            if whole:
                if run.wait(PATIENCE[whole]):
                    raise CouldNotRun(f"the run ended with {run.returncode}:")
                wall = time.perf_counter() - started
                stages = sum(event["seconds"] for event in _events(folder) if event.get("state") in ("done", "failed"))
                figures |= {SCHEDULING: wall - stages, "seconds of the whole run": wall}
        except (CouldNotRun, subprocess.TimeoutExpired) as error:
            output.seek(0)
            raise CouldNotRun(f"{error} {output.read().decode(errors='replace')[-1500:]}") from error
        finally:
            _stop(run)
    return figures


def _wait_for_a_stage(folder: Path, run: subprocess.Popen[bytes], give_up: float) -> None:
    while not any(event["event"] == "stage" for event in _events(folder)):
        if run.poll() is not None or time.perf_counter() > give_up:
            raise CouldNotRun(f"no task ran; the run ended with {run.poll()}:")
        time.sleep(0.02)


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """What the run's journal says so far."""
    for file in (folder / "workspace" / "runs").glob("*.jsonl"):
        for line in file.read_bytes().splitlines():
            with suppress(ValueError):  # is being written
                yield json.loads(line)


def _stop(run: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, as a terminal sends it to the whole process group; then less politely."""
    for number, patience in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
        if run.poll() is not None:
            return
        os.killpg(run.pid, number)
        with suppress(subprocess.TimeoutExpired):
            run.wait(patience)


CASES = (
    Case(
        "planning",
        "planning all that is missing, with luigid",
        (
            figure_at_most(FIRST, 15, " s"),
            figure_at_most(SCHEDULING, 60, " s"),
            figure_at_least(SHOWN, 584, ""),
        ),
        _run,
    ),
)
