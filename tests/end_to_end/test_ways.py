"""Every way to start the pipeline gives the same: tables, exit codes and messages.

The environments have what requirements.txt brings and not the package, as after ``pip install -r requirements.txt``, or
also the files that setuptools installs.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import os
import shutil
import socket
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path

import duckdb
import luigi
import pytest

from pipeline.publishers.sample import generator

from ..conftest import CHECKOUT
from ..patience import PATIENCE
from .conftest import Project

SITE_PACKAGES = Path(luigi.__file__).parent.parent

THEIRS = """
import luigi, pipeline

class Report(luigi.Task):
    month = luigi.MonthParameter()
    def requires(self):
        return pipeline.MonthlyTrips(dataset="green", month=self.month)
    def output(self):
        return luigi.LocalTarget("report.txt")
    def run(self):
        with self.input().local() as parquet, self.output().open("w") as file:
            file.write(str(parquet))
"""

BUILD = """
import datetime, sys, luigi, pipeline
def build(month):
    month = datetime.date.fromisoformat(month + "-01")
    return luigi.build([pipeline.MonthlyTrips(dataset="green", month=month)], local_scheduler=True)
print("built", [build(month) for month in sys.argv[1:]])
"""

#: Somebody else's luigi.cfg.
CONFIGS = {
    "some of ours": "[retcode]\ntask-failed = 30\n\n[core]\nrpc-retry-attempts = 2\n",
    "unrelated": "[theirs]\nreceiver = someone@example.org\n\n[worker]\ntimeout = 3600\n",
}


def installed_files() -> dict[str, Path]:
    """What setuptools installs according to pyproject.toml, by its place in site-packages."""
    tool = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = {}
    for package in tool["packages"]:
        folder = CHECKOUT / package.replace(".", "/")
        patterns = ["*.py", *tool.get("package-data", {}).get(package, [])]
        for file in folder.rglob("*"):
            inner = str(file.relative_to(folder))
            if file.is_file() and any(
                fnmatch.fnmatch(inner, each) and inner.count("/") == each.count("/") for each in patterns
            ):
                files[str(file.relative_to(CHECKOUT))] = file
    return files


def environment(folder: Path, with_package: bool) -> Path:
    """A virtual environment with the libraries, and without the checkout unless it is installed."""
    venv.create(folder, symlinks=True)
    target = next(folder.glob("lib/python3*/site-packages"))
    for entry in SITE_PACKAGES.iterdir():
        if not entry.name.startswith(("nyc_trips", "__editable__", "pipeline")) and entry.suffix not in (
            ".pth",
            ".pyc",
        ):
            (target / entry.name).symlink_to(entry)
    if with_package:
        for place, file in installed_files().items():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / place)
    script = folder / "bin" / "luigi"
    script.write_text(
        f"#!{folder}/bin/python\nfrom luigi.cmdline import luigi_run\nif __name__ == '__main__':\n    luigi_run()\n"
    )
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("plain") / "v", with_package=False)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("installed") / "v", with_package=True)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Green 2020-01 and 2020-04, a page of HTML in place of 2020-02, and no 2020-03."""
    folder = tmp_path_factory.mktemp("published")
    months = [dt.date(2020, month, 1) for month in (1, 4)]
    generator.publish(folder, "green", months, rows=50, seed=1, layout="tlc")
    (folder / "SYNTHETIC.txt").unlink()  # stands for TLC's own files here
    (folder / "trip-data" / "green_tripdata_2020-02.parquet").write_text("<html>503</html>" * 100)
    return folder


class Way:
    """One way to start a luigi command: by what, in which folder, with which environment."""

    def __init__(self, name: str, plain: Path, installed: Path, folder: Path) -> None:
        self.cwd, self.module, self.base = folder / "started", "pipeline", dict(os.environ)
        self.cwd.mkdir()
        luigi_script = [str(installed / "bin" / "luigi")]
        match name:
            case "checkout":
                self.cwd, luigi_script = CHECKOUT, [str(plain / "bin" / "luigi")]
                self.base["PYTHONPATH"] = "."
            case "python -m luigi":
                self.cwd, luigi_script = CHECKOUT, [str(plain / "bin" / "python"), "-m", "luigi"]
            case "cron":
                self.base = {}
            case "their task":
                (self.cwd / "theirs.py").write_text(THEIRS)
                self.base["PYTHONPATH"] = "."
                self.module = "theirs"
            case "empty folder":
                pass
            case _:
                (self.cwd / "luigi.cfg").write_text(CONFIGS[name])
        self._luigi = luigi_script

    def run(self, settings: Mapping[str, str], month: str) -> subprocess.CompletedProcess[str]:
        task = ["Report"] if self.module == "theirs" else ["MonthlyTrips", "--dataset", "green"]
        return run(
            [*self._luigi, "--module", self.module, *task, "--month", month, "--local-scheduler"],
            self.cwd,
            self.base,
            settings,
        )


def run(
    command: list[str], cwd: Path, environment: Mapping[str, str], settings: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    ours = ("PIPELINE_", "LUIGI_CONFIG")
    clean = {name: value for name, value in environment.items() if not name.startswith(ours)}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**clean, **settings},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
    )


def settings_for(folder: Path, published: Path) -> dict[str, str]:
    return {
        "PIPELINE_PUBLISHER_NAME": "tlc",
        "PIPELINE_PUBLISHER_URL": f"file:{published}",
        "PIPELINE_LAKE_URL": f"file:{folder}/lake",
        "PIPELINE_WORKSPACE_URL": f"file:{folder}/workspace",
        "PIPELINE_WAREHOUSE_URL": f"duckdb:///{folder}/w.duckdb",
        "PIPELINE_CLEAN_RULES": "none",
    }


def loaded(folder: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as connection:
        return connection.sql(
            "SELECT dataset, file_month, row_count, sha256, (SELECT bit_xor(hash(t)) FROM green_trips t)"
            " FROM etl_current WHERE dataset = 'green'"
        ).fetchall()


@pytest.fixture(scope="session")
def expected(published: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """What the month gives when it is loaded from the checkout with everything installed, as the other tests do."""
    folder = tmp_path_factory.mktemp("expected")
    command = [sys.executable, "-m", "luigi", "--module", "pipeline", "MonthlyTrips", "--dataset", "green"]
    done = run(
        [*command, "--month", "2020-01", "--local-scheduler"], CHECKOUT, os.environ, settings_for(folder, published)
    )
    assert done.returncode == 0, done.stdout
    return loaded(folder)


@pytest.mark.parametrize(
    "name", ["checkout", "python -m luigi", "empty folder", "cron", "their task", "some of ours", "unrelated"]
)
def test_same_outcomes_in_every_way(
    name: str, plain: Path, installed: Path, published: Path, expected: list[tuple[object, ...]], tmp_path: Path
) -> None:
    way = Way(name, plain, installed, tmp_path)
    settings = settings_for(tmp_path, published)

    wrong = way.run({**settings, "PIPELINE_CLEAN_RULES": "nonsense"}, "2020-01")
    assert wrong.returncode == 2, wrong.stdout
    assert wrong.stdout.startswith("error: ") and wrong.stdout.count("\n") == 1 and "nonsense" in wrong.stdout
    missing = way.run(settings, "2020-03")
    assert missing.returncode == 20, missing.stdout
    assert "green 2020-03" in missing.stdout and "Traceback" not in missing.stdout
    damaged = way.run(settings, "2020-02")
    assert damaged.returncode == 30, damaged.stdout
    assert "failed" in damaged.stdout and "Traceback" not in damaged.stdout

    good = way.run(settings, "2020-01")
    assert good.returncode == 0, good.stdout
    assert "green     2020-01" in good.stdout and "loaded" in good.stdout
    assert "Unfulfilled" not in good.stdout and "DEBUG" not in good.stdout and "Warning" not in good.stdout
    assert loaded(tmp_path) == expected
    if name == "their task":
        parquet = tmp_path / "lake" / "data" / "green" / "green_tripdata_2020-01.parquet"
        assert (way.cwd / "report.txt").read_text() == str(parquet) and parquet.exists()
    left = {entry.name for entry in way.cwd.iterdir()} - {"luigi.cfg", "theirs.py", "report.txt", "__pycache__"}
    assert way.cwd == CHECKOUT or not left, "nothing is written where the command is started"


def test_same_tables_by_build(
    installed: Path, published: Path, expected: list[tuple[object, ...]], tmp_path: Path
) -> None:
    (tmp_path / "build.py").write_text(BUILD)
    command = [str(installed / "bin" / "python"), "build.py", "2020-02", "2020-03", "2020-01"]
    done = run(command, tmp_path, os.environ, settings_for(tmp_path, published))
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "built [False, False, True]"
    assert "Unfulfilled" not in done.stdout
    assert loaded(tmp_path) == expected


def test_verbs_from_an_empty_folder(installed: Path, published: Path, tmp_path: Path) -> None:
    (tmp_path / "started").mkdir()
    settings = settings_for(tmp_path, published)

    def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(installed / "bin" / "python"), "-m", "pipeline", *arguments]
        return run(command, tmp_path / "started", {}, settings)

    month = ("MonthlyTrips", "--dataset", "green", "--month")
    assert verb("cron", *month, "2020-02").returncode == 30
    assert verb("cron", *month, "2020-03").returncode == 20
    good = verb("cron", *month, "2020-01")
    assert good.returncode == 0, good.stdout
    planned = verb("plan")
    assert planned.returncode == 0 and "2021-01" in planned.stdout, planned.stdout
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    with taken:  # the state and the history are there when the port is asked for
        page = verb("ui", "--port", str(taken.getsockname()[1]))
    assert page.returncode == 2 and "Address already in use" in page.stdout, page.stdout
    assert (tmp_path / "started" / "luigid" / "history.db").exists()


def test_wheel_has_these_files(tmp_path: Path) -> None:
    """Skips where setuptools is not there, or older than pyproject.toml asks for."""
    setuptools = pytest.importorskip("setuptools", minversion="77")
    assert setuptools
    source = tmp_path / "source"
    shutil.copytree(CHECKOUT / "pipeline", source / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "requirements.txt"):
        shutil.copyfile(CHECKOUT / name, source / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = run([sys.executable, "-c", build, str(tmp_path)], source, os.environ, {})
    assert done.returncode == 0, done.stdout
    import zipfile

    wheel = next(tmp_path.glob("nyc_trips_pipeline-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert packed == set(installed_files())


def test_every_file_of_the_package_is_installed() -> None:
    here = {
        str(file.relative_to(CHECKOUT))
        for file in (CHECKOUT / "pipeline").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert here == set(installed_files())


def test_a_task_process_context_of_somebody_else_goes_into_ours(project: Project) -> None:
    """The program's own context surrounds every task, and worker processes still end with their run."""
    (project.folder / "theirs.py").write_text(
        "import threading\n"
        "class Context:\n"
        "    def __init__(self, process): self.task = process.task\n"
        "    def __enter__(self):\n"
        "        threads = {thread.name for thread in threading.enumerate()}\n"
        "        with open('seen', 'a') as seen:\n"
        "            seen.write(f'{self.task.task_family} {\"exit with parent\" in threads}\\n')\n"
        "    def __exit__(self, *error): pass\n"
    )
    (project.folder / "luigi.cfg").write_text("[worker]\ntask_process_context = theirs.Context\n")
    project.environment["LUIGI_CONFIG_PATH"] = "luigi.cfg"
    project.environment["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), str(project.folder)])
    done = project.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-01", "--workers", "2")
    assert done.returncode == 0, done.stdout
    seen = (project.folder / "seen").read_text().splitlines()
    stages = ["Clean", "Download", "Load", "MonthlyTrips", "Upload", "WriteParquet"]
    assert sorted(seen) == [f"{stage} True" for stage in stages]
