"""The exit codes by name, and that of an error which stops a command; ``verdict`` decides the code of a run."""

from __future__ import annotations

import sys
from typing import NoReturn

from luigi.parameter import ParameterException
from luigi.retcodes import retcode
from luigi.task_register import TaskClassException

from ..errors import PipelineError, UsageError
from ..reporting import console
from ..sanitize import error_line

#: A mistake on the command line or in the settings, as argparse has it.
USAGE = 2

#: The same task is running already, for ``cron``.
ALREADY_RUNNING = 10

#: Something was left to do, for ``cron`` where luigi said nothing more.
NOT_RUN = 25

#: A plan that could not be made, where luigi.cfg has no code for it.
PLANNING_FAILED = 35

#: After Ctrl-C, as shells have it.
STOPPED = 130

#: Errors whose text says what is wrong: ours, and those of Luigi about flags and tasks.
MISTAKES = (PipelineError, ParameterException, TaskClassException)


def code_of(error: BaseException) -> int:
    """The exit code of an error that kept a command from its work: of a mistake, or of what it cannot reach or use."""
    is_mistake = isinstance(error, UsageError) or not isinstance(error, PipelineError)
    return USAGE if is_mistake else int(retcode().scheduling_error or PLANNING_FAILED)


def exit_with(error: BaseException) -> NoReturn:
    """Say what is wrong in one line and end, with the code of ``code_of``."""
    console.say(f"error: {error_line(error)}", error=True)
    sys.exit(code_of(error))
