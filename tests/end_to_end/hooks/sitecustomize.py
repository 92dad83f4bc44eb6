"""Loaded by every Python process of a command that has a ``Gate``, see ``tests/end_to_end/gate.py``."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

GATES: list[dict[str, Any]] = [
    {**gate, "folder": Path(gate["folder"])} for gate in json.loads(os.environ["TESTS_GATES"])
]


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
    """Wait here until the gate is opened, if this is where one stands."""
    here = {"stage": about["stage"], "state": state, "dataset": about["dataset"]}
    for gate in GATES:
        if any(here[name] != gate[name] for name in here) or share < gate["share"]:
            continue
        if gate["month"] not in (None, about["month"]):
            continue
        folder = gate["folder"]
        (folder / f"{os.getpid()}.stopped").touch()
        while folder.exists() and not is_open(gate):
            time.sleep(0.01)


def is_open(gate: dict[str, Any]) -> bool:
    return bool((gate["folder"] / "open").exists())


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
        for gate in GATES:
            if gate["state"] != "telling" or not str(result[0]).startswith(f"{gate['stage']}_{gate['dataset']}_"):
                continue
            with suppress(FileExistsError):
                (gate["folder"] / "told half").touch(exist_ok=False)
                os.write(self._connection.fileno(), b"\0\0\0")
                stop(gate, "telling", 1)
        put(self, result)

    module.Sender.put = _put


def watch_worker(module: Any) -> None:
    phase_out = module.Worker._start_phasing_out

    def _phase_out(self: Any) -> None:
        phase_out(self)
        for gate in GATES:
            (gate["folder"] / "told to stop").touch()

    module.Worker._start_phasing_out = _phase_out


def patience() -> float:
    """Seconds for which servers are waited for at most, once a gate with a ``patience`` is open."""
    return min((gate["patience"] for gate in GATES if gate["patience"] is not None and is_open(gate)), default=math.inf)


def make_impatient(module: Any) -> None:
    for_server = module.for_server
    module.for_server = lambda seconds: min(for_server(seconds), patience())


def make_retries_impatient(module: Any) -> None:
    """The same for a call that had begun when the gate was opened."""
    left = module.Policy.left
    module.Policy.left = lambda policy: 0.0 if policy.spent.seconds and patience() < math.inf else left(policy)


FINDERS = [
    Finder("pipeline.remote", make_impatient),
    Finder("pipeline.retry", make_retries_impatient),
    Finder("pipeline.reporting.progress", watch_stages),
    Finder("pipeline.tasks.base", watch_ends),
    Finder("luigi.worker", watch_worker),
    Finder("pipeline.runner.results", watch_results),
]
for finder in FINDERS:
    if finder.name in sys.modules:  # in a fork, see ``tests/warm.py``
        finder.change(sys.modules[finder.name])
    else:
        sys.meta_path.insert(0, finder)
