"""Under which names luigid answers, and which pages may ask it; a real luigid is asked in the integration tests."""

from __future__ import annotations

import inspect
import pickle
import socket
from typing import Any

import luigi.scheduler
import luigi.server
import pytest

from pipeline.runner import luigid_guard
from pipeline.runner.luigid_guard import Hosts


@pytest.mark.parametrize(
    ("address", "host", "is_ours"),
    [
        ("127.0.0.1", "127.0.0.2", True),
        ("127.0.0.1", "192.168.1.5:8082", False),
        ("127.0.0.1", "localhost:80.evil.example", False),
        ("127.0.0.1", "localhost:8082:8082", False),
        ("127.0.0.1", "[127.0.0.1].evil.example", False),
        ("0.0.0.0", "192.168.1.5:8082", True),
        ("0.0.0.0", "evil.example:8082", False),
        ("::", "[fd00::5]:8082", True),
        ("", "[fd00::5]", True),
        ("192.168.1.5", "192.168.1.5:8082", True),
        ("192.168.1.5", "192.168.1.6:8082", False),
        ("moon.example", "Moon.Example:8082", True),
    ],
)
def test_address_decides_which_hosts_are_ours(address: str, host: str, is_ours: bool) -> None:
    assert (host in Hosts(address)) is is_ours


@pytest.mark.parametrize(
    ("host", "is_ours"), [("sun", True), ("sun.example:8082", True), ("example", False), ("moon.example", False)]
)
def test_name_of_this_machine_is_ours(monkeypatch: pytest.MonkeyPatch, host: str, is_ours: bool) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Sun.example")
    assert (host in Hosts("127.0.0.1")) is is_ours


BOARD = "https://board.example"


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, set()),
        ({"allow_any_origin": True, "allow_null_origin": True, "allowed_origins": (BOARD,)}, set()),
        ({"enabled": True}, set()),
        ({"enabled": True, "allowed_origins": (BOARD,)}, {BOARD}),
        ({"enabled": True, "allow_null_origin": True}, {"null"}),
        ({"enabled": True, "allow_any_origin": True}, {BOARD, "https://evil.example", "null"}),
    ],
)
def test_page_of_another_site_is_let_in_by_cors_alone(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], allowed: set[str]
) -> None:
    cors = luigi.server.cors(**settings)
    monkeypatch.setattr(luigi.server, "cors", lambda: cors)
    hosts = Hosts("127.0.0.1")
    for origin in (BOARD, "https://evil.example", "null"):
        assert hosts.is_own(origin, "127.0.0.1:8082") is (origin in allowed), origin


def test_what_may_be_asked_by_get_changes_nothing() -> None:
    scheduler = luigi.scheduler.Scheduler(worker_disconnect_delay=1e9, remove_delay=1e9)
    scheduler.add_task(task_id="T_1", worker="w", family="T", resources={"r": 1})
    scheduler.get_work(worker="w")
    scheduler.add_scheduler_message_response("T_1", "m", "done")
    values = {"task_id": "T_1", "task_str": "T", "worker": "w", "message_id": "m"}
    before = pickle.dumps(scheduler._state.get_state())
    for call in luigid_guard._READING:
        method = getattr(scheduler, call)
        method(**{name: value for name, value in values.items() if name in inspect.signature(method).parameters})
        assert pickle.dumps(scheduler._state.get_state()) == before, call
