"""The text that luigid shows of a task that failed: written from the error, and read back from the text.

The class of an error reaches the scheduler, the journal and other hosts only in this text.
"""

from __future__ import annotations

import json
import re
import signal
import traceback

import luigi

from ..errors import PipelineError, TransientError, text_after

#: The end of an explanation of an error that the same run would meet again.
NOT_AGAIN = "(not tried again in this run)"


def explain(title: str, error: BaseException) -> str:
    """What luigid shows of a task that failed: one line with the month, and the traceback of what we did not foresee.

    Errors that may pass are tried again by the scheduler when the stage itself has given up, and so is a task whose
    dependency was taken away. Nobody has said of any other that another try would help.
    """
    if isinstance(error, RuntimeError) and str(error).startswith("Unfulfilled depend"):
        return f"{title}: {error}"
    if isinstance(error, TransientError) and not error.is_for_good:
        return f"{title}: {type(error).__name__}: {text_after(title, error)}"
    if isinstance(error, PipelineError):
        return f"{title}: {type(error).__name__}: {text_after(title, error)} {NOT_AGAIN}"
    return f"{title}: {''.join(traceback.format_exception(error))}{NOT_AGAIN}"


def error_of(explanation: str, title: str) -> tuple[str, str]:
    """Class and text of the error that ``explain`` or Luigi put into words; an empty class where none was raised."""
    text = explanation.removesuffix(NOT_AGAIN).strip().removeprefix(f"{title}: ")
    died = re.search(r"died unexpectedly with exit code (-?\d+)$", text)
    if died:
        return "", f"its process {_how_it_ended(int(died[1]))}"
    late = re.search(r"timed out after (\d+) seconds", text)
    if late:
        return "", f"its process ended after {late[1]} s, the limit of [worker] timeout"
    line = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    name, colon, message = line.partition(": ")
    return (name.rpartition(".")[2], message) if colon and re.fullmatch(r"[\w.]+", name) else ("", line)


def _how_it_ended(code: int) -> str:
    """How a process ended, by its exit code; below 0 it is a signal."""
    if code == -signal.SIGKILL:
        return "was killed; maybe no memory was left"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was ended by {name}; if it happens again, the month's file may be one that nobody can read"
    return f"ended with exit code {code}"


def text_of(explanation: str) -> str:
    """What ``explain`` returned, of which Luigi makes JSON; of a task that could not be loaded, the text itself."""
    try:
        return str(json.loads(explanation))
    except ValueError:
        return explanation


def title_of(task: luigi.Task) -> str:
    return str(getattr(task, "title", task.task_id))
