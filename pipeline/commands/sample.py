"""``python -m pipeline sample``: make synthetic months in the layout of a publisher."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
from pathlib import Path
from urllib.parse import quote

from ..datasets import MONTHLY
from ..errors import UsageError
from ..partition import months_between, parse_month
from ..publishers.sample.generator import publish
from ..reporting.console import say

HELP = "make synthetic months in a publisher's layout"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default="yellow", help=", ".join(MONTHLY))
    parser.add_argument("--start", required=True, metavar="YYYY-MM", help="first month")
    parser.add_argument("--stop", required=True, metavar="YYYY-MM", help="the month after the last")
    parser.add_argument("--rows", default="100000", help="rows of each month (default: %(default)s)")
    parser.add_argument("--seed", default="1", help="other seeds give other trips (default: %(default)s)")
    parser.add_argument("--layout", default="tlc", help="tlc: Parquet, dtc: csv.gz (default: %(default)s)")
    parser.add_argument("--to", required=True, metavar="DIR", help="folder to write to, as publisher.url takes it")


def run(args: argparse.Namespace) -> int:
    """Write the requested months and print their paths. Raises UsageError for a wrong flag."""
    start, stop = _month(args.start, "--start"), _month(args.stop, "--stop")
    if start >= stop:
        raise UsageError(f"--stop {args.stop}: must be later than --start {args.start}; it is the month after the last")
    rows, seed = _whole_number(args.rows, "--rows"), _whole_number(args.seed, "--seed")
    if not args.to.strip() or args.to.startswith("file:"):
        raise UsageError(f"--to {args.to!r}: not a folder; write its path, such as ./published")
    try:
        paths = publish(
            Path(args.to), args.dataset, months_between(start, stop), rows=rows, seed=seed, layout=args.layout
        )
    except OSError as error:
        raise UsageError(f"--to {args.to}: {error.strerror}; name a folder that can be written") from None
    for path in paths:
        say(f"{path}  {rows:,} synthetic rows, {path.stat().st_size:,} bytes")
    url = shlex.quote("file:" + quote(args.to))
    say(f"Load them with the flags --publisher-name {args.layout} --publisher-url {url}")
    return 0


def _month(text: str, flag: str) -> dt.date:
    try:
        return parse_month(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r}: not a month; write it as 2021-01") from None


def _whole_number(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r}: not a whole number") from None
