"""Code and effective settings of a submitted run on this host, compared with those on its submitter's."""

from __future__ import annotations

from .. import code_version, job, settings
from .._version import __version__
from . import request
from .records import Submission
from .request import Request


def code() -> str:
    """The version of the package and a digest of its source files, such as ``0.1.0+3fa2c1d09b7e``."""
    return f"{__version__}+{code_version.of_sources()}"


def effective_settings(asked: Request) -> dict[str, str]:
    """The code on this host, and its settings with the flags of the request in force: the labels, by name."""
    from ..publishers import open_publisher

    own = settings.PublisherSettings()
    return {
        "code": code(),
        "publisher": open_publisher(asked.values.get("publisher-name", own.name), own.url).label,
        "rules": asked.values.get("clean-rules") or job.rules_text(),
        "lake": job.lake_url(),
        "workspace": job.workspace_url(),
        "warehouses": job.warehouse_labels(),
    }


def difference(submission: Submission) -> str:
    """The effective settings that differ between this host and the submitter's; empty if none does.

    Raises UsageError for a command that no agent may execute.
    """
    here = {"code": code()}
    if submission.meaning.get("code") == here["code"]:  # other code may know other flags
        asked = request.read(submission.command)
        # A publisher may be named, so that only who reads from it does the run, but not chosen: it is the agent's own.
        named = asked.values.get("publisher-name", settings.PublisherSettings().name)
        if named != settings.PublisherSettings().name:
            return f"publisher is {named} there and {job.publisher_label()} here"
        here = effective_settings(asked)
    return "; ".join(
        f"{name} is {submission.meaning.get(name, '')[:200] or 'none'} there and {value or 'none'} here"
        for name, value in here.items()
        if submission.meaning.get(name) != value
    )
