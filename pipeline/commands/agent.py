"""``python -m pipeline agent``: take submitted runs from a queue and execute them."""

from __future__ import annotations

import argparse

from ..agents.agent import Agent
from . import arguments

HELP = "take submitted runs from a queue and execute them, until told to stop"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", **arguments.QUEUE, default="default", help="default: default")
    parser.add_argument("--workers", **arguments.WORKERS, help="tasks at once; default 1")
    parser.add_argument("--scheduler-url", **arguments.LUIGID)
    parser.add_argument(
        "--poll",
        type=arguments.number(0.1, 3600),
        default=5.0,
        metavar="SECONDS",
        help="between two checks of the queue; default 5",
    )
    parser.add_argument("--drain", action="store_true", help="end when no run is left for this host")


def run(args: argparse.Namespace) -> int:
    """Take runs from a queue until told to stop, or with ``--drain`` until there is none left for this host."""
    return Agent(args.queue, args.workers, args.scheduler_url, args.poll, args.drain).serve()
