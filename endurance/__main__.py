"""``python -m endurance``: runs campaigns for hours, goes on where it stopped, prints counts and differences."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.servers.postgres import Unavailable

from . import runner
from .campaigns import all_campaigns

FOLDER = runner.CHECKOUT / ".endurance"


def main(words: list[str] | None = None) -> int:
    """Run what the command line asks for. 0, or 1 if any attempt of these campaigns made a difference."""
    campaigns = all_campaigns()
    parser = argparse.ArgumentParser(prog="python -m endurance", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(campaigns)}")
    parser.add_argument("--seed", type=int, default=1, help="another seed attacks in other ways (default: 1)")
    parser.add_argument("--hours", type=float, help="for so long, shared evenly by the campaigns")
    parser.add_argument("--count", type=int, help="attempts of each campaign, those of earlier calls included")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat this attempt, and write nothing down")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the records lie (default: .endurance)")
    parser.add_argument("--list", action="store_true", help="name the campaigns")
    args = parser.parse_args(words)
    if unknown := [name for name in args.names if name not in campaigns]:
        parser.error(f"no campaign {', '.join(unknown)}; there are {', '.join(campaigns)}")
    chosen = {name: kind for name, kind in campaigns.items() if not args.names or name in args.names}
    if args.list:
        for name, kind in campaigns.items():
            print(f"{name:12} {kind.what}")
        return 0
    if args.only is not None:
        if len(chosen) != 1:
            parser.error("--only needs the name of one campaign")
        [kind] = chosen.values()
        with kind(Path(tempfile.mkdtemp(prefix="endurance-"))) as campaign:
            print(f"in {campaign.folder}")
            print(runner.attempt(campaign, args.seed, args.only))
        return 0
    if args.hours is None and args.count is None:
        parser.error("say how long: --hours 4, or --count 1000")
    args.folder.mkdir(parents=True, exist_ok=True)
    commit = runner.commit()
    seconds = None if args.hours is None else args.hours * 3600 / len(chosen)
    records = {}
    try:
        for name, kind in chosen.items():
            print(f"{name}: {kind.what}", flush=True)
            records[name] = record = runner.Record.of(args.folder, name, args.seed, commit)
            with _folder(args.folder, name) as folder:
                try:
                    runner.run(kind(folder), record, args.seed, args.count, seconds)
                except Unavailable as reason:
                    print(f"{name}: not here: {reason}")
    except KeyboardInterrupt:
        print("stopped; the next call goes on from here")
    _show(records, args.seed, commit)
    return 1 if any(record.differences for record in records.values()) else 0


@contextmanager
def _folder(parent: Path, name: str) -> Iterator[Path]:
    """A new one for a campaign. It stays if an attempt has left something to look at."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    try:
        yield folder
    finally:
        if not any(folder.glob("attempt-*")):
            shutil.rmtree(folder, ignore_errors=True)


def _show(records: dict[str, runner.Record], seed: int, commit: str) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    table = Table("campaign", "attempts", "ended", "differences", title=f"commit {commit}, seed {seed}")
    for name, record in records.items():
        ended = "\n".join(f"{end}: {count:,}" for end, count in record.ends.most_common())
        table.add_row(name, f"{record.attempts:,}", ended, f"{len(record.differences):,}")
    console.print(table)
    for name, record in records.items():
        for number, difference in record.differences.items():
            console.print(f"{name} {number}: {difference}")
            console.print(f"  again: python -m endurance {name} --seed {seed} --only {number}")


if __name__ == "__main__":
    raise SystemExit(main())
