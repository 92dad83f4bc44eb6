"""Lock files: one holder at a time, which is named to those who wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.lock_files import Held, lock_file, read_holder, write_holder
from pipeline.waiting import Wait


def test_who_waits_for_a_lock_file_learns_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib; from pipeline.lock_files import lock_file; from pipeline.waiting import Wait\n"
        "with lock_file(pathlib.Path(sys.argv[1]), Wait(60, 'it')): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PIPELINE_RUN_ID": "r-1"},
    ) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "held\n"
        who = rf"another run of the pipeline \(PID {other.pid}, run r-1\)"
        with pytest.raises(Held, match=who), Wait(0, "it") as wait, lock_file(path, wait):
            pass
        other.stdin.write("\n")
    with lock_file(path, Wait(0, "it")):
        pass


def test_where_no_file_can_be_made_nobody_is_waited_for() -> None:
    path = Path("/proc/x.duckdb.lock")  # nobody may make a file there, and the system calls it "not found"
    refused = pytest.raises(FileNotFoundError, match="no file can be made there")
    with refused, Wait(600, "it") as wait, lock_file(path, wait):
        pass


def test_who_held_a_lock_before_is_not_named_any_more(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"pid": 12, "host": "moon" * 100, "run": "r" * 100}))
    write_holder(lock)
    assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_a_text_that_is_not_ours_is_left_in_a_lock_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("marker\n12\n")
    with lock_file(tmp_path / "lock", Wait(0, "it")):
        assert (tmp_path / "lock").read_text() == "marker\n12\n"


def test_nothing_is_signed_or_read_through_a_link(tmp_path: Path) -> None:
    """Put there by somebody else after the lock was taken."""
    victim, lock = tmp_path / "victim", tmp_path / "lock"
    victim.touch()
    lock.symlink_to(victim)
    write_holder(lock)
    assert victim.read_bytes() == b""
    lock.unlink()
    os.mkfifo(lock)
    write_holder(lock)
    assert read_holder(lock) == "another run of the pipeline"


@pytest.mark.parametrize("content", [b"[" * 200_000, b"[]", b"\xff", b'{"pid": 1, "pid": 2}', b"5", b'{"host": NaN}'])
def test_lock_file_that_somebody_else_has_filled_names_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    write_holder(tmp_path / "lock")
    assert (tmp_path / "lock").read_bytes() == content
    assert read_holder(tmp_path / "lock") == "another run of the pipeline"
