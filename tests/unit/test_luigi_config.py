"""Mistakes in luigi.cfg: each is one line with the file, the line or the setting, and never the value."""

from __future__ import annotations

from pathlib import Path

import pytest
from luigi.configuration import LuigiConfigParser

from pipeline import luigi_config, renamed, validation
from pipeline.errors import UsageError

SECRET = "tiger"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[lake]\nurl = file:a\nurl = file:tiger\n", "line 3: [lake] url is set a second time"),
        (b"[lake]\nurl = file:a\n[range]\n[lake]\n", "line 4: there is a second section [lake]"),
        (b"[lake\nurl = file:tiger\n", "line 1: the ] of the section is missing"),
        (b"[lake]\nurl = file:a\n[warehouse\nurl = tiger\n", "line 3: the ] of the section is missing"),
        (b"[lake]\nurl = file:a\ntiger\n", "line 3: neither [section] nor name = value"),
        (b"url = file:tiger\n", "line 1: no section such as [lake]"),
        (b"\xef\xbb\xbf[lake]\nurl = file:a\n", "byte order mark"),
        (b"\xff\xfe[\0l\0a\0k\0e\0]\0", "line 1: not UTF-8"),
        (b"[lake]\nurl = file:tiger\xe4\n", "line 2: not UTF-8"),
    ],
)
def test_file_that_does_not_parse(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "luigi.cfg"
    path.write_bytes(data)
    mistake = luigi_config._mistake(str(path))
    assert str(path) in mistake and says in mistake
    assert SECRET not in mistake and "\n" not in mistake


def test_files_that_parse(tmp_path: Path) -> None:
    path = tmp_path / "luigi.cfg"
    path.write_text(
        "[lake]\r\n# a comment\r\nurl: file:%%20ü\r\n\r\n; another\r\n[range]\r\ndatasets =\r\n  green,\r\n  fhv\r\n"
    )
    assert luigi_config._mistake(str(path)) == ""


@pytest.mark.parametrize(
    ("section", "text", "says"),
    [
        ("lake", "url = file:tiger   ; my lake", "[lake] url (or PIPELINE_LAKE_URL): a blank and ;"),
        ("lake", "url = file:tiger # my lake", "a blank and #"),
        ("lake", "url = file:tiger\t# my lake", "a blank and #"),
        (
            "warehouse",
            "url = postgresql://u:%40tiger@h/d",
            "[warehouse] url (or PIPELINE_WAREHOUSE_URL): a percent sign",
        ),
        ("warehouse", "url = postgresql://u:100%tiger@h/d", "a percent sign in luigi.cfg is written %%"),
        ("warehouse", "url = postgresql://u:%(tiger)s@h/d", "a percent sign in luigi.cfg is written %%"),
        ("notify", "urls = slack://${NO_SUCH_NAME}/tiger", "there is no environment variable NO_SUCH_NAME"),
        ("lake", "url = file:tiger\n  keep_versions = true", "the line below it begins with a blank"),
        ("retcode", "task_failed = %tiger", "luigi.cfg: [retcode] task_failed: a percent sign"),
        (
            "core",
            "default-scheduler-url = http://u:%tiger@h",
            "luigi.cfg: [core] default-scheduler-url: a percent sign",
        ),
        ("scheduler", "state_path = tiger ; here", "luigi.cfg: [scheduler] state_path: a blank and ;"),
    ],
)
def test_value_that_luigi_reads_otherwise(section: str, text: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LuigiConfigParser()
    config.read_string(f"[{section}]\n{text}\n")
    monkeypatch.setattr(validation, "get_config", lambda: config)
    with pytest.raises(UsageError) as refused:
        validation.check_texts(section)
    assert says in str(refused.value)
    assert SECRET not in str(refused.value).replace("%(tiger)s", "") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("lake", "url = file:my#lake;here"),
        ("warehouse", "url = duckdb:///a.duckdb,\n  postgresql://u:p%%40ss@h/d"),
        ("notify", "urls = slack://a/b/c/#channel\n  mailto://u:p@example.org"),
        ("range", "datasets = green,\n  fhv"),
    ],
)
def test_value_that_is_meant_so(section: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LuigiConfigParser()
    config.read_string(f"[DEFAULT]\nreceiver = someone # of theirs\n\n[{section}]\n{text}\n")
    monkeypatch.setattr(validation, "get_config", lambda: config)
    validation.check_texts(section)


def test_what_luigi_cfg_says_wins_over_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LuigiConfigParser()
    config.read_string("[retcode]\ntask_failed = 3\n\n[core]\nrpc-retry-attempts = 2\n\n[worker]\nkeep-alive = false\n")
    monkeypatch.setattr(luigi_config.luigi.configuration, "get_config", lambda: config)
    luigi_config.complete(luigi_config.DEFAULTS)
    assert config.getint("retcode", "task_failed") == 3 and config.getint("retcode", "missing_data") == 20
    assert config.getint("core", "rpc_retry_attempts") == 2 and config.getint("core", "rpc_retry_wait") == 5
    assert config.getboolean("worker", "keep_alive") is False


def test_old_names_are_understood(caplog: pytest.LogCaptureFixture) -> None:
    config = luigi_config.luigi.configuration.get_config()
    for (section, name, old), new in renamed.VALUES.items():
        config.set(section, name, old)
        luigi_config.complete(luigi_config.DEFAULTS)
        renamed.warn()
        assert config.get(section, name) == new
        assert f"[{section}] {name}: {old} is called {new} now" in caplog.text
