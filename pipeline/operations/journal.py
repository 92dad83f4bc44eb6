"""What happened in a run: one JSON line per event, in a file per run that all its processes append to.

The run's id is made once and handed to child processes through the environment; it also stands in log, manifest and
ledger. The progress display and the closing table read this file; so can a person.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import settings

RUN_ID = "PIPELINE_RUN_ID"


def run_id() -> str:
    """Id of the run this process belongs to, such as ``20210401T050000-3fa2c1``; made when first asked for."""
    if RUN_ID not in os.environ:
        os.environ[RUN_ID] = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    return os.environ[RUN_ID]


def folder() -> Path:
    """Where the journals are: beside the scratch files, or in the system's temporary folder if those are in a cloud."""
    url = settings.workspace_url()
    if url.startswith("file:"):
        from ..lake.local import path_of

        return path_of(url) / "runs"
    return Path(tempfile.gettempdir()) / "nyc-trips-runs"


def path() -> Path:
    return folder() / f"{run_id()}.jsonl"


def record(event: str, **details: Any) -> None:
    """Append one event. A journal that cannot be written never harms the run."""
    line = json.dumps({"event": event, "at": time.time(), "pid": os.getpid(), **details}, default=str) + "\n"
    try:
        target = path()
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())  # one write of one line: lines of several processes never mix
        finally:
            os.close(descriptor)
    except OSError:
        pass


def events(position: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Events written since byte ``position``, and the position after them."""
    try:
        with path().open("rb") as file:
            file.seek(position)
            data = file.read()
    except OSError:
        return [], position
    whole = data[: data.rfind(b"\n") + 1]
    return list(_parsed(whole)), position + len(whole)


def _parsed(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # torn by a full disk
