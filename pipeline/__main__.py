"""``python -m pipeline <verb>``: parse the command line and run one verb of ``commands``.

Runs themselves are started with Luigi's command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import remote, renamed, settings, validation
from .errors import UsageError
from .reporting import console, logs, streams
from .runner.exit_codes import MISTAKES, STOPPED, USAGE, code_of, exit_with
from .runner.flags import without_values
from .sanitize import error_line

#: Verbs that a person waits for: their requests to servers time out within seconds.
WAITED_FOR = {"status", "plan", "verify", "doctor", "forget", "runs", "queue"}


#: Verbs that only print: they fail if their output is lost.
ONLY_PRINT = {"status", "plan", "verify", "doctor", "runs", "queue"}

#: The end of the help of each verb.
SETTINGS = "Every setting of luigi.cfg is also a flag, --section-name VALUE, such as --lake-url file:lake."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        exit_with(ValueError(f"{without_values(message)}; see {self.prog} --help"))


def parser() -> argparse.ArgumentParser:
    """All verbs with their arguments, and every setting as a flag that ``luigi`` also takes."""
    from .commands import agent, cron, doctor, forget, plan, queue, refresh, runs, sample, status, submit, ui, verify

    top = _Parser(prog="python -m pipeline", description="Inspect and maintain the months of the pipeline.")
    verbs = top.add_subparsers(dest="verb", metavar="verb", parser_class=_Parser)

    for verb in (status, plan, refresh, verify, doctor, forget, ui, agent, submit, runs, queue, cron, sample):
        name = verb.__name__.rpartition(".")[2]
        added = verbs.add_parser(name, help=verb.HELP, description=verb.HELP, epilog=SETTINGS)
        work = remote.interactive()(verb.run) if name in WAITED_FOR else verb.run
        added.set_defaults(work=work, validate=True)
        for section, setting in (*((section, name) for section, name, _ in settings.names()), *renamed.NAMES):
            if section != "RangeMonthly":
                added.add_argument(
                    renamed.flag(section, setting),
                    dest=settings.variable(section, setting),
                    default=argparse.SUPPRESS,
                    help=argparse.SUPPRESS,  # all of them in one line: SETTINGS
                )
        verb.add_arguments(added)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code.

    0: success; 1: the verb found a problem; 2: a mistake in flags or settings; 35: a publisher, lake or warehouse that
    it needs is unreachable or cannot be used; 130: Ctrl-C. A verb that runs Luigi returns the code of the run.
    """
    import os

    streams.protect()
    try:
        top = parser()
        words = sys.argv[1:] if arguments is None else list(arguments)
        if nothing := next((word for word in words if word.startswith("--") and word.endswith("=--")), None):
            raise UsageError(f"{nothing.partition('=')[0]}: -- is no value")  # argparse would take it for an empty list
        args = top.parse_args(words)
        if args.verb is None:
            top.print_help(sys.stderr)
            return USAGE
        renamed.take(vars(args), settings.variable, renamed.flag)
        flags = {settings.variable(section, name) for section, name, _ in settings.names()}
        os.environ.update({name: value for name, value in vars(args).items() if name in flags})
        settings.apply_environment()
        if args.validate:
            validation.validate()
            logs.configure()
        code: int = args.work(args)
        return _with_output(args, code)
    except MISTAKES as error:
        console.say(f"error: {error_line(error)}", error=True)
        return code_of(error)
    except KeyboardInterrupt:
        console.say("stopped", error=True)
        return STOPPED
    except OSError as error:  # what concerns a file of ours has a line of its own
        console.say(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}", error=True)
        return USAGE


def _with_output(args: argparse.Namespace, code: int) -> int:
    """The exit code of a verb whose output may be lost. Its work still counts as done."""
    error = streams.error_of_stdout()
    if error is None:
        return code
    console.say(f"error: the output cannot be written: {error.strerror}", error=True)
    only_prints = args.verb in ONLY_PRINT and getattr(args, "action", None) in (None, "list")
    return code or USAGE if only_prints else code


if __name__ == "__main__":
    sys.exit(main())
