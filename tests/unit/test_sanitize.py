"""Control characters, markup and secrets in texts from outside are escaped or hidden."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from luigi.rpc import RemoteScheduler

from pipeline.errors import UsageError
from pipeline.partition import Partition
from pipeline.reporting import bars, console, end_of_run, logs, messages, outcomes
from pipeline.reporting.outcomes import MonthOutcome, RunOutcome
from pipeline.runner.rpc import Luigid
from pipeline.sanitize import MAX_LENGTH, error_line, one_line, printable, sanitize_for_luigid

#: The title of a terminal, a cleared screen, a C1 sequence, a reversed line, a line that looks like ours, markup.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\r\nerror: all is lost\x00\x7f\u2028[red]x[/red] :bomb: <b>"


def is_clean(text: str) -> bool:
    return all(unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp", "Cs") for char in text)


@given(st.text(st.characters()))
def test_nothing_unseen_is_left_and_all_else_is(text: str) -> None:
    assert is_clean(printable(text)) and is_clean(one_line(text))
    if text.isprintable():
        assert printable(text) == text
    whole = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(whole)) == text or any(ord(char) > 0xFFFF for char in text), "JSON stays the same JSON"


def test_what_is_written_in_place_of_it() -> None:
    assert printable("a\x1b[2Jb\u202ec\ud800") == "a\\u001b[2Jb\\u202ec\\ud800"
    assert printable("Straße 東京 a\u00a0b  c\\n") == "Straße 東京 a\u00a0b  c\\n"
    assert printable("a\nb\tc", keep="\n") == "a\nb\\u0009c"
    assert one_line("a  b \r\n\t c\n") == "a  b c"


def test_errors_are_one_clean_line() -> None:
    assert is_clean(str(UsageError(EVIL))) and "owned" in str(UsageError(EVIL))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'https://host/x?sig=hush' is no folder", "'https://…' is no folder"),
        ('--x: "slack://hush/b" is not known', '--x: "slack://…" is not known'),
        ("no luigid at http://u:hush@host:8082", "no luigid at http://…@host:8082"),
        ("'gs://bucket/lake' is not empty", "'gs://bucket/lake' is not empty"),
        (
            "write json://host/path or mailto://user:password@host",
            "write json://host/path or mailto://user:password@host",
        ),
        ("write http://user:password@host:8082", "write http://user:password@host:8082"),
        ("'j]son://hush' is not a number", "'…' is not a number"),
        ("'json:#//hush' is not one of the agent's 'green'", "'…' is not one of the agent's 'green'"),
        ('"http:\\\'//u:hush@" is not a number', '"…" is not a number'),
        ("'https:/[/u:hush@[::g]/' is none", "'…' is none"),
        ("'postgresql://u:hush' is none", "'postgresql://…' is none"),
        ("--logging-conf-file=sla,ck://hush (or luigi.cfg)", "--logging-conf-file=… (or luigi.cfg)"),
        ("'http://[::1]:8082/x' or http://host:80/x", "'http://[::1]:8082/x' or http://host:80/x"),
        ("'slack://a b/hush' is none", "'slack://…' is none"),
        ("'file:lake//x' and 'zero_passengers@9' stay", "'file:lake//x' and 'zero_passengers@9' stay"),
        (f"{EVIL}\n", one_line(EVIL)),
    ],
)
def test_line_about_a_mistake_shows_no_secret(text: str, shown: str) -> None:
    assert error_line(text) == shown


def test_line_about_a_mistake_has_the_ends_of_a_long_value() -> None:
    line = error_line(f"--x: {'y' * 10**6} is too long")
    assert len(line) < MAX_LENGTH + 10 and line.startswith("--x: yyy") and line.endswith("yyy is too long")


def test_console(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(EVIL)
    console.say(EVIL)
    console.say(EVIL, error=True)
    said = capsys.readouterr()
    assert said.out.count("\n") == 2 and said.err.count("\n") == 1
    assert is_clean(said.out.replace("\n", "")) and is_clean(said.err.replace("\n", ""))
    console.say(json.dumps({"a": "\x7f\x1b"}, indent=1), keep="\n")
    assert json.loads(capsys.readouterr().out) == {"a": "\x7f\x1b"}


@pytest.mark.parametrize("is_terminal", [False, True])
def test_table_and_what_is_below_it(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    month = MonthOutcome(
        Partition.parse("green", "2020-01"), rows_read=5, status=outcomes.FAILED, state=f"failed: {EVIL}", reason=EVIL
    )
    month.rejected = {EVIL: 3}
    outcome = RunOutcome(
        [month, MonthOutcome(Partition.parse("green", "2020-02"))], result=outcomes.FAILED, run="r", failure=EVIL
    )
    outcome.command = ["luigi", EVIL]
    for line in end_of_run.summary(outcome, None):
        console.say(line)
    said = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()) if is_terminal else stream.getvalue()
    assert is_clean(said.replace("\n", ""))
    assert "[red]x" in said and ":bomb:" in said, "no markup is followed"
    assert not re.search("^error: all is lost", said, re.M)


def test_bars() -> None:
    picture = bars.BarState()
    stage = {"event": "stage", "stage": "Load", "dataset": "green", "month": "2020-01", "at": 1.0}
    picture.read({**stage, "state": "started"})
    picture.read({**stage, "state": "waiting", "note": f"waits for {EVIL}"})
    picture.read({"event": "waiting", "text": EVIL})
    assert all(is_clean(line.plain) for line in picture.lines(200, 2.0))


@pytest.mark.parametrize("formatter", [logs.OneLine("%(levelname)s %(message)s"), logs.JsonLine()])
@pytest.mark.parametrize("error", [None, UsageError(EVIL), ValueError(EVIL)])
def test_log(formatter: logging.Formatter, error: BaseException | None) -> None:
    trace = (type(error), error, None) if error else None
    line = formatter.format(logging.LogRecord("pipeline", logging.ERROR, "", 1, "%s", (EVIL,), trace))  # type: ignore[arg-type]
    assert is_clean(line.replace("\n", ""))
    if not isinstance(error, ValueError) or isinstance(error, UsageError):
        assert "\n" not in line


def test_notification() -> None:
    month = MonthOutcome(
        Partition.parse("green", "2020-01"), status=outcomes.DONE, state=outcomes.LOADED, rows=1, loaded=1
    )
    month.unknown_columns = [EVIL]
    failed = MonthOutcome(Partition.parse("green", "2020-02"), status=outcomes.FAILED, state="failed", reason=EVIL)
    message = messages.message_of_run(RunOutcome([month, failed], result=outcomes.FAILED, run="r", failure=EVIL))
    assert message is not None and is_clean(message.title) and is_clean(message.body.replace("\n", ""))
    assert not re.search("^error: all is lost", message.body, re.M)
    begun = {"event": "begun", "at": 1.0, "run": EVIL, "command": ["luigi", EVIL], "host": EVIL}
    killed = messages.message_of_killed([begun], heard=2.0)
    assert is_clean(killed.title) and is_clean(killed.body.replace("\n", ""))


def test_luigid(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}
    monkeypatch.setattr(RemoteScheduler, "_request", lambda self, url, data, *more: sent.update(data))
    scheduler: Any = Luigid("http://127.0.0.1:1")  # Luigi gives it its methods at run time
    scheduler.add_task(
        worker="w", task_id="T_1", family="T", params={"a": EVIL}, expl=EVIL, tracking_url="javascript:x"
    )
    assert sent["params"]["a"].startswith("\\u001b]0;owned") and sent["tracking_url"] is None
    assert "<" not in sent["expl"] and is_clean(sent["expl"].replace("\n", ""))
    scheduler.set_task_status_message("T_1", f"<img src=x onerror=alert(1)>{EVIL}")
    assert "<" not in sent["status_message"] and sent["status_message"].startswith("\u2039img")
    assert sanitize_for_luigid({"tracking_url": "https://a/b", "n": [1, None, ("<",)]}) == {
        "tracking_url": "https://a/b",
        "n": [1, None, ["\u2039"]],
    }
