"""The outcome of one probe, as `python -m pipeline doctor` prints it; lakes and warehouses both answer with these."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import PipelineError


@dataclass(frozen=True)
class Check:
    """One line of ``doctor``: what was tried, whether it worked, and the remedy if it did not.

    ``is_warning``: what did not work may do harm one day, but does not keep the pipeline from running.
    """

    subject: str
    ok: bool
    detail: str
    remedy: str = ""
    is_warning: bool = False

    @classmethod
    def failed(cls, subject: str, error: PipelineError, remedy: str = "") -> Check:
        """What an error says that begins with the ``subject`` and ends with its remedy, or else has this one."""
        detail, _, said = str(error).removeprefix(f"{subject}: ").partition("; ")
        return cls(subject, False, detail, said or remedy)


def cannot_be_made(folder: Path) -> OSError | None:
    """Why a folder that does not exist cannot be made; None if it can. Nothing is left of the trial."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
    return None
