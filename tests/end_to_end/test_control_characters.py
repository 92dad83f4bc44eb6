"""Control characters of a publisher's file: they reach no terminal, log, mail of cron, list of runs or notification."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from ..servers.inbox import Inbox
from ..unit.test_sanitize import EVIL, is_clean
from .conftest import Project

#: On one line, as a value of a file is.
VALUE = EVIL.replace("\r\n", "").replace('"', "")

HEADER = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,passenger_count,trip_distance,"
    f'payment_type,fare_amount,total_amount,"new{VALUE}col"'
)
ROWS = {
    "2020-05": f'"{VALUE}",x,x,x,x,x,x,x,x',
    "2020-06": "2,2020-06-01 00:00:00,2020-06-01 00:10:00,1,1.5,1,7.5,9.3,x",
}


@pytest.fixture
def hostile(project: Project) -> Project:
    folder = project.folder / "published" / "green"
    folder.mkdir(parents=True)
    for month, row in ROWS.items():
        (folder / f"green_tripdata_{month}.csv.gz").write_bytes(gzip.compress(f"{HEADER}\n{row}\n".encode()))
    project.environment = {"PIPELINE_PUBLISHER_NAME": "dtc", "PIPELINE_PUBLISHER_URL": "file:published"}
    return project


def test_run_by_cron(hostile: Project) -> None:
    with Inbox() as inbox:
        hostile.environment["PIPELINE_NOTIFY_URLS"] = inbox.url
        task = ("--dataset", "green", "--start", "2020-05", "--stop", "2020-07")
        done = hostile.run(sys.executable, "-m", "pipeline", "cron", "--log", "cron.log", "RangeMonthly", *task)
        messages = [f"{message['title']}\n{message['message']}" for message in inbox.messages]
    logs = [Path(hostile.folder, "cron.log"), *hostile.folder.glob("workspace/runs/*.log")]
    assert len(logs) == 2
    listed = [hostile.pipeline("runs", "--last", "5").stdout, hostile.pipeline("runs", "--json").stdout]
    texts = [done.stdout, *(path.read_text(errors="surrogateescape") for path in logs), *listed, *messages]
    for text in texts:
        assert "owned" in text and is_clean(text.replace("\n", "")), text
