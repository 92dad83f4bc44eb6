"""``python -m pipeline ui``: start luigid, the page of all runs and the common scheduler of several hosts."""

from __future__ import annotations

import argparse

from .. import settings
from . import arguments

HELP = "start luigid, the page of all runs and the common scheduler, with history and metrics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=arguments.whole(1, 65535), default=8082, help="default 8082")
    parser.add_argument(
        "--address", type=arguments.text, default="127.0.0.1", help="default 127.0.0.1, because luigid has no password"
    )
    parser.add_argument(
        "--allowed-host",
        type=arguments.host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="another name of luigid besides this machine's own, such as a proxy's; may be repeated",
    )
    parser.add_argument("--folder", type=arguments.text, help="for state and history; default: those of luigi.cfg")
    parser.add_argument(
        "--keep-days",
        type=arguments.number(1, settings.CENTURY),
        default=180.0,
        metavar="DAYS",
        help="days of history to keep; default 180",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until the process is ended."""
    from ..runner import luigid  # with a web server and SQLAlchemy, which no other verb needs

    luigid.serve(args.address, args.port, args.allowed_host, args.folder, args.keep_days)
    return 0
