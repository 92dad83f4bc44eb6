"""The runner of the campaigns: it repeats, goes on, and never misses a difference."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Self

import pytest

from endurance import __main__ as command
from endurance.campaign import Campaign, Difference

from ..servers.postgres import Unavailable


class Dice(Campaign):
    name = "dice"
    what = "a six must never come up"
    rolled: list[int]

    def attempt(self, chance: random.Random, folder: Path) -> str:
        assert list(folder.iterdir()) == []
        (folder / "rolled").touch()
        rolled = chance.randint(1, 6)
        Dice.rolled.append(rolled)
        if rolled == 6:
            raise Difference("a six")
        return "low" if rolled < 4 else "high"


class Endless(Campaign):
    name = "endless"
    what = "it must end"
    patience = 0.05

    def attempt(self, chance: random.Random, folder: Path) -> str:
        while True:
            pass


class Deaf(Campaign):
    name = "deaf"
    what = "it must end, and takes any error for an answer"
    patience = 0.05

    def attempt(self, chance: random.Random, folder: Path) -> str:
        try:
            while True:
                pass
        except Exception:
            return "refused"


class Elsewhere(Campaign):
    name = "elsewhere"
    what = "it needs a server that is not here"

    def __enter__(self) -> Self:
        raise Unavailable("no such server")

    def attempt(self, chance: random.Random, folder: Path) -> str:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"elsewhere": Elsewhere, "dice": Dice, "endless": Endless, "deaf": Deaf}
    monkeypatch.setattr(command, "all_campaigns", lambda: kinds)
    Dice.rolled = []


def test_a_seed_repeats_all_attempts_and_another_makes_others(tmp_path: Path) -> None:
    assert command.main(["dice", "--count", "50", "--folder", str(tmp_path / "a")]) == 1
    first, Dice.rolled = Dice.rolled, []
    assert command.main(["dice", "--count", "50", "--folder", str(tmp_path / "b")]) == 1
    second, Dice.rolled = Dice.rolled, []
    command.main(["dice", "--count", "50", "--folder", str(tmp_path / "c"), "--seed", "2"])
    assert first == second != Dice.rolled


def test_a_second_call_goes_on_where_the_first_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["dice", "--count", "50", "--folder", str(tmp_path / "whole")])
    whole, Dice.rolled = Dice.rolled, []
    command.main(["dice", "--count", "20", "--folder", str(tmp_path)])
    [record] = tmp_path.glob("dice-seed1-*.jsonl")
    with record.open("a") as file:
        file.write('{"number": 20, "en')
    command.main(["dice", "--count", "50", "--folder", str(tmp_path)])
    assert Dice.rolled == whole
    assert len(record.read_text().splitlines()) == 50
    assert "│ 50 " in capsys.readouterr().out


def test_a_difference_is_told_with_the_way_to_repeat_it_and_its_folder_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["dice", "--count", "50", "--folder", str(tmp_path)])
    six = Dice.rolled.index(6)
    assert f"dice {six}: a six\n  again: python -m endurance dice --seed 1 --only {six}" in capsys.readouterr().out
    kept = {folder.name for folder in tmp_path.glob("dice-*/attempt-*")}
    assert kept == {f"attempt-{number}" for number, rolled in enumerate(Dice.rolled) if rolled == 6}
    with pytest.raises(Difference, match="a six"):
        command.main(["dice", "--only", str(six)])


def test_without_a_difference_the_exit_code_is_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["dice", "--count", "50", "--folder", str(tmp_path / "all")])
    before_a_six = str(Dice.rolled.index(6))
    assert command.main(["dice", "--count", before_a_six, "--folder", str(tmp_path / "none")]) == 0


def test_ctrl_c_shows_what_is_done_and_the_next_call_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, numbers = Dice.attempt, iter(range(100))

    def interrupted(dice: Dice, chance: random.Random, folder: Path) -> str:
        if next(numbers) == 3:
            raise KeyboardInterrupt
        return attempt(dice, chance, folder)

    monkeypatch.setattr(Dice, "attempt", interrupted)
    command.main(["dice", "--count", "10", "--folder", str(tmp_path)])
    assert "stopped; the next call goes on from here" in (said := capsys.readouterr().out) and "│ 3 " in said
    command.main(["dice", "--count", "10", "--folder", str(tmp_path)])
    assert "│ 10 " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["endless", "deaf"])
def test_an_attempt_that_never_ends_is_a_difference(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([name, "--count", "1", "--folder", str(tmp_path)]) == 1
    assert "still at work after 0.05 s" in capsys.readouterr().out


def test_a_campaign_that_lacks_its_server_keeps_no_other_from_its_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["elsewhere", "dice", "--count", "5", "--folder", str(tmp_path)])
    assert "elsewhere: not here: no such server" in capsys.readouterr().out
    assert len(Dice.rolled) == 5


@pytest.mark.parametrize("words", [["dice"], ["nosuch", "--count", "1"], ["--only", "3"]])
def test_a_mistake_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if "error:" in line]) == 1
