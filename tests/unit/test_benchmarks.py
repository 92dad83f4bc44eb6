"""The benchmarks' own arithmetic: what a ratio is, when a target is met, what changed. Nothing is timed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psutil")

from benchmarks import case, report
from benchmarks.case import OURS, Bench, Case, Results
from benchmarks.cases import CASES
from benchmarks.contest import Command, CouldNotRun, Measured, Work, contest
from benchmarks.inputs import Inputs

from ..conftest import CHECKOUT
from . import dev_packages


def results(**seconds: float) -> Results:
    return Results("input", {name: Measured((each, each + 1)) for name, each in seconds.items()})


def test_every_case_has_a_target_and_a_name_of_its_own() -> None:
    assert len({each.name for each in CASES}) == len(CASES)
    assert all(each.targets for each in CASES)
    for each in CASES:
        assert len({target.what for target in each.targets}) == len(each.targets), "compared by what they are about"


def test_best_of_the_repeats_counts() -> None:
    assert Measured((3.0, 1.0, 2.0)).best == 1.0


@pytest.mark.parametrize(("ours", "met"), [(2.0, True), (2.1, False)])
def test_times_faster(ours: float, met: bool) -> None:
    target = case.times_faster_than("peer", 5)
    value = target.value(results(ours=ours, peer=10))
    assert value == pytest.approx(10 / ours)
    assert target.is_met(value) is met


def test_the_fastest_of_the_peers_counts() -> None:
    target = case.times_of_fastest(1.5, "a", "b", "absent")
    assert target.value(results(ours=3, a=4, b=2)) == 1.5
    assert target.is_met(1.5)
    assert not target.is_met(1.51)


def test_seconds_more() -> None:
    assert case.seconds_more_than("help", 1.0).value(results(ours=1.5, help=0.5)) == 1.0


def test_rows_are_compared_where_they_differ() -> None:
    found = Results("", {OURS: Measured((2.0,)), "slow": Measured((5.0,), rows=100)}, rows=1000)
    assert case.times_faster_than("slow", 1).value(found) == pytest.approx(25)


@pytest.mark.parametrize("target", [case.times_faster_than("b", 2), case.times_of_fastest(2, "b")])
def test_a_peer_that_was_left_out_is_not_measured(target: case.Target) -> None:
    judged = report.judged(Case("x", "what", (target,), lambda bench: results()), results(ours=1))
    assert (judged["targets"][0]["value"], judged["targets"][0]["met"]) == (None, None)


def document(value: float | None) -> dict[str, Any]:
    return {"cases": {"x": {"targets": [{"what": "time of DuckDB", "value": value, "unit": "x"}]}}}


def test_changes_of_ratios_are_told_and_noise_is_not() -> None:
    assert list(report.changes(document(2.0), document(1.5))) == ["x, time of DuckDB: 2.00 x -> 1.50 x (-25%)"]
    assert not list(report.changes(document(2.0), document(2.01)))
    assert not list(report.changes(document(None), document(1.0)))
    assert not list(report.changes({"cases": {}}, document(1.0)))


def test_results_survive_being_saved(tmp_path: Path) -> None:
    kept = {"cases": {"x": report.judged(CASES[0], results(ours=1))}}
    report.save(kept, tmp_path / "new" / "quick.json")
    assert report.load(tmp_path / "new" / "quick.json") == kept
    assert report.load(tmp_path / "absent.json") is None


def test_contestants_take_turns_in_empty_folders(tmp_path: Path) -> None:
    script = "import pathlib; assert not pathlib.Path('x').exists(); open('x', 'w'); open({!r}, 'a').write({!r})"
    turns = tmp_path / "turns"
    commands = [
        Command(name, lambda folder, name=name: [sys.executable, "-c", script.format(str(turns), name)], is_slow=slow)
        for name, slow in (("a", False), ("b", False), ("c", True))
    ]
    found = contest(commands, 2, tmp_path / "runs")
    assert turns.read_text() == "abcab"
    assert [len(found[name].seconds) for name in "abc"] == [2, 2, 1]
    assert not list((tmp_path / "runs").iterdir())


def test_work_is_timed_without_its_preparation(tmp_path: Path) -> None:
    (found,) = contest([Work("w", f"{__name__}:slow_preparation")], 1, tmp_path).values()
    assert found.best < HOUR
    assert found.peak_bytes > 40_000_000
    assert found.facts == {"done": True}


HOUR = 3600


def slow_preparation(folder: str) -> Any:
    """Takes an hour, as the clock of its process says afterwards."""
    import time

    clock = time.perf_counter
    time.perf_counter = lambda: clock() + HOUR  # type: ignore[assignment]
    return lambda: {"done": bool(bytes(40_000_000).count(0))}


def test_a_contestant_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CouldNotRun, match=r"bad ended with 3: too bad"):
        contest([Command("bad", lambda folder: ["sh", "-c", "echo too bad; exit 3"])], 1, tmp_path)
    with pytest.raises(CouldNotRun, match="no_such_function"):
        contest([Work("bad", "benchmarks.peers:no_such_function")], 1, tmp_path)


@pytest.mark.slow
def test_inputs_are_made_once(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path)
    first = inputs.months("green", "2020-01", 10, "tlc", count=2)
    assert [file.name for file in first.files] == ["green_tripdata_2020-01.parquet", "green_tripdata_2020-02.parquet"]
    times = [file.stat().st_mtime_ns for file in first.files]
    assert [file.stat().st_mtime_ns for file in inputs.months("green", "2020-01", 10, "tlc", count=2).files] == times
    assert inputs.months("green", "2020-01", 11, "tlc").folder != first.folder


@pytest.mark.slow
def test_own_files_replace_synthetic_ones(tmp_path: Path) -> None:
    own = tmp_path / "own" / "deep"
    own.mkdir(parents=True)
    (own / "green_tripdata_2020-03.csv.gz").write_bytes(b"xx")
    (own / "yellow_tripdata_2020-04.csv.gz").write_bytes(b"x")
    inputs = Inputs(tmp_path / "inputs", own.parent)
    synthetic = Inputs(tmp_path / "inputs").months("yellow", "2021-01", 10, "dtc")
    found = inputs.own_or(synthetic)
    assert (found.dataset, found.rows, found.files[0].read_bytes()) == ("green", None, b"xx")
    with pytest.raises(CouldNotRun, match="no file named like"):
        inputs.own_or(inputs.months("yellow", "2021-01", 10, "tlc"))


def test_the_command_line_lists_cases_and_refuses_unknown_ones() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "benchmarks", *words], capture_output=True, text=True)

    listed = run("--list")
    assert listed.returncode == 0, listed.stderr
    assert all(each.name in listed.stdout for each in CASES)
    refused = run("no-such-case")
    assert (refused.returncode, "no case no-such-case" in refused.stderr) == (2, True)


def test_cases_need_no_package_that_make_bench_does_not_install() -> None:
    installed = dev_packages.names((CHECKOUT / "benchmarks" / "requirements.txt").read_text())
    imported = dev_packages.import_with(installed, "benchmarks.__main__", CHECKOUT)
    assert imported.returncode == 0, imported.stderr


def test_a_case_whose_contestant_fails_does_not_end_the_others(tmp_path: Path) -> None:
    from benchmarks.__main__ import run_case

    def fail(bench: Bench) -> Results:
        raise CouldNotRun("no room")

    def skip(bench: Bench) -> Results:
        raise case.Skip("no psql")

    bench = Bench(Inputs(tmp_path), tmp_path)
    assert run_case(Case("x", "", (), fail), bench)["failed"]
    assert run_case(Case("x", "", (), skip), bench) == {"what": "", "skipped": "no psql", "targets": []}
