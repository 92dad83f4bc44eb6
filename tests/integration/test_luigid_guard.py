"""A real luigid, and requests as a browser makes them for pages of other sites and for luigid's own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import luigi.server
import pytest
import requests

from pipeline import http_client
from pipeline.errors import UsageError
from pipeline.runner import rpc

from ..patience import PATIENCE
from ..servers.luigid import Luigid
from ..unit.test_sanitize import EVIL, is_clean


@pytest.fixture(scope="module")
def luigid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Luigid]:
    """Its state and its history are its owner's alone, also if those of a version before were not."""
    found = Luigid(tmp_path_factory.mktemp("luigid"), arguments=("--allowed-host", "luigid.example"))
    folder = found.folder / "luigid"
    folder.mkdir(mode=0o700)
    (folder / "history.db").touch(mode=0o644)
    with found:
        yield found
    assert {"state.pickle", "history.db"} <= {file.name for file in folder.iterdir()}
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("is_there", [False, True])
def test_state_and_history_are_made_for_their_owner_alone(tmp_path: Path, is_there: bool) -> None:
    folder = tmp_path / "kept"
    if is_there:
        folder.mkdir()
        folder.chmod(0o755)
    with Luigid(tmp_path, arguments=("--folder", str(folder))):
        pass
    assert (stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0) is not is_there
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert {"state.pickle", "history.db"} <= modes.keys() and set(modes.values()) == {0o600}


def status(luigid: Luigid, path: str = "/api/task_list", method: str = "GET", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = {"data": json.dumps({"status": "", "upstream_status": ""})}
    given = {"params": data} if method == "GET" else {"data": data}
    answer = requests.request(
        method, luigid.url + path, headers=named, allow_redirects=False, timeout=PATIENCE, **given
    )  # type: ignore[arg-type]
    return answer.status_code


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost", True),
        ("LOCALHOST.:{port}", True),
        ("[::1]:{port}", True),
        ("luigid.example:80", True),
        ("evil.example:{port}", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("evil.example#localhost", False),
        ("localhost~evil.example", False),
        ("203.0.113.9:{port}", False),
        ("", False),
    ],
)
def test_host(luigid: Luigid, host: str, is_ours: bool) -> None:
    host = host.format(port=luigid.port)
    for path in ("/api/task_list", "/static/visualiser/index.html", "/history", "/metrics", "/nothing", "/"):
        refused = status(luigid, path, Host=host) in (421, 400)  # what is no host at all Tornado refuses itself
        assert refused is not is_ours, path


@pytest.mark.parametrize(
    ("origin", "host", "is_ours"),
    [
        ("http://127.0.0.1:{port}", "127.0.0.1:{port}", True),
        ("http://localhost:{port}", "localhost:{port}", True),
        ("https://luigid.example", "luigid.example", True),
        ("http://luigid.example:8083", "luigid.example", True),
        ("http://evil.example", "127.0.0.1:{port}", False),
        ("http://127.0.0.1:{port}.evil.example", "127.0.0.1:{port}", False),
        ("http://127.0.0.1:1", "127.0.0.1:{port}", False),
        ("http://localhost.evil.example", "localhost", False),
        ("app://127.0.0.1:{port}", "127.0.0.1:{port}", False),
        ("null", "127.0.0.1:{port}", False),
        ("", "127.0.0.1:{port}", False),
        ("file://", "127.0.0.1:{port}", False),
    ],
)
def test_origin(luigid: Luigid, origin: str, host: str, is_ours: bool) -> None:
    origin, host = origin.format(port=luigid.port), host.format(port=luigid.port)
    for method in ("GET", "POST", "OPTIONS"):
        assert (status(luigid, method=method, Origin=origin, Host=host) == 403) is not is_ours


def test_get_changes_nothing_unless_luigid_s_own_page_asks(luigid: Luigid) -> None:
    """An image or a link of another site is a GET without Origin."""
    for call in ("pause", "unpause", "disable_worker", "mark_as_done", "prune", "no_such_call"):
        assert status(luigid, f"/api/{call}") == 405
    assert luigid.ask("is_paused") == {"paused": False}
    data = {"data": "{}"}
    page = requests.get(
        f"{luigid.url}/api/pause", params=data, headers={"X-Requested-With": "XMLHttpRequest"}, timeout=PATIENCE
    )
    assert page.status_code == 200 and luigid.ask("is_paused") == {"paused": True}
    luigid.ask("unpause")


@pytest.mark.parametrize(
    "path", ["/", "/static/visualiser/index.html", "/history", "/api/is_paused", "/metrics", "/no", "/static/no"]
)
def test_headers_of_every_answer(luigid: Luigid, path: str) -> None:
    headers = requests.get(luigid.url + path, allow_redirects=False, timeout=PATIENCE).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert policy["default-src"] == "'self'" and "unsafe" not in policy["script-src"]
    assert "http" not in headers["Content-Security-Policy"], "no other host"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"


def test_page_of_luigi_can_live_with_the_policy(luigid: Luigid) -> None:
    page = requests.get(f"{luigid.url}/static/visualiser/index.html", timeout=PATIENCE)
    allowed = page.headers["Content-Security-Policy"]
    scripts = re.findall(r"<script((?:(?!type=)[^>])*)>(.*?)</script>", page.text, re.DOTALL)
    inline = [text for attributes, text in scripts if "src=" not in attributes]
    assert len(inline) == 1 and "visualiserApp" in inline[0]
    for text in inline:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in allowed
    assert not re.search(r"\son\w+=", page.text), "no handlers in attributes"
    assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", page.text), "nothing from other hosts"
    code = Path(luigi.server.__file__).parent / "static" / "visualiser" / "js"
    assert not [file.name for file in code.glob("*.js") if re.search(r"\beval\(|new Function", file.read_text())]


def test_texts_are_harmless_whoever_sends_them(luigid: Luigid) -> None:
    luigid.ask("add_task", worker="w", task_id="T_1", family="T", params={"month": EVIL}, tracking_url="javascript:x()")
    luigid.ask("set_task_status_message", task_id="T_1", status_message=f"<img src=x onerror=alert(1)>{EVIL}")
    luigid.ask(
        "add_task", worker="w", task_id="T_1", status="FAILED", expl=f"{EVIL}<script>", tracking_url="JavaScript:x"
    )
    (task,) = [task for task in luigid.tasks() if task["id"] == "T_1"]
    shown = [task["params"]["month"], task["status_message"], luigid.ask("fetch_error", task_id="T_1")["error"]]
    for text in shown:
        assert "<" not in text and is_clean(text.replace("\\n", "").replace("\n", "")) and "owned" in text
    assert not task["tracking_url"]
    assert is_clean(luigid.page("/metrics").replace("\n", ""))


@pytest.mark.parametrize("text", ["<", ">", "\b", "\f", "\r", "\x1b", "\x7f", "\u202e"])
def test_one_character_is_enough_to_look_at_a_text(luigid: Luigid, text: str) -> None:
    luigid.ask("add_task", worker="w", task_id="T_2", family="T")
    luigid.ask("set_task_status_message", task_id="T_2", status_message=text)
    shown = luigid.ask("get_task_status_message", task_id="T_2")["statusMessage"]
    assert shown and text not in shown and is_clean(shown)


def test_link_that_a_browser_would_run_is_dropped(luigid: Luigid) -> None:
    for url in ("javascript:x", "https://example.com/log"):
        luigid.ask("add_task", worker="w", task_id="T_3", family="T", tracking_url=url)
        (task,) = [task for task in luigid.tasks() if task["id"] == "T_3"]
        assert task["tracking_url"] == (url if url.startswith("https") else None)


def test_program_of_http_1_0_names_no_host(luigid: Luigid) -> None:
    with socket.create_connection(("127.0.0.1", luigid.port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET /api/is_paused HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as answer:
            assert b" 200 OK" in answer.readline()


def test_state_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    """The other ways in which it may be somebody else's: test_luigid."""
    (tmp_path / "luigid").mkdir()
    (tmp_path / "theirs").write_bytes(b"cos\nsystem\n(S'touch read'\ntR.")
    (tmp_path / "luigid" / "state.pickle").symlink_to(tmp_path / "theirs")
    words = [sys.executable, "-m", "pipeline", "ui", "--port", "1", "--folder", "luigid"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr
    assert "state.pickle is a link" in done.stderr and not (tmp_path / "read").exists()


def test_name_that_luigid_does_not_know_is_said_to_the_run(luigid: Luigid, monkeypatch: pytest.MonkeyPatch) -> None:
    send = http_client.send
    other = {"Host": "other:8082"}
    monkeypatch.setattr(http_client, "send", lambda method, url, headers, limit: send(method, luigid.url, other, limit))
    with pytest.raises(UsageError) as error:
        rpc.connect("http://user:secret@other:8082")
    assert str(error.value) == "luigid at other:8082 does not know that name; start it with --allowed-host other"
