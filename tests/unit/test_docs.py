"""Documentation is under test: what it names exists, and what is generated is up to date."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys

import pytest

from pipeline import luigi_config, settings
from pipeline.__main__ import parser
from pipeline.cleaning.rules import RULES
from pipeline.tasks.range_monthly import RangeMonthly
from pipeline.warehouse import document

from ..conftest import CHECKOUT

README = (CHECKOUT / "README.md").read_text()


def luigi_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.optionxform = str  # type: ignore[assignment,method-assign]  # as Luigi has it
    config.read(CHECKOUT / "luigi.cfg")
    return config


def test_columns_page_is_what_the_declarations_say() -> None:
    assert (CHECKOUT / "docs" / "columns.md").read_text() == document.text(), (
        "run: python -m pipeline.warehouse.document > docs/columns.md"
    )


@pytest.mark.parametrize(("section", "name"), [(section, name) for section, name, _ in settings.names()])
def test_luigi_cfg_holds_every_setting_with_its_default(section: str, name: str) -> None:
    written = luigi_cfg().get(section, name)
    parameter = next(parameter for s, n, parameter in settings.names() if (s, n) == (section, name))
    if section != "RangeMonthly":
        assert parameter.parse(written) == parameter._default


def test_luigi_cfg_names_no_setting_that_does_not_exist() -> None:
    ours = {section for section, _, _ in settings.names()}
    known = {(section, name) for section, name, _ in settings.names()}
    written = {(section, name) for section in ours for name in luigi_cfg().options(section)}
    assert written == known


def test_luigi_cfg_has_luigis_settings_as_the_package_has_them() -> None:
    written = luigi_cfg()
    defaults = {**luigi_config.DEFAULTS, "core": luigi_config.DEFAULTS["core"] | luigi_config.COMMAND_DEFAULTS["core"]}
    assert {section: dict(written[section]) for section in defaults} == defaults
    task = dict(RangeMonthly.get_params())
    for name, text in written["RangeMonthly"].items():
        assert task[name].parse(text) == task[name]._default


def test_every_line_of_luigi_cfg_is_explained() -> None:
    lines = (CHECKOUT / "luigi.cfg").read_text().splitlines()
    sections = {section for section, _, _ in settings.names()} - {"RangeMonthly"}
    section, explained = "", False
    for line in lines:
        if line.startswith("["):
            section, explained = line.strip("[]"), False
        elif line.startswith("#"):
            explained = True
        elif "=" in line:
            assert explained or section not in sections, f"[{section}] {line} has no comment above it"


def test_every_verb_is_in_the_readme() -> None:
    verbs = next(action.choices for action in parser()._actions if action.dest == "verb")
    assert verbs
    missing = [verb for verb in verbs if f"python -m pipeline {verb}" not in README]
    assert not missing


def test_every_verb_in_the_readme_exists() -> None:
    verbs = next(action.choices for action in parser()._actions if action.dest == "verb")
    assert verbs
    assert set(re.findall(r"python -m pipeline (\w+)", README)) <= set(verbs)


def test_every_rule_is_in_the_readme() -> None:
    assert [name for name in RULES if f"`{name}`" not in README] == []


def test_every_setting_in_the_readme_exists() -> None:
    known = {(section, name) for section, name, _ in settings.names()}
    named = {
        (section, name)
        for section, names in re.findall(r"\[(\w+)\] ((?:\w+`?,? ?`?)+)", README)
        for name in re.findall(r"`?(\w+)", names)[:1]
        if section in {section for section, _ in known}
    }
    assert named and named <= known


def commands() -> list[list[str]]:
    """The ``luigi`` commands of the README, each as its arguments."""
    text = README.replace("\\\n", " ")
    lines = re.findall(r"`luigi (--module pipeline [^`]+)`", text) + re.findall(
        r"^    luigi (--module pipeline .+)$", text, re.M
    )
    return [shlex.split(line.split("  #")[0]) for line in lines if "2021-13" not in line]


@pytest.mark.slow
def test_luigi_takes_every_command_of_the_readme() -> None:
    """Built as the real command builds them, flags, settings and all, but not run."""
    build = (
        "import json, os, sys\n"
        "import pipeline  # once, for all\n"
        "from luigi.cmdline_parser import CmdlineParser\n"
        "for arguments in json.load(sys.stdin):\n"
        "    if os.fork() == 0:  # flags stay in a process, handed down to its children\n"
        "        with CmdlineParser.global_instance(arguments, allow_override=True) as parser:\n"
        "            print(parser.get_task_obj(), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    wanted = commands()
    assert len(wanted) > 10
    built = subprocess.run(
        [sys.executable, "-c", build], input=json.dumps(wanted), text=True, capture_output=True, cwd=CHECKOUT
    )
    assert not built.stderr
    assert len(built.stdout.splitlines()) == len(wanted)


def test_make_help_lists_every_target() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())  # type: ignore[index]
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    assert phony == explained


def test_development_page_names_what_there_is() -> None:
    text = (CHECKOUT / "docs" / "development.md").read_text()
    paths = {name for name in re.findall(r"`([\w./]+)`", text) if "/" in name}
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not (CHECKOUT / path).exists()] == []


def test_development_page_is_short() -> None:
    """Two pages of 60 lines: who takes over reads it at once."""
    assert len((CHECKOUT / "docs" / "development.md").read_text().splitlines()) <= 120
