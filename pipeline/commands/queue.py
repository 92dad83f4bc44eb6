"""``python -m pipeline queue``: list the queues with their runs and agents; pause a queue, or resume it."""

from __future__ import annotations

import argparse
import datetime as dt

from ..agents.queue import Queue, queue_names
from ..agents.records import RUNNING, WAITING, AgentRecord
from ..reporting.console import say, say_json
from . import arguments

HELP = "list the queues with their runs and agents; pause a queue, or resume it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="list", choices=("list", "pause", "resume"), help="default: list")
    parser.add_argument(
        "name",
        nargs="?",
        type=arguments.queue_name,
        help="name of the queue; default: all, or the queue default to pause or resume",
    )
    parser.add_argument("--json", action="store_true", help="list as JSON")


def run(args: argparse.Namespace) -> int:
    """List the queues; or pause one, so that no agent claims a run from it, or resume it. Running runs continue."""
    if args.action == "list":
        return _list_queues(args.name, args.json)
    name = args.name or "default"
    if name not in (known := queue_names()):
        known_ones = f"; queues: {', '.join(known)}" if known else ""
        say(f"warning: queue {name} has no run and no agent{known_ones}", error=True)
    if args.action == "pause":
        Queue(name).pause()
    else:
        Queue(name).resume()
    say(f"queue {name} is {'paused' if args.action == 'pause' else 'open'}")
    return 0


def _list_queues(only: str | None, as_json: bool) -> int:
    """Print each queue with its runs and the agents that serve it."""
    found = []
    listed = [only] if only else queue_names()
    for name in listed:
        queue = Queue(name)
        number, place = queue.aside()
        states = [entry.submission.state for entry in queue.open()]
        waiting, running, agents = states.count(WAITING), states.count(RUNNING), queue.agents()
        if as_json:
            served = [{**vars(agent), "is_alive": agent.is_alive} for agent in agents]
            about = {"queue": name, "paused": queue.is_paused, "waiting": waiting, "running": running}
            found.append({**about, "agents": served, "set_aside": number})
            continue
        say(f"{name}: {'paused, ' if queue.is_paused else ''}{waiting:,} waiting, {running:,} running")
        for agent in agents:
            say(f"    {_described(agent)}")
        if number:
            say(f"    {number:,} file{'' if number == 1 else 's'} set aside in {place}")
        if not any(agent.is_alive for agent in agents):
            say(f"    no agent serves it; start one with: python -m pipeline agent --queue {name}")
    if as_json:
        say_json(found)
    elif not listed:
        say("no queues")
    return 0


def _described(agent: AgentRecord) -> str:
    since = f"{dt.datetime.fromisoformat(agent.since).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    state = f"runs {agent.run}" if agent.run else "idle"
    if not agent.is_alive:
        state = "silent: it was killed, or its host is down"
    return f"agent {agent.name} since {since}, last heard of {agent.silent:,.0f} s ago, {state}"
