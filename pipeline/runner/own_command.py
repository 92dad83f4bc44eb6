"""The command that this process was started with, as a person would type it again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from .. import settings
from ..local_paths import short_path
from ..reporting import journal


def own_command(is_luigi: bool = False) -> list[str]:
    """The command that this process was started with, as a person would write it; empty where there is none."""
    program = Path(sys.argv[0] if sys.argv else "")
    if program.name == "__main__.py" and program.parent.name == "pipeline":
        return ["python", "-m", "pipeline", *sys.argv[1:]]
    if is_luigi:
        return ["luigi", *sys.argv[1:]]
    is_script = program.suffix == ".py" and "ipykernel" not in sys.modules
    return ["python", *sys.argv] if is_script else []


def again(variables: Mapping[str, str], is_luigi: bool = False) -> str:
    """What a person types in this folder to start the same: with the program as it was called, and the settings that
    its environment had. What may be a secret is left out.
    """
    words = own_command(is_luigi)
    if not words:
        return ""
    if words[0] == "luigi":
        words[:1] = _luigi(sys.argv[0])
    else:
        words[0] = _python()
    assignments = (
        f"{name}={shlex.quote(shown)}"
        for name, value in variables.items()
        if name != settings.variable("notify", "urls")
        for shown in journal.without_addresses([f"--{name}={value}"])[0].partition("=")[2:]
    )
    return " ".join([*assignments, shlex.join(journal.without_addresses(words))])


def _luigi(program: str) -> list[str]:
    if Path(program).name == "__main__.py":
        return [_python(), "-m", "luigi"]
    found = shutil.which("luigi")
    if "/" not in program or (found and os.path.exists(program) and os.path.samefile(found, program)):
        return ["luigi"]
    short = short_path(program)
    return [short if "/" in short else f"./{short}"]


def _python() -> str:
    """This Python by the name that PATH finds it by, or else by its path; a link may lead to another environment."""
    here = os.path.dirname(sys.executable)
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and os.path.samefile(found, sys.executable) and os.path.samefile(os.path.dirname(found) or ".", here):
            return name
    return short_path(sys.executable)
