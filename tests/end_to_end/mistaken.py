"""Thousands of command lines in one process: each in a fork that is told what a process of its own would find.

    python -m tests.end_to_end.mistaken < cases.jsonl > results.jsonl

A case has the words of the command (``luigi ...`` or ``pipeline ...``), its environment, and its luigi.cfg. The fork
goes through the same functions as the commands do. What would do work, start a process or wait, ends it instead: a
mistake comes to none of these.
"""

from __future__ import annotations

import configparser
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

#: Exit codes of a fork: it came to work, it would have waited, it hung.
ACCEPTED, WAITS, HANGS = 90, 91, 92

#: Seconds after which a fork counts as hanging. No test is about this limit.
LIMIT = 300


@dataclass
class Case:
    """One command line, in an empty folder unless another is given."""

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    config: str | None = None  # luigi.cfg; Latin-1 stands for bytes
    folder: str | None = None


@dataclass
class Result:
    code: int
    output: str


class Forks:
    """The process with the forks, until the ``with`` block ends. ``folder`` is for their folders."""

    def __init__(self, folder: Path) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.mistaken"],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, case: Case) -> Result:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        return Result(**json.loads(self._process.stdout.readline()))


def _main() -> None:
    from luigi.cmdline_parser import CmdlineParser

    import pipeline.__main__
    import pipeline.publishers.sample.generator
    import pipeline.storage.gcs
    import pipeline.storage.local
    import pipeline.warehouse.duckdb.warehouse
    import pipeline.warehouse.postgresql.warehouse
    from pipeline.agents import agent  # noqa: F401 - loaded once, for all forks
    from pipeline.commands import cron  # noqa: F401 - loaded once, for all forks
    from pipeline.runner import luigid  # noqa: F401 - loaded once, for all forks

    pipeline.__main__.parser()
    CmdlineParser._build_parser()  # these two, for all forks: most of what a mistake costs
    CmdlineParser._build_parser("RangeMonthly")
    gc.collect()
    gc.freeze()  # so that a fork copies less
    for line in sys.stdin:
        print(json.dumps(asdict(_forked(Case(**json.loads(line))))), flush=True)


def _forked(case: Case) -> Result:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _become(case, case.folder or folder, output.fileno())
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Result(HANGS if code == -signal.SIGALRM else code, output.read().decode(errors="backslashreplace"))


def _become(case: Case, folder: str, output: int) -> NoReturn:
    """Be the process of a case, and end."""
    code: Any = 1
    try:
        signal.alarm(LIMIT)
        os.chdir(folder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(case.environment)
        _stub()
        code = _command(case)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _command(case: Case) -> Any:
    import luigi.cmdline
    from luigi.configuration import LuigiConfigParser

    import pipeline.__main__
    from pipeline import luigi_config, settings

    program, *words = case.words
    sys.argv = ["luigi", *words] if program == "luigi" else [str(Path(pipeline.__main__.__file__)), *words]
    if case.config is not None:
        Path("luigi.cfg").write_bytes(case.config.encode("latin-1"))
    path = os.environ.get("LUIGI_CONFIG_PATH")
    LuigiConfigParser._instance = None
    LuigiConfigParser._config_paths = [*luigi_config.PLACES, *([path] if path else [])]
    try:
        try:
            luigi_config.check_parser()
            LuigiConfigParser.instance()
            luigi_config.complete(luigi_config.DEFAULTS)
        except (configparser.Error, UnicodeDecodeError, OSError) as error:
            luigi_config._refuse(error)
    except ValueError as error:
        print(f"error: {error}")
        return 2
    settings.apply_environment()
    if program == "luigi":
        return luigi.cmdline.luigi_run(words)
    return pipeline.__main__.main(words)


def _stub() -> None:
    """Replace what would do work, start a process, or wait."""
    import multiprocessing

    import luigi.server

    from pipeline.agents import agent
    from pipeline.publishers.sample import generator
    from pipeline.runner import run

    def end(code: int) -> Any:
        def stub(*args: Any, **kwargs: Any) -> NoReturn:
            sys.stdout.flush()
            os._exit(code)

        return stub

    time.__dict__["sleep"] = end(WAITS)
    run.__dict__["Worker"] = end(ACCEPTED)
    agent.Agent.serve = end(ACCEPTED)  # type: ignore[method-assign]
    luigi.server.run = end(ACCEPTED)
    generator.make_file = end(ACCEPTED)
    subprocess.__dict__["Popen"] = end(ACCEPTED)
    multiprocessing.set_forkserver_preload = lambda modules: None


if __name__ == "__main__":
    _main()
