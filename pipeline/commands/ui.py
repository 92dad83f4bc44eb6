"""``python -m pipeline ui``: start luigid, the page of all runs and the common scheduler of several hosts."""

from __future__ import annotations

import argparse

from .. import settings
from . import arguments

HELP = "luigid with history and metrics: the page of all runs, and the common scheduler"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=arguments.whole(1, 65535), default=8082, help="default 8082")
    parser.add_argument(
        "--address", type=arguments.text, default="127.0.0.1", help="default 127.0.0.1: luigid knows no passwords"
    )
    parser.add_argument(
        "--allowed-host",
        type=arguments.host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which luigid is reached besides this machine's own, such as a proxy's; may be repeated",
    )
    parser.add_argument("--folder", type=arguments.text, help="for state and history; default: as luigi.cfg has it")
    parser.add_argument(
        "--keep-days",
        type=arguments.number(1, settings.CENTURY),
        default=180.0,
        metavar="DAYS",
        help="age of the history; default 180",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until somebody ends it."""
    from ..runner import luigid  # with a web server and SQLAlchemy, which no other verb needs

    luigid.serve(args.address, args.port, args.allowed_host, args.folder, args.keep_days)
    return 0
