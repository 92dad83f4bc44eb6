"""Starts the real commands in forks of a process that has loaded what they load, which saves most of their start.

A fork runs ``luigi`` or ``python -m pipeline`` from the first line, in the folder and environment of the test, and
loads the package ``pipeline`` itself; the package's modules, Luigi and the libraries are there. Where a command could
see that, see ``_is_usual``, only the libraries are. ``TESTS_COLD=1`` starts every command as a program of its own.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import multiprocessing.process
import os
import pkgutil
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
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

#: What commands load sooner or later.
LIBRARIES = (
    *("asyncio", "argparse", "configparser", "concurrent.futures.thread", "http.client", "logging.config", "sqlite3"),
    *("multiprocessing.forkserver", "multiprocessing.synchronize", "tarfile", "urllib.request", "zipfile"),
    *("requests", "tornado.concurrent", "tornado.log", "tornado.web", "tenacity", "dateutil.parser", "filelock"),
    *("isal.igzip_threaded", "psycopg2.extras", "rich.live", "rich.table", "rich.text", "sqlalchemy.orm"),
    *("numpy", "pyarrow", "pyarrow.parquet", "pyarrow.csv", "pyarrow.compute", "pandas", "pyarrow.pandas_compat"),
    *("duckdb", "google.cloud.storage", "google.cloud.bigquery"),
)

#: What the first line of a command loads of Luigi and what the others load later.
LUIGI = (
    *("luigi.configuration", "luigi.cmdline_parser", "luigi.retcodes", "luigi.rpc", "luigi.server"),
    *("luigi.worker", "luigi.tools.range"),
)

#: Variables that a process reads while it runs. Of any other, which the interpreter or a library may have read when it
#: was loaded, a fork has the value of the tests.
READ_LATE = (
    *("PIPELINE_", "LUIGI_", "TESTS_", "PYTHONPATH", "HOME", "PG", "PYTEST_", "TMPDIR"),
    *("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"),
    "DISABLE_GCS_PYTHON_CLIENT",  # set by pipeline.storage.gcs itself
)

CHECKOUT = Path(__file__).resolve().parent.parent

HOOKS = CHECKOUT / "tests" / "end_to_end" / "hooks"


class WarmStart:
    """The process that has loaded all, started at its first use."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._environment = dict(os.environ)

    def can_run(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether a fork does the same as the command, see ``READ_LATE``."""
        if sys.platform != "linux" or os.environ.get("TESTS_COLD"):
            return False
        if command[0] == sys.executable:
            if command[1].startswith("-") and command[1] not in ("-m", "-c"):
                return False
        elif command[0] != str(Path(sys.executable).with_name("luigi")):
            return False
        changed = {name for name, _ in dict(environment).items() ^ self._environment.items()}
        return all(name.startswith(READ_LATE) for name in changed)

    def start(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        output: IO[Any] | None = None,
        is_leader: bool = False,
    ) -> subprocess.Popen[str]:
        """As ``subprocess.Popen``, in a fork if it ``can_run``. Stdout and stderr are one: ``output``, or else a pipe.

        With ``is_leader`` it leads a process group, as a terminal has it.
        """
        if not self.can_run(command, environment):
            return subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0 if is_leader else None,
            )
        end, status = os.pipe()
        read, write = (None, os.dup(output.fileno())) if output else os.pipe()
        with tempfile.TemporaryFile() as request:
            request.write(json.dumps([list(command), str(folder), dict(environment), is_leader]).encode())
            request.flush()
            try:
                socket.send_fds(self._connected(), [b"1"], [request.fileno(), write, status])
            finally:
                os.close(write)
                os.close(status)
        return Fork(command, end, read)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, str(theirs.fileno())],
                    env={
                        name: value
                        for name, value in self._environment.items()
                        if not name.startswith(("PYTHONPATH", "PIPELINE_", "LUIGI_"))
                    },
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
        return self._socket

    def stop(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()


class Fork(subprocess.Popen[str]):
    """A command that is a fork, and not a child of this process."""

    _child_created = False  # for the finalizer of Popen: nobody here has to wait for it

    def __init__(self, command: Sequence[str], status: int, output: int | None) -> None:
        self.args, self.returncode, self.stdin, self.stderr = list(command), None, None, None  # type: ignore[assignment]
        self.stdout = None if output is None else TextIOWrapper(os.fdopen(output, "rb"), write_through=True)
        self._parts: list[bytes] = []
        self._status = os.fdopen(status, "rb", buffering=0)
        self.pid = int(self._status.read(20))

    def poll(self) -> int | None:
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended_within(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        assert input is None
        if self.stdout is not None and not self.stdout.closed:
            while not self._parts or self._parts[-1]:
                if not select.select([self.stdout], [], [], timeout)[0]:  # nothing comes for so long
                    raise subprocess.TimeoutExpired(self.args, timeout or 0, b"".join(self._parts))
                self._parts.append(os.read(self.stdout.fileno(), 1 << 16))
            self.stdout.close()
        self.wait(timeout)
        return b"".join(self._parts).decode(), ""

    def _ended_within(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.read(20))
            self._status.close()
        code: int | None = self.returncode
        return code


#: The one of this process.
WARM = WarmStart()


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float) -> Any:
    """As ``subprocess.run``, with stdout and stderr in one text."""
    process = WARM.start(command, folder, environment)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def _main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # the folder of this file
    before = dict(os.environ)
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    for name in LUIGI:
        importlib.import_module(name)
    _load_modules_of_package()
    added = dict(os.environ.items() - before.items())  # by the libraries
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            connection.close()
            if _is_command(*descriptors, added):
                return
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _load_modules_of_package() -> None:
    """All modules of ``pipeline``, but not the package itself, which has work to do when it is loaded."""
    spec = importlib.util.find_spec("pipeline")  # also where an editable install has a finder of its own
    assert spec is not None and spec.submodule_search_locations
    package = sys.modules["pipeline"] = ModuleType("pipeline")
    package.__path__ = list(spec.submodule_search_locations)
    for module in pkgutil.walk_packages(package.__path__, "pipeline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _is_command(request: int, output: int, status: int, added: dict[str, str]) -> bool:
    """Fork the command; whether this is its process. The other waits for it and tells how it ended."""
    child = os.fork()
    if child:
        os.close(output)
        os.write(status, b"%20d" % child)
        os.write(status, b"%20d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return False
    with os.fdopen(request, "rb") as file:
        file.seek(0)
        command, folder, environment, is_leader = json.loads(file.read())
    if is_leader:
        os.setpgid(0, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 256)
    os.chdir(folder)
    vars(multiprocessing.process).update(ORIGINAL_DIR=folder)
    os.environ.clear()
    os.environ.update({**added, **environment})
    tempfile.tempdir = None
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
    is_program = command[0] == sys.executable and not is_module  # of somebody else
    script = command[1] if is_program else command[0]
    sys.path[:0] = [os.getcwd() if is_module or script == "-c" else str(Path(script).resolve().parent), *paths]
    if is_program or not (_is_usual(paths) and _has_configured_luigi()):
        for name in list(sys.modules):
            if name.partition(".")[0] in ("luigi", "pipeline"):
                del sys.modules[name]
    else:
        sys.modules.pop("luigi.cmdline", None)  # it looks at the command line when it is loaded
        sys.meta_path.insert(0, _Package(sys.modules.pop("pipeline")))
    if any(word == "--workers" and count != "1" for word, count in pairwise(command)):
        _prepare_fork_server(paths)
    _customize(paths)
    if is_module:
        sys.orig_argv = command
        sys.argv = ["-m", *command[3:]]  # as the interpreter has it while it looks for the module
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
        return
    sys.orig_argv = command if is_program else [sys.executable, *command]
    sys.argv = command[is_program:]
    if script == "-c":
        vars(main := ModuleType("__main__")).update(__builtins__=__builtins__)
        sys.modules["__main__"] = main
        sys.argv = ["-c", *command[3:]]
        exec(compile(command[2], "<string>", "exec"), vars(main))
    else:
        runpy.run_path(script, run_name="__main__")


def _customize(paths: list[str]) -> None:
    """What the interpreter does at its start for those that ask for it."""
    if any(Path(path, "sitecustomize.py").exists() for path in paths):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")


def _prepare_fork_server(paths: list[str]) -> None:
    """Fork the process that becomes the fork server of ``multiprocessing`` if the command starts one: it has loaded all
    that, started by the command as a program, it would load.
    """
    from multiprocessing import util

    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    child = os.fork()
    if child == 0:
        ours.close()
        _become_fork_server(theirs, paths)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    start_program = util.spawnv_passfds  # type: ignore[attr-defined]
    waiting = [child]

    def start(path: bytes, arguments: list[str], descriptors: list[int]) -> int:
        if not waiting or "multiprocessing.forkserver" not in arguments[-1]:
            return int(start_program(path, arguments, descriptors))
        mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        with tempfile.TemporaryFile() as request:
            request.write(json.dumps([arguments[-1], descriptors, os.getcwd(), dict(os.environ), mask]).encode())
            request.flush()
            socket.send_fds(ours, [b"1"], [request.fileno(), *descriptors])
        ours.close()
        return waiting.pop()

    util.spawnv_passfds = start  # type: ignore[attr-defined]


def _become_fork_server(connection: socket.socket, paths: list[str]) -> NoReturn:
    """Wait for what ``_prepare_fork_server`` sends, or for the end of the command."""
    try:
        message, received, *_ = socket.recv_fds(connection, 1, 3)
        connection.close()
        if not message:
            os._exit(0)
        request, *high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in received]
        for descriptor in received:
            os.close(descriptor)
        with os.fdopen(request, "rb") as file:
            file.seek(0)
            code, descriptors, folder, environment, mask = json.loads(file.read())
        for descriptor, number in zip(high, descriptors, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["-c"]
        for number in signal.sigpending():  # for the command alone: the fork server would have been started later
            signal.sigwait({number})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _customize(paths)
        exec(code, {"__name__": "__main__"})
    except SystemExit:
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def _is_usual(paths: list[str]) -> bool:
    """Whether modules are where the tests found them, and Luigi's settings in the project's luigi.cfg alone.

    The hooks of a gate change classes of loaded modules too, but for what ``patience`` changes.
    """
    gates = json.loads(os.environ.get("TESTS_GATES", "[]"))
    has_hooks_only = paths in ([], [str(HOOKS)]) and all(gate["patience"] is None for gate in gates)
    is_alone = not any(Path(name).exists() for name in ("pipeline", "luigi", "luigi.cfg", "client.cfg"))
    return (
        has_hooks_only
        and is_alone
        and os.environ.get("LUIGI_CONFIG_PATH") == str(CHECKOUT / "luigi.cfg")
        and "LUIGI_CONFIG_PARSER" not in os.environ
    )


def _has_configured_luigi() -> bool:
    """Let Luigi read its settings as it does when it is loaded; whether it can."""
    from luigi.configuration import LuigiConfigParser

    LuigiConfigParser._instance = None
    LuigiConfigParser._config_paths = ["/etc/luigi/client.cfg", "/etc/luigi/luigi.cfg", "client.cfg", "luigi.cfg"]
    with suppress(Exception):
        LuigiConfigParser.add_config_path(os.environ["LUIGI_CONFIG_PATH"])
        return True
    return False


class _Package:
    """Finds the package ``pipeline``; its modules, and Luigi its tasks, are there from then on."""

    def __init__(self, loaded: ModuleType) -> None:
        from luigi.task_register import Register

        self._known = Register._reg
        self._tasks = [task for task in self._known if task.__module__.startswith(("pipeline.", "luigi.tools."))]
        self._known[:] = [task for task in self._known if task not in self._tasks]
        self._loaded = {name: value for name, value in vars(loaded).items() if isinstance(value, ModuleType)}

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != "pipeline":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)  # runpy looks for it twice
        assert spec and spec.loader
        load = spec.loader.exec_module

        def load_with_modules(module: ModuleType) -> None:
            sys.meta_path.remove(self)
            vars(module).update(self._loaded)
            self._known += self._tasks
            load(module)

        spec.loader.exec_module = load_with_modules  # type: ignore[method-assign]
        return spec


if __name__ == "__main__":
    _main()
    if COMMANDS:
        _run(COMMANDS[0])
