"""``python -m benchmarks``: runs the cases, prints the table, compares with the committed result."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from . import report
from .case import Bench, Case, Skip
from .cases import CASES
from .contest import CouldNotRun
from .inputs import Inputs
from .machine import machine, versions
from .project import CHECKOUT

RESULTS = Path(__file__).parent / "results"
SCRATCH = CHECKOUT / ".bench"


def main() -> int:
    """Run what the command line asks for. 0, or 1 if a case could not be run."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios to other ways to do the same.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these cases: {', '.join(names)}")
    parser.add_argument("--full", action="store_true", help="with large inputs and slow peers; an hour")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each contestant; the best counts (default: 3)")
    parser.add_argument("--input", type=Path, default=os.environ.get("TRIPS_BENCH_DATA"), metavar="DIR", help=_INPUT)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file too")
    parser.add_argument("--save", action="store_true", help="keep the result as the one to compare with from now on")
    parser.add_argument("--list", action="store_true", help="name the cases and their targets")
    args = parser.parse_args()
    unknown = set(args.names) - set(names)
    if unknown or args.repeat < 1:
        parser.error(f"no case {', '.join(sorted(unknown))}; see --list" if unknown else "--repeat: at least 1")
    if args.list:
        for case in CASES:
            print(f"{case.name:16} {case.what}")
            for target in case.targets:
                print(f"{'':16}   {target}: {target.what}")
        return 0
    document = run([case for case in CASES if not args.names or case.name in args.names], args)
    report.show(document)
    kept = RESULTS / f"{'full' if args.full else 'quick'}.json"
    if args.input is None:
        _compare(kept, document)
    if args.json:
        report.save(document, args.json)
    if args.save:
        whole = report.load(kept) if args.names else None
        report.save({**document, "cases": {**(whole or {}).get("cases", {}), **document["cases"]}}, kept)
    failed = [name for name, case in document["cases"].items() if case.get("failed")]
    if failed:
        print(f"error: could not be run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


_INPUT = "a folder with months of your own for clean-csv and clean-parquet (or TRIPS_BENCH_DATA)"


def run(cases: list[Case], args: argparse.Namespace) -> dict[str, Any]:
    """Run the cases one after the other; the whole result, as it is saved."""
    document: dict[str, Any] = {
        "mode": "full" if args.full else "quick",
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "repeat": args.repeat,
        "machine": machine(),
        "versions": versions(),
        "cases": {},
    }
    folder = SCRATCH / f"runs-{os.getpid()}"
    bench = Bench(Inputs(SCRATCH / "inputs", args.input), folder, args.repeat, args.full)
    try:
        for case in cases:
            print(f"{case.name}: {case.what}", file=sys.stderr)
            document["cases"][case.name] = run_case(case, bench)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return document


def run_case(case: Case, bench: Bench) -> dict[str, Any]:
    """One case; what cannot be run says why."""
    try:
        return report.judged(case, case.run(bench))
    except Skip as reason:
        print(f"    not run: {reason}", file=sys.stderr)
        return report.skipped(case, str(reason))
    except Exception as error:  # whatever it is, the other cases are run and the table is shown
        text = str(error) if isinstance(error, CouldNotRun) else f"{type(error).__name__}: {error}"
        print(f"    failed: {text}", file=sys.stderr)
        return {**report.skipped(case, text), "failed": True}


def _compare(path: Path, document: dict[str, Any]) -> None:
    old = report.load(path)
    if old is None:
        return
    print(f"Changes since {old['versions']['commit']} of {old['date']}:")
    for line in report.changes(old, document):
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
