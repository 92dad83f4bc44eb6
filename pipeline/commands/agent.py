"""``python -m pipeline agent``: take submitted runs from a queue and execute them."""

from __future__ import annotations

import argparse

from ..agents.agent import Agent


def agent(args: argparse.Namespace) -> int:
    """Take runs from a queue until told to stop, or with ``--drain`` until there is none left for this host."""
    return Agent(args.queue, args.workers, args.scheduler_url, args.poll, args.drain).serve()
