"""Imports where only some of the packages of requirements-dev.txt are installed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

from ..conftest import CHECKOUT


def names(text: str) -> set[str]:
    """The packages that a requirements file names itself."""
    return {_normal(name) for name in re.findall(r"^(\w[\w.-]*)", text, re.M)}


def import_with(packages: Iterable[str], module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Import ``module`` from ``folder``. Of requirements-dev.txt only ``packages`` can be imported."""
    hidden = names((CHECKOUT / "requirements-dev.txt").read_text()) - {_normal(name) for name in packages}
    modules = [name for name, of in packages_distributions().items() if hidden & {_normal(each) for each in of}]
    script = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); import {module}"
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
