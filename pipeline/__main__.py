"""``python -m pipeline <verb>``: what is asked beside the runs. The runs themselves are Luigi's command.

Each verb has a module with the work; here is only which arguments it takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from . import remote, settings, validation
from .errors import UsageError
from .plain import mistake_line
from .reporting import console, logs, streams
from .runner.command_line import MISTAKES, STOPPED, USAGE, code_of, exit_with, without_values

Verb = Callable[[argparse.Namespace], int]

#: Verbs that somebody waits for: a server that does not answer is given up within seconds.
WAITED_FOR = {"status", "plan", "verify", "doctor", "forget", "runs", "queue"}


#: Verbs whose only work is to print: if their output is lost, they have failed.
ONLY_PRINT = {"status", "plan", "verify", "doctor", "runs", "queue"}

#: The end of the help of each verb.
SETTINGS = "Any setting of luigi.cfg can be given too, as --section-name VALUE, such as --lake-url file:lake."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        exit_with(ValueError(f"{without_values(message)}; see {self.prog} --help"))


def parser() -> argparse.ArgumentParser:
    """All verbs with their arguments, and every setting as a flag that ``luigi`` also takes."""
    from .commands import agent, arguments, doctor, forget, plan, queue, refresh, runs, status, submit, ui, verify

    top = _Parser(prog="python -m pipeline", description="Look at the pipeline's months and take care of them.")
    verbs = top.add_subparsers(dest="verb", metavar="verb", parser_class=_Parser)

    def verb(name: str, work: Verb, help: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, epilog=SETTINGS)
        added.set_defaults(work=remote.somebody_waits()(work) if name in WAITED_FOR else work, validate=True)
        for section, setting, _ in settings.names():
            if section != "RangeMonthly":
                added.add_argument(
                    f"--{section}-{setting}".replace("_", "-"),
                    dest=settings.variable(section, setting),
                    default=argparse.SUPPRESS,
                    help=argparse.SUPPRESS,  # all of them in one line: SETTINGS
                )
        return added

    added = verb("status", status.status, "every month, its state and why; asks no publisher")
    added.add_argument(
        "--dataset", type=arguments.monthly_dataset, help="only this one and zones; default: those of [range] datasets"
    )
    added.add_argument("--start", **arguments.MONTH, help="first month; default: the dataset's first")
    added.add_argument("--stop", **arguments.MONTH, help="month after the last; default: next month")
    added.add_argument("--json", action="store_true", help="as JSON")

    added = verb("plan", plan.plan, "what RangeMonthly would run and the reason for each month; runs nothing")
    added.add_argument("--of", choices=list(plan.PLANNED), help="default: [RangeMonthly] of")
    added.add_argument(
        "--of-params", type=arguments.json_object, metavar="JSON", help="""such as '{"dataset": "green"}'"""
    )
    added.add_argument("--dataset", type=arguments.monthly_dataset, help="of MonthlyTrips; default: yellow")
    added.add_argument(
        "--datasets", type=arguments.some_datasets, help="of AllTrips, comma-separated; default: those of [range]"
    )
    added.add_argument("--start", **arguments.MONTH, help="first month; default: [RangeMonthly] start")
    added.add_argument(
        "--stop", **arguments.MONTH, help="month after the last; default: the newest, or [RangeMonthly] stop"
    )
    added.add_argument("--json", action="store_true", help="as JSON")

    added = verb("refresh", refresh.refresh, "ask the publisher now what it republished or added, and load just that")
    added.add_argument(
        "--dataset", type=arguments.some_datasets, help="comma-separated; default: those of [range] datasets"
    )
    added.add_argument("--since", **arguments.MONTH, required=True, help="first month to ask about")
    added.add_argument("--workers", **arguments.WORKERS, help="months at once; default 1")

    added = verb("verify", verify.verify, "whether published figures, lake, ledger and tables agree about every month")
    added.add_argument("--dataset", type=arguments.dataset, help="only this one; default: all")
    added.add_argument("--start", **arguments.MONTH, help="first month; default: the first there is")
    added.add_argument("--stop", **arguments.MONTH, help="month after the last; default: all there are")
    added.add_argument("--deep", action="store_true", help="read all bytes in the lake, not only the footers")
    added.add_argument("--json", action="store_true", help="as JSON")

    added = verb("doctor", doctor.doctor, "try everything that is configured, and name the remedy of what fails")
    added.add_argument("--create", action="store_true", help="make a missing bucket, dataset, database or schema")
    added.add_argument("--notify", action="store_true", help="send a test message to the addresses of [notify]")
    added.set_defaults(validate=False)  # what is wrong with the settings is its first finding

    added = verb("forget", forget.forget, "make months incomplete on purpose, so that the next run does them again")
    added.add_argument("--dataset", type=arguments.any_datasets, required=True, help="comma-separated; also zones")
    added.add_argument("--month", **arguments.MONTH, help="the month; zones has none")
    added.add_argument("--start", **arguments.MONTH, help="instead of --month: the first; default: the first there is")
    added.add_argument("--stop", **arguments.MONTH, help="the month after the last; default: all there are")
    added.add_argument(
        "--warehouse", type=arguments.text, metavar="LABEL", help="only there, such as duckdb; the lake keeps the month"
    )

    added = verb("ui", ui.ui, "luigid with history and metrics: the page of all runs, and the common scheduler")
    added.add_argument("--port", type=arguments.whole(1, 65535), default=8082, help="default 8082")
    added.add_argument(
        "--address", type=arguments.text, default="127.0.0.1", help="default 127.0.0.1: luigid knows no passwords"
    )
    added.add_argument(
        "--allowed-host",
        type=arguments.host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which luigid is reached besides this machine's own, such as a proxy's; may be repeated",
    )
    added.add_argument("--folder", type=arguments.text, help="for state and history; default: as luigi.cfg has it")
    added.add_argument(
        "--keep-days",
        type=arguments.number(1, settings.CENTURY),
        default=180.0,
        metavar="DAYS",
        help="age of the history; default 180",
    )

    added = verb("agent", agent.agent, "take submitted runs from a queue and do them, until told to stop")
    added.add_argument("--queue", **arguments.QUEUE, default="default", help="default: default")
    added.add_argument("--workers", **arguments.WORKERS, help="tasks at once; default 1")
    added.add_argument("--scheduler-url", **arguments.LUIGID, help="luigid, such as http://luigid:8082; default: none")
    added.add_argument(
        "--poll", type=arguments.number(0.1, 3600), default=5.0, metavar="SECONDS", help="between two looks; default 5"
    )
    added.add_argument("--drain", action="store_true", help="end when there is nothing left for this host")

    added = verb("submit", submit.submit, "hand a luigi command over to a queue and return at once")
    added.add_argument("--queue", **arguments.QUEUE, default="default", help="default: default")
    added.add_argument("task", nargs=argparse.REMAINDER, help="a task as luigi takes it, with its flags")

    added = verb("runs", runs.runs, "every run: start, duration, how it was started, result; or cancel one")
    added.add_argument("action", nargs="?", choices=("cancel",), help="stop the run, or take it back if it waits")
    added.add_argument("id", nargs="?", help="id of the run to cancel, or how it begins")
    added.add_argument("--queue", **arguments.QUEUE, help="only runs submitted to this one; default: all runs")
    added.add_argument("--last", type=arguments.whole(1), default=20, metavar="N", help="the newest N; default 20")
    added.add_argument("--failed", action="store_true", help="only runs that did not end well")
    added.add_argument("--json", action="store_true", help="as JSON")

    added = verb("queue", queue.queue, "queues with their runs and agents; or pause one, or resume it")
    added.add_argument("action", nargs="?", default="list", choices=("list", "pause", "resume"), help="default: list")
    added.add_argument(
        "name", nargs="?", type=arguments.queue_name, help="of the queue; default: all, and default to pause or resume"
    )
    added.add_argument("--json", action="store_true", help="list as JSON")

    from .commands import cron
    from .publishers.sample import generator

    cron.add_arguments(
        verb("cron", cron.cron, "run luigi unattended: one at a time, with a log, judged by its root task")
    )
    generator.add_arguments(verb("sample", generator.main, "make synthetic months in a publisher's layout"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 1 where the answer is no, 2 for a mistake, 130 after Ctrl-C, and 35 if a
    publisher, lake or warehouse that it needs cannot be reached or used."""
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
        flags = {settings.variable(section, name) for section, name, _ in settings.names()}
        os.environ.update({name: value for name, value in vars(args).items() if name in flags})
        settings.apply_environment()
        if args.validate:
            validation.validate()
            logs.configure()
        code: int = args.work(args)
        return _with_output(args, code)
    except MISTAKES as error:
        console.say(f"error: {mistake_line(error)}", error=True)
        return code_of(error)
    except KeyboardInterrupt:
        console.say("stopped", error=True)
        return STOPPED
    except OSError as error:  # what concerns a file of ours has a line of its own
        console.say(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}", error=True)
        return USAGE


def _with_output(args: argparse.Namespace, code: int) -> int:
    """The exit code of a verb whose output may have got lost. What was done counts as done."""
    error = streams.error_of_stdout()
    if error is None:
        return code
    console.say(f"error: the output cannot be written: {error.strerror}", error=True)
    only_prints = args.verb in ONLY_PRINT and getattr(args, "action", None) in (None, "list")
    return code or USAGE if only_prints else code


if __name__ == "__main__":
    sys.exit(main())
