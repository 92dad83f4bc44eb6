"""The real ``luigi`` and ``python -m pipeline`` commands in subprocesses, each test in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from .. import warm
from ..conftest import CHECKOUT
from ..patience import PATIENCE
from .gate import Gate


@dataclass
class Project:
    """A folder with the project's luigi.cfg, where commands run as a user would run them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def gate(self, stage: str, state: str, **where: Any) -> Gate:
        """A gate for the commands that are started from now on, see ``Gate``; it stands in the place of the last."""
        gates = self.folder / "gates"
        gate = Gate(gates / str(len(list(gates.glob("*")))), stage, state, **where)
        self.environment |= gate.environment
        return gate

    @property
    def env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        return {**clean, "LUIGI_CONFIG_PATH": str(CHECKOUT / "luigi.cfg"), **self.environment}

    def start(self, command: Sequence[str], group: bool = False) -> subprocess.Popen[str]:
        """Start a command; with ``group`` as the leader of a process group, as a terminal does."""
        return warm.WARM.start(command, self.folder, self.env, is_leader=group)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What a command says and how it ends."""
        done: subprocess.CompletedProcess[str] = warm.run(command, self.folder, self.env, PATIENCE)
        return done

    def luigi_command(self, *arguments: str) -> list[str]:
        return [
            str(Path(sys.executable).parent / "luigi"),
            "--module",
            "pipeline",
            *arguments,
            *([] if "--scheduler-host" in arguments else ["--local-scheduler"]),
        ]

    def luigi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.luigi_command(*arguments))

    def pipeline(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "pipeline", *arguments)

    def query(self, sql: str, warehouse: str = "warehouse.duckdb") -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / warehouse), read_only=True) as connection:
            return connection.sql(sql).fetchall()

    def tables(self, *names: str) -> dict[str, Any]:
        """Everything in the tables, in an order of its own, and what the ledger says is current."""
        found: dict[str, Any] = {}
        for name in names or ("yellow_trips", "green_trips", "taxi_zones"):
            found[name] = self.query(f"SELECT count(*), bit_xor(hash(t)), sum(hash(t) % 1000003) FROM {name} t")
        found["ledger"] = self.query(
            "SELECT dataset, file_month, row_count, rejected_count, sha256, rules FROM etl_current ORDER BY ALL"
        )
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project that makes its own small synthetic months."""
    return Project(
        tmp_path,
        {"PIPELINE_PUBLISHER_NAME": "sample", "PIPELINE_PUBLISHER_URL": "sample:?rows=500&seed=1"},
    )


@pytest.fixture(scope="session")
def green_months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a publisher with small green months 2020-01, 02, 04 and the zones, to be copied."""
    import datetime as dt

    from pipeline.publishers.sample import generator

    published = tmp_path_factory.mktemp("green") / "published"
    months = [dt.date(2020, month, 1) for month in (1, 2, 4)]
    generator.publish(published, "green", months, rows=300, seed=1, layout="tlc")
    (published / "SYNTHETIC.txt").unlink()  # stands for TLC's own files here
    return published


@pytest.fixture
def folder_project(tmp_path: Path, green_months: Path) -> Project:
    """A project whose publisher is the folder ``published``, a copy of ``green_months``."""
    shutil.copytree(green_months, tmp_path / "published")
    return Project(
        tmp_path,
        {
            "PIPELINE_PUBLISHER_NAME": "tlc",
            "PIPELINE_PUBLISHER_URL": "file:published",
            "PIPELINE_CLEAN_RULES": "none",
        },
    )
