"""Starts the real commands in forks of a process that has loaded the libraries, which saves most of their start.

A fork runs ``luigi`` or ``python -m pipeline`` from the first line, in the folder and environment of the test. Only
libraries are loaded before it, neither Luigi nor the pipeline. ``TESTS_COLD=1`` starts every command as a program of
its own.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

#: What commands load sooner or later.
LIBRARIES = (
    *("asyncio", "argparse", "configparser", "concurrent.futures.thread", "http.client", "logging.config", "sqlite3"),
    *("multiprocessing.forkserver", "multiprocessing.synchronize", "tarfile", "urllib.request", "zipfile"),
    *("requests", "tornado.concurrent", "tornado.log", "tenacity", "dateutil.parser", "filelock"),
    *("isal.igzip_threaded", "psycopg2.extras", "rich.live", "rich.table", "rich.text"),
    *("numpy", "pyarrow", "pyarrow.parquet", "pyarrow.csv", "pyarrow.compute", "pandas", "pyarrow.pandas_compat"),
    *("duckdb", "google.cloud.storage"),
)

#: Variables that a process reads while it runs. Of any other, which the interpreter or a library may have read when it
#: was loaded, a fork has the value of the tests.
READ_LATE = (
    *("PIPELINE_", "LUIGI_", "TESTS_", "PYTHONPATH", "HOME", "PG", "PYTEST_"),
    *("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"),
)


class WarmStart:
    """The process with the libraries, started at its first use."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._environment = dict(os.environ)

    def can_run(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether a fork does the same as the command, see ``READ_LATE``."""
        if sys.platform != "linux" or os.environ.get("TESTS_COLD"):
            return False
        if command[0] != str(Path(sys.executable).with_name("luigi")) and list(command[:2]) != [sys.executable, "-m"]:
            return False
        changed = {name for name, _ in dict(environment).items() ^ self._environment.items()}
        return all(name.startswith(READ_LATE) for name in changed)

    def run(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run``, with stdout and stderr in one text."""
        output, theirs = os.pipe()
        status, its = os.pipe()
        try:
            with tempfile.TemporaryFile() as request:
                request.write(json.dumps([list(command), str(folder), dict(environment)]).encode())
                request.flush()
                try:
                    socket.send_fds(self._connected(), [b"1"], [request.fileno(), theirs, its])
                finally:
                    os.close(theirs)
                    os.close(its)
            text = _read(output, timeout)
            if text is not None and (code := _read(status, timeout)) is not None:
                return subprocess.CompletedProcess(command, int(code.split()[1]), text.decode())
            with suppress(ProcessLookupError, IndexError):
                os.kill(int(os.read(status, 100).split()[0]), signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout, text)
        finally:
            os.close(output)
            os.close(status)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, str(theirs.fileno())],
                    env={name: value for name, value in self._environment.items() if name != "PYTHONPATH"},
                    pass_fds=[theirs.fileno()],
                    stdout=subprocess.DEVNULL,
                )
        return self._socket

    def stop(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()


def _read(descriptor: int, timeout: float) -> bytes | None:
    """All that comes until the end of the pipe; None if nothing comes for so long."""
    parts = []
    while select.select([descriptor], [], [], timeout)[0]:
        parts.append(os.read(descriptor, 1 << 16))
        if not parts[-1]:
            return b"".join(parts)
    return None


def _main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # the folder of this file
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    assert not {"luigi", "pipeline"} & sys.modules.keys()
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            connection.close()
            if _is_command(*descriptors):
                return
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _is_command(request: int, output: int, status: int) -> bool:
    """Fork the command; whether this is its process. The other waits for it and tells how it ended."""
    child = os.fork()
    if child:
        os.close(output)
        os.write(status, b"%d " % child)
        os.write(status, b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return False
    with os.fdopen(request, "rb") as file:
        file.seek(0)
        command, folder, environment = json.loads(file.read())
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 256)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    COMMANDS.append(command)
    return True


#: The command of this process, once it is a fork.
COMMANDS: list[list[str]] = []


def _run(command: list[str]) -> NoReturn:
    """What the interpreter does, but that it does not take the libraries apart in the end."""
    code: Any = None
    try:
        _run_words(command)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored in: {sys.stdout!r}: {error}", file=sys.stderr)
        code = 120
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


def _run_words(command: list[str]) -> None:
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    is_module = command[1] == "-m"
    sys.path[:0] = [os.getcwd() if is_module else str(Path(command[0]).parent), *paths]
    if any(Path(path, "sitecustomize.py").exists() for path in paths):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    if is_module:
        sys.orig_argv = command
        sys.argv = ["-m", *command[3:]]  # as the interpreter has it while it looks for the module
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    else:
        sys.orig_argv = [sys.executable, *command]
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    _main()
    if COMMANDS:
        _run(COMMANDS[0])
