"""Safe access to files in folders that others may write to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.safe_files import make_folder, open_regular, permissions, private_folder

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


@pytest.mark.parametrize("flags", [APPEND, os.O_RDWR | os.O_CREAT, os.O_RDONLY])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device"])
def test_only_a_plain_file_is_opened_and_none_is_waited_for(tmp_path: Path, kind: str, flags: int) -> None:
    victim, path = tmp_path / "victim", tmp_path / "cron.log"
    if kind != "dangling link":
        victim.write_text("precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else victim)
    with pytest.raises(OSError) as error:
        os.close(open_regular(path, flags))
    assert error.value.filename == str(path)
    assert victim.read_text() == "precious" if kind != "dangling link" else not victim.exists()


def test_new_file_is_its_owners(tmp_path: Path) -> None:
    os.close(open_regular(tmp_path / "a", APPEND))
    make_folder(tmp_path / "b" / "c", permissions(tmp_path)[1])
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b" / "c").stat().st_mode & 0o777 == 0o700


def test_folder_of_a_group_is_shared_by_the_group(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    of_file, of_folder = permissions(tmp_path)
    os.close(open_regular(tmp_path / "a", APPEND, of_file))
    make_folder(tmp_path / "b", of_folder)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o660
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o770


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o2750, 0o1777])
def test_folder_is_not_a_groups_unless_it_is_said_in_full(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    assert permissions(tmp_path) == permissions(tmp_path / "not there") == (0o600, 0o700)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_private_folder_is_made_once(temporary: Path) -> None:
    assert private_folder("x") == private_folder("x") == temporary / f"x-{os.getuid()}"
    assert private_folder("x").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("link", "is a link"),
        ("dangling", "is a link"),
        ("file", "is no folder"),
        ("open", "can be written to by other users"),
        ("a group's", "can be written to by other users"),
        ("another's", "belongs to another user"),
    ],
)
def test_folder_that_somebody_else_has_made_is_refused(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: str
) -> None:
    path, victim = temporary / f"x-{os.getuid()}", temporary / "home"
    victim.mkdir()
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(temporary / "nowhere")
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod({"open": 0o777, "a group's": 0o770}.get(kind, 0o755))
    if kind == "another's":
        uid = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: uid)
        path.rename(temporary / f"x-{uid}")
    with pytest.raises(UsageError, match=f"{says}; remove it, or set TMPDIR to a folder of your own"):
        private_folder("x")
