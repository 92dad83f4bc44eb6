"""The process of one contestant: prepares, does the work once, and reports seconds and peak memory.

    python -m benchmarks.contestant '{"function": "benchmarks.peers:duckdb_csv", "arguments": {...}}' FD

The function prepares (imports, connections, whatever shall not count) and returns the work, a function without
arguments. ``FD`` is the file descriptor to which the line ``started`` and then the report, as JSON, are written.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Run the work that the arguments name."""
    order = json.loads(sys.argv[1])
    module, _, name = order["function"].partition(":")
    work = getattr(importlib.import_module(module), name)(**order["arguments"])
    with os.fdopen(int(sys.argv[2]), "w") as channel:
        print("started", file=channel, flush=True)
        _forget_peak()
        started = time.perf_counter()
        facts = work() or {}
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "peak_bytes": _peak_bytes(), "facts": facts}), file=channel)


def _forget_peak() -> None:
    """Let Linux count the peak from now on; elsewhere the samples taken from outside have to do."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """Peak resident memory of this process, which samples may miss; 0 where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
