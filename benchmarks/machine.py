"""The machine and the library versions that figures were measured with."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from .project import CHECKOUT

PACKAGES = ("luigi", "pyarrow", "pandas", "duckdb", "polars", "dlt", "sqlalchemy", "psycopg2-binary", "isal")
CLOUD_PACKAGES = ("google-cloud-storage", "pgpq")


def machine() -> dict[str, Any]:
    """The machine, and how busy it is now."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Versions of the contestants, and of the commit; with a plus sign where files are changed."""
    found = {}
    for name in (*PACKAGES, *CLOUD_PACKAGES):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"commit": _commit(), **found}


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no", "pipeline") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=True
    ).stdout.strip()
