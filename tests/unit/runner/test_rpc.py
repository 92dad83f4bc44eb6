"""Requests to luigid: errors are reported, and proxies of the environment are used as by Luigi."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from luigi.rpc import RequestsFetcher, RPCError

from pipeline.runner.rpc import AT_ONCE, Fetcher, Luigid, PipelinedScheduler
from tests.patience import PATIENCE, wait_for


class Answers:
    """A scheduler that answers when told to, and refuses one task."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.told: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def add_task(self, task_id: str, **task: Any) -> None:
        assert self.go_on.wait(PATIENCE)
        if task_id == self.refused:
            raise RPCError(task_id)
        self.told.append(task_id)

    def ping(self) -> str:
        return "pong"


def test_every_task_is_told_before_planning_ends() -> None:
    scheduler = Answers()
    scheduler.go_on.clear()
    names = [str(number) for number in range(AT_ONCE)]
    with PipelinedScheduler(scheduler) as announcer:
        for name in names:
            announcer.add_task(task_id=name)
        assert scheduler.told == [] and announcer.ping() == "pong", "nobody waits for the answers"
        scheduler.go_on.set()
    assert sorted(scheduler.told) == names


@pytest.mark.parametrize("refused", ["0", "50", "99"])
def test_refusal_is_heard_and_ends_planning(refused: str) -> None:
    scheduler = Answers(refused)
    with pytest.raises(RPCError, match=refused), PipelinedScheduler(scheduler) as announcer:
        for number in range(100):
            announcer.add_task(task_id=str(number))
    assert len(scheduler.told) < int(refused) + 4 * AT_ONCE, "not all the others first"


def test_error_while_planning_waits_for_no_request_that_is_not_begun() -> None:
    scheduler = Answers()
    scheduler.go_on.clear()
    with pytest.raises(KeyboardInterrupt), PipelinedScheduler(scheduler) as announcer:
        for number in range(2 * AT_ONCE):
            announcer.add_task(task_id=str(number))
        not_begun = list(announcer._waiting)[AT_ONCE:]

        def go_on() -> None:
            wait_for(lambda: all(future.cancelled() for future in not_begun))
            scheduler.go_on.set()

        threading.Thread(target=go_on).start()
        wait_for(lambda: sum(future.running() for future in announcer._waiting) == AT_ONCE)
        raise KeyboardInterrupt
    assert len(scheduler.told) == AT_ONCE


class Site:
    """What answers on luigid's port: these bytes, one after the other if ``drips``, and then silence."""

    def __init__(self, answer: bytes, drips: bool = False) -> None:
        self.answer, self.drips = answer, drips
        self.asked = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._over.is_set():
            connection, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(1 << 16)
            self.asked += 1
            for byte in self.answer if self.drips else ():
                connection.sendall(bytes([byte]))
                self._over.wait(0.05)
            if not self.drips:
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)
            self._over.wait()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._listener.close()


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize(
    ("bytes_", "drips"),
    [
        (answer(b"Internal Server Error", b"500 Internal Server Error"), False),
        (answer(b"<html>another program</html>"), False),
        (answer(b"[]"), False),
        (answer(b""), False),
        (b"SSH-2.0-OpenSSH\r\n", False),
        (b"", False),
        (answer(b'{"response": ' + b" " * 1000 + b"{}}"), True),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, True),
    ],
    ids=["500", "page", "list", "nothing", "no HTTP", "closed", "dripping body", "dripping headers"],
)
def test_what_is_no_answer_of_luigids_ends_the_run(bytes_: bytes, drips: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("pipeline.reporting.progress.RunProgress.waiting", lambda self, text: told.append(text))
    monkeypatch.setattr("pipeline.runner.rpc.SAID_AFTER", 0.0)
    with Site(bytes_, drips) as site:
        luigid: Any = Luigid(site.url)
        luigid._rpc_retry_attempts, luigid._rpc_retry_wait, luigid._connect_timeout = 4, 0.01, 0.3
        with pytest.raises(RPCError):
            luigid.get_work(worker="me")
        assert site.asked > 1 and len(told) == 1 and "does not answer" in told[0]
        assert luigid.ping(worker="me") is None


@pytest.mark.parametrize("body", [b'{"response": {}}', b'{"response": {"rpc_messages": 3}}', b'{"response": 3}'])
def test_answer_to_a_ping_that_makes_no_sense_is_none(body: bytes) -> None:
    with Site(answer(body)) as site:
        luigid: Any = Luigid(site.url)
        assert luigid.ping(worker="me") is None


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HTTP_PROXY": "http://127.0.0.1:1", "REQUESTS_CA_BUNDLE": "/etc/ca.pem"},
        {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "luigid.example"},
        {"NETRC": "netrc"},
    ],
    ids=["nothing", "proxy", "proxy for others", "password"],
)
def test_environment_counts_as_for_luigis_own_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    (tmp_path / "netrc").write_text("machine luigid.example login me password secret\n")
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sent: list[tuple[Any, dict[str, Any]]] = []

    def send(self: Any, request: Any, **options: Any) -> Any:
        sent.append((request, options))
        raise InterruptedError

    url = "http://luigid.example:8082"
    with mock.patch("requests.Session.send", send):
        for fetcher in (RequestsFetcher(), Fetcher(url)):
            with pytest.raises(InterruptedError):
                fetcher.fetch(f"{url}/api/ping", {"data": "{}"}, 10)
    (theirs, their_options), (ours, our_options) = sent
    assert our_options == their_options
    assert (ours.headers, ours.body) == (theirs.headers, theirs.body)
    assert ("Authorization" in ours.headers) == ("NETRC" in environment)


def test_connection_is_not_shared_with_a_forked_process() -> None:
    fetcher = Fetcher("http://luigid.example:8082")
    before = fetcher.session
    fetcher.check_pid()
    assert fetcher.session is before
    fetcher.process_id = os.getpid() + 1
    fetcher.check_pid()
    assert fetcher.session is not before and not fetcher.session.trust_env
