"""Loaded by every Python process of a command that has a ``Gate``, see ``tests/end_to_end/gate.py``."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

GATE = json.loads(os.environ["TESTS_GATE"])
FOLDER = Path(GATE["folder"])


class Finder:
    """Changes a module as soon as it is loaded."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self.name, self.change = name, change

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec and spec.loader
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            self.change(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def watch_stages(module: Any) -> None:
    progress = module.StageProgress
    started, running, done = progress.started, progress.__call__, progress.done

    def _started(self: Any) -> None:
        started(self)
        stop(self._about, "started", 1)

    def _running(self: Any, so_far: int, total: int, *more: Any, **named: Any) -> None:
        running(self, so_far, total, *more, **named)
        stop(self._about, "running", so_far / total if total else 0)

    def _done(self: Any, *more: Any) -> None:
        done(self, *more)
        stop(self._about, "done", 1)

    progress.started, progress.__call__, progress.done = _started, _running, _done


def stop(about: dict[str, Any], state: str, share: float) -> None:
    """Wait here until the gate is opened, if this is where it stands."""
    here = {"stage": about["stage"], "state": state, "dataset": about["dataset"]}
    if any(here[name] != GATE[name] for name in here) or share < GATE["share"]:
        return
    if GATE["month"] not in (None, about["month"]):
        return
    (FOLDER / f"{os.getpid()}.stopped").touch()
    while FOLDER.exists() and not (FOLDER / "open").exists():
        time.sleep(0.01)


def watch_ends(module: Any) -> None:
    run = module.Stage.run

    def _run(self: Any) -> None:
        run(self)
        month = f"{self.month:%Y-%m}" if self.month else None
        stop({"stage": self.task_family, "dataset": self.dataset, "month": month}, "left", 1)

    module.Stage.run = _run


def watch_results(module: Any) -> None:
    put = module.Sender.put

    def _put(self: Any, result: Any) -> None:
        """Stops in the middle of what the main process is told; the first process that comes here, to be killed."""
        if GATE["state"] == "telling" and str(result[0]).startswith(f"{GATE['stage']}_{GATE['dataset']}_"):
            with suppress(FileExistsError):
                (FOLDER / "told half").touch(exist_ok=False)
                os.write(self._connection.fileno(), b"\0\0\0")
                stop({"stage": GATE["stage"], "dataset": GATE["dataset"], "month": GATE["month"]}, "telling", 1)
        put(self, result)

    module.Sender.put = _put


def watch_worker(module: Any) -> None:
    phase_out = module.Worker._start_phasing_out

    def _phase_out(self: Any) -> None:
        phase_out(self)
        (FOLDER / "told to stop").touch()

    module.Worker._start_phasing_out = _phase_out


def make_impatient(module: Any) -> None:
    """Wait for servers for seconds only, once the gate is open."""
    for_server, patience = module.for_server, GATE["patience"]
    if patience is not None:
        module.for_server = lambda seconds: min(
            for_server(seconds), patience if (FOLDER / "open").exists() else float("inf")
        )


def make_retries_impatient(module: Any) -> None:
    """The same for a call that had begun when the gate was opened."""
    left, patience = module.Policy.left, GATE["patience"]
    if patience is not None:
        module.Policy.left = lambda policy: 0.0 if (FOLDER / "open").exists() and policy.spent.seconds else left(policy)


sys.meta_path[:0] = [
    Finder("pipeline.remote", make_impatient),
    Finder("pipeline.retry", make_retries_impatient),
    Finder("pipeline.reporting.progress", watch_stages),
    Finder("pipeline.tasks.base", watch_ends),
    Finder("luigi.worker", watch_worker),
    Finder("pipeline.runner.results", watch_results),
]
