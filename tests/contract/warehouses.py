"""Adapters of the warehouses for the contract suite. A new backend is tested by a new class in ``BACKENDS``.

An adapter says where an empty warehouse is, and looks into it from outside, as its owner would, in SQL.
"""

from __future__ import annotations

import abc
import contextlib
import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest

from pipeline.datasets.schema import Dataset
from pipeline.storage.base import StoredFile
from pipeline.warehouse import LedgerRow, Options, Warehouse, open_warehouse
from tests.contract.children import Loader, loader
from tests.contract.loads import GREEN, BucketFile, LocalFile, file_of, ledger_row
from tests.patience import PATIENCE, wait_for
from tests.servers.bigquery import BigQueryServer
from tests.servers.postgres import PostgresServer

JANUARY, FEBRUARY, MARCH = (dt.date(2021, month, 1) for month in (1, 2, 3))


class _Names(dict[str, str]):
    """The full names of tables, for ``str.format_map``."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __missing__(self, table: str) -> str:
        return f"{self._prefix}{table}"


class Backend(abc.ABC):
    """An empty warehouse at ``url``, and what lies in it as its owner sees it."""

    #: The id in the names of the tests.
    name: ClassVar[str]

    #: Whether rows and ledger row are one transaction. Else a failed load may have replaced the rows, and the ledger
    #: does not call the partition loaded any more.
    is_transactional: ClassVar[bool] = True

    #: Where it is.
    url: str

    #: What a process needs in its environment to reach it.
    environment: dict[str, str]

    #: What stands before the name of a table in ``run``.
    prefix: ClassVar[str] = ""

    #: Assignments to a ledger row that give it a time that Python does not have.
    impossible_times: ClassVar[tuple[str, ...]] = ()

    def __init__(self, files: Path) -> None:
        self.files = files
        self.environment = {}

    # -- what an adapter says ----------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def empty(
        cls, files: Path, folder: Path, request: pytest.FixtureRequest, has_tables: bool = False
    ) -> contextlib.AbstractContextManager[Backend]:
        """A new warehouse without anything in it. ``files`` keeps Parquet files, ``folder`` is the test's own.

        With ``has_tables`` it may have empty tables, where that saves time.
        """

    @abc.abstractmethod
    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as the owner, on a connection of its own. Names in double quotes."""

    @abc.abstractmethod
    def is_empty(self) -> bool:
        """Whether nothing at all has been made."""

    @abc.abstractmethod
    def comments(self, table: str) -> dict[str, str | None]:
        """The comment of each column, in order."""

    @abc.abstractmethod
    def unusable(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """The URL of a warehouse of this kind that cannot be used; it may hold the password ``planted-secret``."""

    def add_column(self, table: str, column: str) -> None:
        """A column of the owner's own: text, null where nothing is put into it."""
        self.run(f"ALTER TABLE {{{table}}} ADD COLUMN {column} VARCHAR")

    def drop_columns(self, table: str, *columns: str) -> None:
        """Make a table as an older version of the pipeline left it."""
        for column in columns:
            self.run(f"ALTER TABLE {{{table}}} DROP COLUMN {column}")

    def drop_view(self, name: str) -> None:
        self.run(f"DROP VIEW {{{name}}}")

    def occupy(self, name: str) -> None:
        """A view of the owner's own with this name: one row, column ``a``."""
        self.run(f"CREATE VIEW {{{name}}} AS SELECT 1 AS a")

    def settle(self) -> None:  # noqa: B027  an embedded warehouse has no server
        """Wait until all has ended that a killed process had begun at a server."""

    def leftovers(self) -> list[str]:
        """Names of tables that are neither declared nor part of a declared one."""
        return []

    def lake_file(self, path: Path) -> StoredFile:
        """A Parquet file as the lake near this warehouse hands it over."""
        return LocalFile(path)

    # -- what the suite uses -----------------------------------------------------------------------

    def open(self, **options: float) -> Warehouse:
        return open_warehouse(self.url, Options(**{"lock_timeout": PATIENCE, "patience": PATIENCE, **options}))  # type: ignore[arg-type]

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a statement; ``{green_trips}`` stands for the table."""
        return self.ask(sql.format_map(_Names(self.prefix)))

    def file(
        self, version: str, month: dt.date | None = JANUARY, rows: int = 30, dataset: Dataset = GREEN
    ) -> StoredFile:
        return self.lake_file(file_of(self.files, version, month, rows, dataset).path)

    def load(
        self,
        version: str,
        month: dt.date | None = JANUARY,
        rows: int = 30,
        dataset: Dataset = GREEN,
        warehouse: Warehouse | None = None,
    ) -> LedgerRow:
        file, row = self.file(version, month, rows, dataset), ledger_row(version, month, rows, dataset)
        return (warehouse or self.open()).load(dataset, file, row)

    def loader(
        self, version: str, month: dt.date | None = JANUARY, rows: int = 30
    ) -> contextlib.AbstractContextManager[Loader]:
        """The same in another process."""
        file, row = self.file(version, month, rows), ledger_row(version, month, rows)
        return loader(self.url, self.environment, GREEN, file, row)

    def content(self, month: dt.date = JANUARY) -> tuple[int, str | None]:
        """How many rows of green the month has, and of which version (see ``file_of``) they are."""
        ((rows, lowest, highest),) = self.run(
            "SELECT count(*), min(fare_amount), max(fare_amount) FROM {green_trips} "
            f"WHERE file_month = DATE '{month}'"
        )
        if not rows:
            return 0, None
        assert highest == lowest + (rows - 1) / 8, "rows of several versions"
        return rows, chr(int(lowest))

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of green and of the zones."""
        tables = {"green_trips": '"PULocationID", file_month', "taxi_zones": '"LocationID"'}
        return {table: self.run(f"SELECT * FROM {{{table}}} ORDER BY {key}") for table, key in tables.items()}


class DuckDBBackend(Backend):
    name = "duckdb"
    impossible_times = ("file_month = '0044-03-15 (BC)'", "loaded_at = '200000-01-01'")

    def __init__(self, files: Path, folder: Path) -> None:
        super().__init__(files)
        self.path = folder / "warehouse.duckdb"
        self.url = f"duckdb:///{self.path}"

    @classmethod
    @contextlib.contextmanager
    def empty(
        cls, files: Path, folder: Path, request: pytest.FixtureRequest, has_tables: bool = False
    ) -> Iterator[DuckDBBackend]:
        made = cls(files, folder)
        if has_tables:
            prepared = files.with_name("prepared.duckdb")
            if not prepared.exists():
                list(open_warehouse(f"duckdb:///{prepared}").check(create=True))
            shutil.copyfile(prepared, made.path)
        yield made

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(duckdb.connect(str(self.path))) as connection:
            return connection.execute(sql).fetchall()

    def is_empty(self) -> bool:
        return not any(self.path.parent.iterdir())

    def comments(self, table: str) -> dict[str, str | None]:
        return dict(
            self.ask(
                f"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = '{table}' ORDER BY column_index"
            )
        )

    def unusable(self, monkeypatch: pytest.MonkeyPatch) -> str:
        self.path.write_text("no database")
        return self.url

    def leftovers(self) -> list[str]:
        return [path.name for path in self.path.parent.iterdir() if path.suffix not in (".duckdb", ".lock")]


def database_with_tables(server: PostgresServer) -> str:
    """Name of a database that has empty tables, to be copied: making them takes longer than most loads of the tests."""
    name = "trips_with_tables"
    if not server.run(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
        server.run(f"CREATE DATABASE {name} OWNER {server.role} ENCODING 'UTF8' TEMPLATE template0")
        open_warehouse(server.url(name)).append(ledger_row("A", JANUARY, 0))
        server.run("DELETE FROM etl_loads", name)
    return name


class PostgreSQLBackend(Backend):
    name = "postgresql"
    impossible_times = ("file_month = '0044-03-15 BC'", "loaded_at = '200000-01-01'")

    def __init__(self, files: Path, server: PostgresServer, database: str) -> None:
        super().__init__(files)
        self.server, self.database = server, database
        self.url = server.url(database)

    @classmethod
    @contextlib.contextmanager
    def empty(
        cls, files: Path, folder: Path, request: pytest.FixtureRequest, has_tables: bool = False
    ) -> Iterator[PostgreSQLBackend]:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.database(template=database_with_tables(server) if has_tables else "template0") as database:
            yield cls(files, server, database)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self.server.run(sql, self.database, admin=False)

    def is_empty(self) -> bool:
        return self.ask("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]

    def comments(self, table: str) -> dict[str, str | None]:
        return dict(
            self.ask(
                "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
                f"WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
            )
        )

    def unusable(self, monkeypatch: pytest.MonkeyPatch) -> str:
        return self.server.url(self.database, password="planted-secret")

    def settle(self) -> None:
        wait_for(lambda: not self.ask("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'pipeline%'"))

    def leftovers(self) -> list[str]:
        found = self.ask(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT "
            "relispartition AND relname NOT IN ('taxi_zones', 'etl_loads')"
        )
        return [name for (name,) in found]


class BigQueryBackend(Backend):
    """The emulator, which runs DuckDB's SQL, with the lake in a bucket."""

    name = "bigquery"
    is_transactional = False
    prefix = '"my-project:trips".'

    def __init__(self, files: Path, server: BigQueryServer) -> None:
        super().__init__(files)
        self.server = server
        self.url = "bigquery://my-project/trips"
        self.environment = {"BIGQUERY_EMULATOR_HOST": server.url}

    @classmethod
    @contextlib.contextmanager
    def empty(
        cls, files: Path, folder: Path, request: pytest.FixtureRequest, has_tables: bool = False
    ) -> Iterator[BigQueryBackend]:
        server: BigQueryServer = request.getfixturevalue("bigquery_server")
        server.objects = files.parent
        yield cls(files, server)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self.server.sql(sql)

    def is_empty(self) -> bool:
        return not self.server.datasets

    def comments(self, table: str) -> dict[str, str | None]:
        return {field["name"]: field["description"] for field in self._schema(table)["fields"]}

    def unusable(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
        return self.url

    def add_column(self, table: str, column: str) -> None:
        super().add_column(table, column)
        self._schema(table)["fields"].append({"name": column, "type": "STRING", "mode": "NULLABLE"})

    def drop_columns(self, table: str, *columns: str) -> None:
        super().drop_columns(table, *columns)
        schema = self._schema(table)
        schema["fields"] = [field for field in schema["fields"] if field["name"] not in columns]

    def drop_view(self, name: str) -> None:
        self.server.delete_table("my-project", "trips", name)

    def occupy(self, name: str) -> None:
        if not self.server.datasets:
            self.server.insert_dataset(
                "my-project", {"datasetReference": {"projectId": "my-project", "datasetId": "trips"}}
            )
        reference = {"projectId": "my-project", "datasetId": "trips", "tableId": name}
        view = {"query": "SELECT 1 AS a", "useLegacySql": False}
        self.server.insert_table("my-project", "trips", {"tableReference": reference, "view": view})

    def settle(self) -> None:
        self.server.settle()

    def lake_file(self, path: Path) -> StoredFile:
        return BucketFile(path)

    def _schema(self, table: str) -> dict[str, Any]:
        schema: dict[str, Any] = self.server.tables["my-project:trips", table]["schema"]
        return schema


BACKENDS: tuple[type[Backend], ...] = (DuckDBBackend, PostgreSQLBackend, BigQueryBackend)
