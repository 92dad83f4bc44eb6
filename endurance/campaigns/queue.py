"""Hostile queue files: an agent reads them and decides; from time to time a real agent executes what is left."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import settings
from pipeline.agents import agent, records, request
from pipeline.agents.effective_settings import effective_settings
from pipeline.agents.queue import Queue
from pipeline.agents.records import AgentRecord, Submission
from pipeline.commands import queue as queue_verb
from pipeline.commands import runs
from pipeline.errors import PipelineError

from ..campaign import Campaign, Difference
from ..runner import CHECKOUT

GOOD = "20990101T000000-good"

#: What a claimed run may have for words, written down a second time: the code under test has its own list.
_MONTH, _NAMES = r"\d{4}-(0[1-9]|1[0-2])", r"(yellow|green|fhv|fhvhv)(,(yellow|green|fhv|fhvhv))*"
ALLOWED = re.compile(
    rf"--(start|stop|month|since)={_MONTH}|--datasets?=({_NAMES}|zones)|--of=(MonthlyTrips|AllTrips)|--reverse"
    rf'|--of-params=\{{"datasets?": "({_NAMES}|zones)"\}}|--task-limit=[1-9]\d{{0,4}}|--publisher-name=sample'
    r"|--clean-rules=[a-z_@0-9,]+"
)
TASKS = {
    *("RangeMonthly", "MonthlyTrips", "AllTrips", "TaxiZones", "Refresh"),
    *("Download", "Clean", "WriteParquet", "Upload", "Load"),
}

#: Words that are right, words that are not, and values that would do harm.
WORDS = [
    *TASKS,
    *("--start", "--stop", "--month", "--since", "--dataset", "--datasets", "--of", "--of-params", "--reverse"),
    *("--task-limit", "--clean-rules", "--publisher-name", "--module", "--modul", "--help", "-h", "--", "-", "@evil"),
    *("--publisher-url", "--warehouse-url", "--warehouse", "--lake-url", "--lake", "--workspace-url", "--notify-urls"),
    *("--scheduler-url", "--logging-conf-file", "--worker-task-process-context", "--local-scheduler", "--workers"),
    *("--core-scheduler-url", "--email-receiver", "--MonthlyTrips-warehouse", "--RangeMonthly-of", "--param-name"),
    *("2020-01", "2020-13", "green", "yellow,fhv", "zones", "none", "sample", "dtc", "true", "5", "", " "),
    *("evil", "evil.Task", "os.system", "MonthlyTrip", "file:/etc", "postgresql://u:p@h/d", "slack://a/b/c", "../../x"),
    *('{"dataset": "green"}', '{"dataset": {"evil": 1}}', '{"datasets": "green,fhv"}', '{"lake": "file:/tmp"}'),
    *("\x00", "\x1b[2J", "a\nb", "\u202e", "\udcff", "x" * 5000),
]

#: Values of any type, for any field.
VALUES: list[Any] = [
    *(None, True, 0, -1, 5, 10**20, 0.5, float("nan"), float("-inf"), "", "x", "../../x", "\x1b[31m", "x" * 20_000),
    *([], [1], ["x"], {}, {"x": 1}, {"x": "y"}, [[]], "9999-12-31T23:59:59+00:00", "0001-01-01", "2026-01-01"),
    *("running", "waiting", "done", "evil", "moon:1"),
]


class Queues(Campaign):
    name = "queue"
    what = "hostile queue files: an agent does what is allowed only, and the good run; each odd file is one line"
    slice = 15
    patience = 600

    def attempt(self, chance: random.Random, folder: Path) -> str:
        victim, workspace = folder / "home", folder / "workspace"
        victim.mkdir()
        (victim / "thesis.txt").write_text("precious")
        (folder / "evil.py").write_text(f"open({str(folder / 'owned')!r}, 'w')")
        with _settings(folder), _heard() as lines:
            here = Queue("q")
            asked = effective_settings(request.read(["TaxiZones"]))
            good = Submission(GOOD, "q", ["TaxiZones"], asked, "me@here", records.now())
            here.submit(good)
            here.register(AgentRecord("moon:1", records.now(), records.now()))
            for _ in range(chance.randint(1, 8)):
                _plant(chance, workspace / "queues" / "q", good, victim)
            if is_real := chance.random() < 0.03:
                _real_agent(folder)
                done = []
            else:
                with _each_said_once(lines):
                    done = _decide(here)
            _verbs(lines)
        if GOOD not in done and not is_real:
            raise Difference("the good run was not done")
        self._compare(folder, victim, lines)
        aside = len(list((workspace / "queues" / "q" / "set-aside").glob("*")))
        who = "real agent" if is_real else "others done too" if len(done) > 1 else "good one done"
        return f"{who}, {min(aside, 3)}{'+' if aside > 3 else ''} set aside"

    @staticmethod
    def _compare(folder: Path, victim: Path, lines: list[str]) -> None:
        if "evil" in sys.modules or (folder / "owned").exists():
            raise Difference("a stranger's module was imported")
        if {path.name: path.read_text() for path in victim.iterdir()} != {"thesis.txt": "precious"}:
            raise Difference("files outside of the workspace were changed")
        if odd := {path.name for path in folder.iterdir()} - {"home", "workspace", "evil.py", *_OWN}:
            raise Difference(f"something was made outside of the workspace: {odd}")
        if odd_lines := [line for line in lines if not line.isprintable()]:
            raise Difference(f"control characters: {odd_lines[0]!r}")


#: What a run of the real agent makes, as its settings say.
_OWN = ("lake", "warehouse.duckdb", "warehouse.duckdb.wal", "warehouse.duckdb.lock")


def _decide(here: Queue) -> list[str]:
    """Claim runs as an agent does until there is none left, and look at the words of each. Returns their ids."""
    ours: Any = agent.Agent("q", 1, None, 0.1, True)
    done = []
    while (claimed := ours._claim()[0]) is not None:
        words = request.read(claimed.submission.command).words
        if words[0] not in TASKS or not all(ALLOWED.fullmatch(word) for word in words[1:]):
            raise Difference(f"this would run: {words}")
        if claimed.submission.meaning != effective_settings(request.read(claimed.submission.command)):
            raise Difference("what was done means something else here")
        done.append(claimed.submission.id)
        ours._settle(claimed, records.DONE, exit_code=0)
        if len(done) > 100:
            raise Difference("it never ends")
    return done


def _verbs(lines: list[str]) -> None:
    """What people look with must neither fail nor show what commands a terminal."""
    listing = {"action": None, "id": None, "queue": None, "last": 100, "failed": False}
    commands = [
        *((runs.run, {**listing, "json": as_json}) for as_json in (False, True)),
        *((queue_verb.run, {"action": "list", "name": None, "json": as_json}) for as_json in (False, True)),
        (runs.run, {**listing, "action": "cancel", "id": "2020", "json": False}),
    ]
    for verb, arguments in commands:
        printed = io.StringIO()
        with (
            _each_said_once(lines),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            contextlib.suppress(PipelineError),
        ):
            verb(argparse.Namespace(**arguments))
        lines += printed.getvalue().splitlines()


@contextlib.contextmanager
def _each_said_once(lines: list[str]) -> Iterator[None]:
    """What is no file of a queue is one line of each command that meets it."""
    before = len(lines)
    yield
    said = Counter(line for line in lines[before:] if " is no submission" in line or " is no record" in line)
    if twice := [line for line, times in said.items() if times > 1]:
        raise Difference(f"said {said[twice[0]]} times: {twice[0]}")


def _real_agent(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "agent", "--queue", "q", "--drain", "--poll", "0.2"]
    path = os.pathsep.join((str(CHECKOUT), str(folder)))
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, text=True, errors="replace", capture_output=True
    )
    output = ended.stdout + ended.stderr
    if ended.returncode or "Traceback" in output:
        raise Difference(f"the agent ended with {ended.returncode}: {output[-500:]}")
    states = {entry.submission.id: entry.submission.state for entry in Queue("q").ended()}
    if states.get(GOOD) != records.DONE:
        raise Difference(f"the good run is {states.get(GOOD)}: {output[-500:]}")


# -- what is planted -------------------------------------------------------------------------------


def _plant(chance: random.Random, folder: Path, good: Submission, victim: Path) -> None:
    """Put one odd thing into the queue."""
    place = chance.choices(["open", "ended", "agents"], [6, 2, 2])[0]
    name = f"20200101T{chance.randrange(10**6):06}-{chance.randrange(16**6):06x}"
    if place == "agents":
        name = f"moon-{chance.randrange(100)}"
    if chance.random() < 0.1:
        name = chance.choice(["x y", "\x1b[2J", "a\\b", "..", "\u202e", "-", "x" * 230, "a\nb", os.fsdecode(b"\xff")])
    path = folder / place / f"{name}{chance.choice(['.json'] * 9 + ['.json~', ''])}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        return
    kind = chance.choices(["words", "field", "bytes", "no file"], [5, 5, 3, 2])[0]
    submission = {**dataclasses.asdict(good), "id": name}
    if place == "agents":
        submission = dataclasses.asdict(AgentRecord(name.replace("-", ":"), records.now(), records.now()))
        kind = "field" if kind == "words" else kind
    if kind == "no file":
        _plant_no_file(chance, path, victim)
        return
    if kind == "words":
        submission["command"] = [chance.choice(WORDS) for _ in range(chance.randint(0, 6))]
        if chance.random() < 0.7:
            submission["command"].insert(0, chance.choice(sorted(TASKS)))
        for number, word in enumerate(submission["command"]):
            if word.startswith("--") and chance.random() < 0.2:
                submission["command"][number] = _misspelt(chance, word)
    elif kind == "field":
        for _ in range(chance.randint(1, 3)):
            submission[chance.choice(sorted(submission))] = chance.choice(VALUES)
    data = json.dumps(submission).encode()
    path.write_bytes(_damaged(chance, data) if kind == "bytes" else data)


def _misspelt(chance: random.Random, flag: str) -> str:
    return chance.choice(
        [
            flag[: chance.randint(2, len(flag))],
            f"{flag}={chance.choice(WORDS)}",
            flag.replace("-", "_"),
            flag.upper(),
            flag[1:],
            f"{flag} evil",
        ]
    )


def _damaged(chance: random.Random, data: bytes) -> bytes:
    match chance.randrange(6):
        case 0:
            return data[: chance.randrange(len(data))]
        case 1:
            changed = bytearray(data)
            for _ in range(chance.randint(1, 20)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            return bytes(changed)
        case 2:
            return b'{"a":' * chance.randint(1, 200_000) + data
        case 3:
            return data.decode().encode(chance.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"]))
        case 4:
            return data + chance.choice([data, b"\x00", b"x", b" " * records.LIMIT])
    return chance.randbytes(chance.randint(0, 2000))


def _plant_no_file(chance: random.Random, path: Path, victim: Path) -> None:
    match chance.randrange(6):
        case 0:
            os.mkfifo(path)
        case 1:
            (path / "20200101T000000-inner.json").mkdir(parents=True)
        case 2:
            path.symlink_to(victim / "thesis.txt")
        case 3:
            path.symlink_to(chance.choice(["/dev/zero", "nowhere", path.name, "/"]))
        case 4:
            path.symlink_to(victim)
        case _:
            path.touch()
            os.truncate(path, chance.choice([2, 8]) << 30)  # zeros, which no disk has to hold


# -- around an attempt -----------------------------------------------------------------------------


@contextlib.contextmanager
def _settings(folder: Path) -> Iterator[None]:
    """Settings of an agent whose places all lie in the folder, and a queue whose silent agents are free at once."""
    mine = {
        "PIPELINE_PUBLISHER_NAME": "sample",
        "PIPELINE_PUBLISHER_URL": "sample:?rows=50&seed=1",
        "PIPELINE_WORKSPACE_URL": f"file:{folder}/workspace",
        "PIPELINE_LAKE_URL": f"file:{folder}/lake",
        "PIPELINE_WAREHOUSE_URL": f"duckdb:///{folder}/warehouse.duckdb",
        "PIPELINE_CLEAN_RULES": "zero_passengers",
    }
    lease = records.LEASE
    with settings.restored():
        settings.take_over(mine)
        records.LEASE = -1.0
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            records.LEASE = lease
            sys.path.remove(str(folder))


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """The lines that are logged meanwhile, as an agent writes them."""
    from pipeline.reporting.logs import OneLine

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(self.format(record).split("\n"))

    lines: list[str] = []
    ear, logger = Ear(), logging.getLogger("pipeline")
    ear.setFormatter(OneLine("%(levelname)s %(message)s"))
    before = logger.propagate, logger.level
    logger.addHandler(ear)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(ear)
        logger.propagate, logger.level = before
