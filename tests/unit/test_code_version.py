"""The digest of the code: another one for other code, the same one wherever and however the same code runs."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import code_version


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the sources."""
    here = Path(code_version.__file__).parent
    shutil.copytree(here, tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__", "facts"))
    return tmp_path / "pipeline"


def sources(package: Path) -> list[tuple[str, bytes]]:
    return sorted(code_version._sources(package, ""))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(code_version.CODE, raising=False)
    yield
    code_version.of_sources.cache_clear()


def test_the_same_code_is_known_in_a_folder_and_in_a_zip_file(package: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "pipeline"), "zip", tmp_path, "pipeline")
    program = "from pipeline import code_version; print(code_version.__file__, code_version.digest())"
    ran = subprocess.run(
        [sys.executable, "-O", "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "pipeline.zip")},
        cwd="/",  # what lies in the current folder comes first
        capture_output=True,
        text=True,
        check=True,
    )
    place, digest = ran.stdout.split()
    assert "pipeline.zip" in place and digest == code_version._digest()


def test_every_change_of_the_code_is_seen(package: Path) -> None:
    before = sources(package)
    assert len(before) > 50 and before == sources(package)
    file = package / "cleaning" / "rules.py"
    file.write_text(f"{file.read_text()}\n")
    assert sources(package) != before


def fresh_digest() -> str:
    code_version.of_sources.cache_clear()
    return code_version._digest.__wrapped__()


def test_another_digest_for_other_code_or_another_library(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_version.importlib.resources, "files", lambda name: package)
    before = fresh_digest()
    file = package / "cleaning" / "rules.py"
    file.write_text(f"{file.read_text()}\n")
    changed = fresh_digest()
    monkeypatch.setattr(code_version, "_version_of", lambda library: "another")
    assert len({before, changed, fresh_digest()}) == 3


def test_byte_code_alone_does_as_well(package: Path) -> None:
    compileall.compile_dir(package, quiet=2, legacy=True)
    for file in package.rglob("*.py"):
        file.unlink()
    before = sources(package)
    assert len(before) > 50
    for file in package.rglob("*.pyc"):
        content = file.read_bytes()
        file.write_bytes(content[:8] + bytes(8) + content[16:])  # another time of the source
    assert sources(package) == before


def test_the_code_that_a_run_began_with_counts_in_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code_version.CODE, "0123456789ab")
    assert code_version.digest() == "0123456789ab"
    monkeypatch.setenv(code_version.CODE, "../../elsewhere")
    assert code_version.digest() == code_version._digest()
    code_version.export_to_environment()
    assert os.environ[code_version.CODE] == code_version._digest()
