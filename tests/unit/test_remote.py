"""Time-outs and error naming shared by all clients of remote servers."""

from __future__ import annotations

import pytest
import requests
from google.auth.exceptions import TransportError

from pipeline import job, remote
from pipeline.__main__ import parser
from pipeline.commands import doctor, forget, plan, queue, refresh, runs, status, verify
from pipeline.errors import UsageError
from pipeline.retry import Policy
from pipeline.storage import StoreOptions
from pipeline.warehouse import Options


def test_runs_are_patient_and_somebody_who_waits_is_not() -> None:
    assert remote.for_server(StoreOptions().patience) == 300.0 and remote.for_server(Options().patience) == 120.0
    assert job.retry_policy() == Policy()
    with remote.interactive():
        assert remote.for_server(300.0) == remote.capped(60.0) == remote.INTERACTIVE_TIMEOUT
        assert remote.capped(2.0) == remote.for_server(2.0) == 2.0
        assert job.retry_policy() == Policy(timeout=remote.INTERACTIVE_TIMEOUT, patience=remote.INTERACTIVE_TIMEOUT)
    assert remote.capped(60.0) == remote.for_server(60.0) == 60.0


def test_a_run_that_is_planned_waits_for_servers_within_a_minute_and_for_locks_as_set() -> None:
    with remote.planning():
        assert remote.for_server(300.0) == job.retry_policy().patience == remote.PLANNING_TIMEOUT < 60
        assert remote.capped(300.0) == 300.0
        with remote.interactive():
            assert remote.for_server(300.0) == remote.INTERACTIVE_TIMEOUT
    assert remote.for_server(300.0) == 300.0


@pytest.mark.parametrize(
    "value", ["user:planted@127.0.0.1:1", "http://host:1?key=planted", "ftp://planted", "http://", "a b", "host:port"]
)
def test_what_is_no_address_is_refused_by_the_name_of_the_variable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_EMULATOR_HOST", value)
    with pytest.raises(UsageError, match=r"SOME_EMULATOR_HOST is no address; write http://host:port") as caught:
        remote.emulator("SOME_EMULATOR_HOST")
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("", None),
        ("http://host:1/", "http://host:1"),
        ("127.0.0.1:18120", "http://127.0.0.1:18120"),
        ("bigquery", "http://bigquery"),
        ("https://a-b.example/storage", "https://a-b.example/storage"),
    ],
)
def test_address_of_an_emulator(value: str, address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_EMULATOR_HOST", value)
    assert remote.emulator("SOME_EMULATOR_HOST") == address


def test_addresses_come_without_what_may_be_a_key() -> None:
    request = requests.Request("POST", "https://user:planted@oauth2.host:1/token?upload_id=planted").prepare()
    failed = requests.ConnectionError("planted", request=request)
    assert remote.address_of(failed, "https://other") == "https://oauth2.host:1"
    assert remote.address_of(TransportError(failed), "https://other") == "https://oauth2.host:1"
    assert remote.address_of(ConnectionResetError("planted"), "http://other:2/x") == "http://other:2"
    assert remote.address_of(None, "http://other") == "http://other"


def test_which_verbs_somebody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (status, plan, forget, verify, doctor, queue, runs, refresh):
        monkeypatch.setattr(module, "run", lambda args: int(remote.capped(60)))
    asked = ["forget", "--dataset", "zones"], ["runs"], ["queue", "pause"]
    for verb in (["status"], ["plan"], ["verify"], ["doctor"], *asked):
        args = parser().parse_args(verb)
        assert args.work(args) == remote.INTERACTIVE_TIMEOUT
    args = parser().parse_args(["refresh", "--since", "2024-01"])
    assert args.work(args) == 60, "a run"
