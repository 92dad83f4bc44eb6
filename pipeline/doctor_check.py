"""The result of one check of ``python -m pipeline doctor``: subject, success or failure, and remedy."""

from __future__ import annotations

from dataclasses import dataclass

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
