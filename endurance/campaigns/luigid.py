"""luigid is killed, stopped or loses its state while runs are at a stage; the runs complete all the same."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Self

from tests.servers.luigid import PATIENT, Luigid

from ..campaign import Campaign, Difference
from ..runs import RANGE, Runs, differences, in_duckdb, publish, some_gate

#: What becomes of the state that luigid had saved when it is killed.
LOSSES = ("kept", "removed", "cut", "empty file", "no tasks", "of another time", "none saved since", "stopped")


class LuigidKills(Campaign):
    name = "luigid"
    what = (
        "SIGKILL and SIGSTOP of luigid and the loss of its state at each stage; runs end with 0, tables as undisturbed"
    )
    slice = 1
    patience = 3600

    def __enter__(self) -> Self:
        self.published = f"file:{publish(self.folder / 'published', 1, 300)}"
        with in_duckdb(self.folder) as places, Runs() as runs:
            runs.start(places, "undisturbed", *RANGE, "--local-scheduler", **self._publisher).end_well()
            self.expected = places.result()
        return self

    @property
    def _publisher(self) -> dict[str, str]:
        return {"PIPELINE_PUBLISHER_NAME": "tlc", "PIPELINE_PUBLISHER_URL": self.published}

    def attempt(self, chance: random.Random, folder: Path) -> str:
        hosts, workers = chance.choice([1, 1, 2]), chance.choice([1, 2, 3])
        losses = [chance.choice(LOSSES) for _ in range(chance.choice([1, 1, 2]))]
        pause = chance.uniform(0, 2)
        with (
            in_duckdb(folder, **self._publisher) as places,
            Luigid(folder / "luigid", disconnect_delay=PATIENT) as luigid,
            Runs() as runs,
        ):
            words = (*RANGE, "--workers", str(workers), *luigid.flags)
            old = folder / "old.pickle"
            if "of another time" in losses:  # luigid knows all as done, and nothing is
                runs.start(places, "before", *words).end_well()
                luigid.stop()
                shutil.copy(luigid.folder / "luigid" / "state.pickle", old)
                for name in ("lake", "workspace"):
                    shutil.rmtree(folder / name)
                (folder / "warehouse.duckdb").unlink()
                old.replace(luigid.folder / "luigid" / "state.pickle")
                shutil.copy(luigid.folder / "luigid" / "state.pickle", old)
                luigid.start()
            gate = some_gate(chance, folder / "gate", ("started", "done", "left"))
            started = [runs.start(places, f"run-{number}", *words, gate=gate) for number in range(hosts)]
            is_hit = started[0].wait_at(gate)
            for loss in losses:
                lose(luigid, loss, old, pause)
            gate.open()
            for run in started:
                run.end_well()
            wrong = differences(places.result(), self.expected)
            left_over = places.left_over(started[-1]) if hosts == 1 else []
        if wrong or left_over:
            raise Difference(wrong or f"left over: {', '.join(left_over)}")
        return f"{len(losses)} times {'in the middle' if is_hit else 'late'}, same"


def lose(luigid: Luigid, loss: str, old: Path, pause: float) -> None:
    """Kill or stop luigid, have its state suffer, and start it again after a pause."""
    state = luigid.folder / "luigid" / "state.pickle"
    if loss == "stopped":
        luigid.send(signal.SIGSTOP)
        time.sleep(pause)
        luigid.send(signal.SIGCONT)
        return
    luigid.stop(signal.SIGTERM if loss == "cut" else signal.SIGKILL)
    match loss:
        case "removed":
            state.unlink(missing_ok=True)
        case "cut":
            state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
        case "empty file":
            state.parent.mkdir(exist_ok=True)
            state.write_bytes(b"")
        case "no tasks":
            state.unlink(missing_ok=True)
            luigid.start()
            luigid.stop()
        case "of another time":
            shutil.copy(old, state)
    time.sleep(pause)
    luigid.start()
