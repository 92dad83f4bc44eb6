from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import waiting


class Heard(waiting.Listener):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.in_vain: list[tuple[str, str]] = []

    def waiting(self, text: str) -> None:
        self.texts.append(text)

    def gave_up(self, what: str, whom: str) -> None:
        self.in_vain.append((what, whom))

    def has_given_up(self, what: str, whom: str) -> bool:
        return (what, whom) in self.in_vain


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the test moves: its one item are the seconds."""
    seconds = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_wait_is_said_once_and_its_end_too(clock: list[float]) -> None:
    heard = Heard()
    with waiting.told_to(heard), waiting.Wait(60, "the database") as wait:
        for _ in range(20):
            assert wait.left("python (PID 12)")
            clock[0] += 1
        assert heard.texts == ["waits for python (PID 12), which holds the database, for at most 60 s"]
    assert heard.texts[1:] == [""]


def test_a_short_wait_is_not_said(clock: list[float]) -> None:
    heard = Heard()
    with waiting.told_to(heard), waiting.Wait(60, "it") as wait:
        wait.left("somebody")
        clock[0] += 4
        wait.left("somebody")
    assert not heard.texts


def test_all_waits_of_one_piece_of_work_share_the_limit(clock: list[float]) -> None:
    heard = Heard()
    with waiting.told_to(heard):
        with waiting.Wait(60, "it") as wait:
            wait.left("one")
            clock[0] += 50
        with waiting.Wait(60, "it") as wait:
            assert wait.left("another") == 10
            clock[0] += 11
            assert wait.left("another") == 0
        with waiting.Wait(60, "something else") as wait:
            assert wait.left("one") == 60
    with waiting.told_to(heard), waiting.Wait(60, "it") as wait:
        assert wait.left("one") == 60


def test_whom_a_run_has_waited_for_in_vain_it_only_glances_at(clock: list[float]) -> None:
    heard = Heard()
    for expected in (60, waiting.GLANCE, waiting.GLANCE):
        with waiting.told_to(heard), waiting.Wait(60, "it") as wait:
            assert wait.left("one") == expected
            clock[0] += expected
            assert wait.left("one") == 0
            assert waiting.gave_up("it", "one") is (expected == waiting.GLANCE)
    with waiting.told_to(heard), waiting.Wait(60, "it") as wait:
        assert wait.left("another") == 60


def test_who_waits_for_a_lock_file_learns_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib; from pipeline import waiting\n"
        "with waiting.lock_file(pathlib.Path(sys.argv[1]), waiting.Wait(60, 'it')): print('held', flush=True); input()"
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
        with pytest.raises(waiting.Held, match=who), waiting.Wait(0, "it") as wait, waiting.lock_file(path, wait):
            pass
        other.stdin.write("\n")
    with waiting.lock_file(path, waiting.Wait(0, "it")):
        pass


def test_where_no_file_can_be_made_nobody_is_waited_for() -> None:
    path = Path("/proc/x.duckdb.lock")  # nobody may make a file there, and the system calls it "not found"
    refused = pytest.raises(FileNotFoundError, match="no file can be made there")
    with refused, waiting.Wait(600, "it") as wait, waiting.lock_file(path, wait):
        pass


def test_who_held_a_lock_before_is_not_named_any_more(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"pid": 12, "host": "moon" * 100, "run": "r" * 100}))
    waiting.sign(lock)
    assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_a_text_that_is_not_ours_is_left_in_a_lock_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("marker\n12\n")
    with waiting.lock_file(tmp_path / "lock", waiting.Wait(0, "it")):
        assert (tmp_path / "lock").read_text() == "marker\n12\n"


def test_nothing_is_signed_or_read_through_a_link(tmp_path: Path) -> None:
    """Put there by somebody else after the lock was taken."""
    victim, lock = tmp_path / "victim", tmp_path / "lock"
    victim.touch()
    lock.symlink_to(victim)
    waiting.sign(lock)
    assert victim.read_bytes() == b""
    lock.unlink()
    os.mkfifo(lock)
    waiting.sign(lock)
    assert waiting.holder(lock) == "another run of the pipeline"


@pytest.mark.parametrize("content", [b"[" * 200_000, b"[]", b"\xff", b'{"pid": 1, "pid": 2}', b"5", b'{"host": NaN}'])
def test_lock_file_that_somebody_else_has_filled_names_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    waiting.sign(tmp_path / "lock")
    assert (tmp_path / "lock").read_bytes() == content
    assert waiting.holder(tmp_path / "lock") == "another run of the pipeline"
