"""``python -m pipeline ui``: start luigid, the page of all runs and the common scheduler of several hosts."""

from __future__ import annotations

import argparse


def ui(args: argparse.Namespace) -> int:
    """Serve until somebody ends it."""
    from ..runner import luigid  # with a web server and SQLAlchemy, which no other verb needs

    luigid.serve(args.address, args.port, args.allowed_host, args.folder, args.keep_days)
    return 0
