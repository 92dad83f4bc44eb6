"""The command line that messages give people to do a month again: ``forget`` where necessary, then luigi."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from . import luigi_config
from .partition import Partition

#: What has to be forgotten before the next run does a month again: nothing, as it does that anyway; or the month
#: everywhere; or else the month in the warehouse of that name.
NOTHING, EVERYWHERE = "", "*"


def redo_command(partition: Partition, to_forget: Collection[str] = ()) -> str:
    """The command line that forgets a month where it has to be forgotten, and then does it again."""
    if partition.month is None:
        flags, task = f"--dataset {partition.dataset}", "TaxiZones"
    else:
        flags = f"--dataset {partition.dataset} --month {partition.month_text}"
        task = f"MonthlyTrips {flags}"
    where = {*to_forget} - {NOTHING}
    places = [""] if EVERYWHERE in where else [f" --warehouse {shlex.quote(name)}" for name in sorted(where)]
    forget = [f"python -m pipeline forget {flags}{place}" for place in places]
    scheduler = "" if luigi_config.names_luigid() else " --local-scheduler"
    return " && ".join([*forget, f"luigi --module pipeline {task}{scheduler}"])
