"""``python -m pipeline submit``: put a luigi command into a queue, for an agent to execute."""

from __future__ import annotations

import argparse
import contextlib

from luigi.cmdline_parser import CmdlineParser

from ..agents import request
from ..agents.effective_settings import effective_settings
from ..agents.queue import Queue, queue_names
from ..agents.records import Submission, now, user
from ..errors import PipelineError, UsageError
from ..reporting import journal
from ..reporting.console import say
from . import arguments

HELP = "put a luigi command into a queue and return at once"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", **arguments.QUEUE, default="default", help="default: default")
    parser.add_argument("task", nargs=argparse.REMAINDER, help="a task as luigi takes it, with its flags")


def run(args: argparse.Namespace) -> int:
    """Put a luigi command into a queue. A mistake in it is reported now, not by the agent."""
    if not args.task:
        raise UsageError("submit takes a task as luigi does, such as: submit RangeMonthly --start 2021-01")
    asked = request.read(args.task)
    with CmdlineParser.global_instance(["--module", "pipeline", *asked.words]) as parser:
        parser.get_task_obj()
    Queue(args.queue).submit(
        Submission(
            id=journal.run_id(),
            queue=args.queue,
            command=asked.words,
            meaning=effective_settings(asked),
            submitter=user(),
            submitted_at=now("microseconds"),  # the order in the queue, also within one second
        )
    )
    say(f"{journal.run_id()} waits in queue {args.queue}")
    with contextlib.suppress(PipelineError):  # the run is in the queue, even if the agents cannot be listed
        _warn_unless_served(args.queue)
    return 0


def _warn_unless_served(queue: str) -> None:
    serves = {name: any(agent.is_alive for agent in Queue(name).agents()) for name in {queue, *queue_names()}}
    if not serves.pop(queue):
        others = ", ".join(name for name, is_served in sorted(serves.items()) if is_served)
        say(
            f"warning: no agent serves queue {queue} now"
            + (f"; queues with agents: {others}" if others else "")
            + f"; start one with: python -m pipeline agent --queue {queue}",
            error=True,
        )
