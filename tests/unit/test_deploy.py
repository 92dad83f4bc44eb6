"""Dockerfile, compose, Kubernetes, crontab and systemd units: they parse, name only what exists, and every command in
them is one that the real command line takes."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.emulators.bigquery import argument_parser as emulator_parser
from pipeline import settings
from pipeline.__main__ import parser

from ..conftest import CHECKOUT
from . import dev_packages

DEPLOY = CHECKOUT / "deploy"
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
UNATTENDED = (CHECKOUT / "docs" / "unattended.md").read_text()

#: Programs of other people's images, whose arguments nobody here can check.
FOREIGN = {"supercronic", "wget", "pg_isready"}

#: What programs besides ours read from the environment of a container with the pipeline.
FOREIGN_VARIABLES = {"PGPASSWORD", "TZ", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"}


def example_environment() -> dict[str, str]:
    lines = (CHECKOUT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(text: str, values: dict[str, str]) -> str:
    """The text as docker compose reads it: ``${NAME:-default}`` and ``${NAME:?complaint}``."""

    def value(match: re.Match[str]) -> str:
        name, kind, other = match.groups()
        given = values.get(name, "")
        assert given or kind == ":-", f"{name} has to be set"
        return given or other

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text)


COMPOSE_TEXT = (CHECKOUT / "docker-compose.yml").read_text()
PASSWORDS = {"POSTGRES_PASSWORD": "a", "PGADMIN_PASSWORD": "b", "LUIGID_PASSWORD": "c"}
COMPOSE: dict[str, Any] = yaml.safe_load(filled_in(COMPOSE_TEXT, {**example_environment(), **PASSWORDS}))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for _, document in documents():
        spec = document.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield f"{document['kind']} {document['metadata']['name']}", spec["template"]["spec"]


def cron_lines(also_examples: bool = False) -> list[tuple[str, list[str]]]:
    """Schedule and command of each line of the crontab."""
    pattern = r"^(?:# )?((?:[\d*/,-]+ ){5})(.+)$" if also_examples else r"^((?:[\d*/,-]+ ){5})(.+)$"
    found = re.findall(pattern, (DEPLOY / "crontab").read_text(), re.M)
    return [(when.strip(), shlex.split(command)) for when, command in found]


def units() -> Iterator[tuple[Path, configparser.ConfigParser]]:
    for path in sorted((DEPLOY / "systemd").iterdir()):
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read(path)
        yield path, unit


def commands() -> dict[str, list[str]]:
    """Every command of every file, by where it stands."""
    found: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        if "build" in service:
            if "command" in service:
                found[f"compose {name}"] = service["command"]
            if "healthcheck" in service:
                found[f"compose {name} health"] = service["healthcheck"]["test"][1:]
    for name, pod in pods():
        for container in pod["containers"]:
            words = container["command"] + container.get("args", [])
            if words[:2] == ["sh", "-c"]:
                found[f"{name} shell"] = shlex.split(re.search(r"luigi --.*?(?= &)", words[2])[0])  # type: ignore[index]
            else:
                found[name] = words
    for number, (_, words) in enumerate(cron_lines(also_examples=True)):
        assert words[:3] == ["cd", "/srv/nyc-trips", "&&"]
        found[f"crontab {number}"] = words[3:]
    for path, unit in units():
        if unit.has_option("Service", "ExecStart"):
            found[path.name] = shlex.split(unit["Service"]["ExecStart"])
    for number, words in enumerate(re.findall(r"^\s*(?:HEALTHCHECK[^\n]*\\\n\s*)?CMD (\[.*\])$", DOCKERFILE, re.M)):
        found[f"Dockerfile {number}"] = json.loads(words)
    for number, line in enumerate(re.findall(r"^    ((?:luigi|python -m pipeline) .+)$", UNATTENDED, re.M)):
        found[f"unattended.md {number}"] = shlex.split(line.split("  #")[0])
    return found


COMMANDS = commands()


def root_task(words: list[str]) -> list[str] | None:
    """The arguments of the luigi command that this command is or wraps."""
    if words[0] == "luigi":
        return words[1:]
    if words[1:4] == ["-m", "pipeline", "cron"]:
        task = parser().parse_args(words[3:]).task
        return ["--module", "pipeline", *task] if task else None
    return None


@pytest.mark.parametrize("where", COMMANDS)
def test_command_is_one_of_ours_with_arguments_that_it_takes(where: str) -> None:
    words = COMMANDS[where]
    program = Path(words[0]).name
    if program == "python" and words[1] == "-c":
        compile(words[2], where, "exec")
    elif program == "python" and words[1:3] == ["-m", "pipeline"]:
        if words[3:] != ["--help"]:
            parser().parse_args(words[3:])
    elif program == "python":
        assert words[1] == "deploy/emulators/bigquery.py"
        emulator_parser().parse_args(words[2:])
    else:
        assert program in {"luigi", *FOREIGN}


def test_luigi_builds_every_root_task() -> None:
    """With flags and settings, as the real command builds them; nothing runs."""
    build = (
        "import json, sys\n"
        "from luigi.cmdline_parser import CmdlineParser\n"
        "for arguments in json.load(sys.stdin):\n"
        "    with CmdlineParser.global_instance(arguments, allow_override=True) as parser:\n"
        "        print(parser.get_task_obj())\n"
    )
    wanted = [arguments for words in COMMANDS.values() if (arguments := root_task(words))]
    assert len(wanted) >= 6
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    built = subprocess.run(
        [sys.executable, "-c", build],
        input=json.dumps(wanted),
        text=True,
        capture_output=True,
        cwd=CHECKOUT,
        env=environment,
    )
    assert built.returncode == 0, built.stderr
    assert len(built.stdout.splitlines()) == len(wanted)


# -- compose ---------------------------------------------------------------------------------------


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) >= 5
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []
    assert len({port.split(":")[1] for port in ports}) == len(ports), "each has a port of its own"


def test_images_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^ARG \w+=(.+)$", DOCKERFILE, re.M)
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.M).count("${PYTHON}") == 2
    assert not re.findall(r"^FROM (?!\$\{|build\b|runtime\b)", DOCKERFILE, re.M), "bases come from the pinned arguments"
    assert re.search(r"go install \S+@v\d+\.\d+\.\d+$", DOCKERFILE, re.M)


def test_services_name_only_what_exists() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.M))
    named: set[str] = set()
    for name, service in SERVICES.items():
        assert service.get("build", {"target": "runtime"})["target"] in stages
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            named |= set() if source.startswith(".") else {source}
            assert not source.startswith(".") or (CHECKOUT / source).exists(), f"{name}: {source}"
        for other, terms in service.get("depends_on", {}).items():
            if terms["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
    assert named == set(COMPOSE["volumes"])


def test_services_that_last_have_a_healthcheck() -> None:
    lasting = {name for name, service in SERVICES.items() if "ports" in service or "restart" in service}
    inherited = {"worker", "cron"}  # the image's own
    assert "HEALTHCHECK" in DOCKERFILE
    assert [name for name in lasting - inherited if "healthcheck" not in SERVICES[name]] == []


def test_passwords_come_from_the_environment_file() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT))
    assert used == set(example_environment())
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert value in PASSWORDS.values(), f"{name}: {variable} is written in the file"
    assert [name for name in PASSWORDS if example_environment()[name]] == [], "the example has no password"
    for name in PASSWORDS:
        with pytest.raises(AssertionError, match=name):
            filled_in(COMPOSE_TEXT, {**example_environment(), **PASSWORDS, name: ""})
    assert ".env" in (CHECKOUT / ".gitignore").read_text().split()


def test_every_variable_of_the_example_is_explained() -> None:
    explained = False
    for line in (CHECKOUT / ".env.example").read_text().splitlines():
        assert "=" not in line or line.startswith("#") or explained, line
        explained = bool(line) and (explained or line.startswith("#"))


def our_variables() -> Iterator[tuple[str, str]]:
    for name, service in SERVICES.items():
        if "build" in service:
            yield from ((f"compose {name}", variable) for variable in service.get("environment", {}))
    for name, document in documents():
        if document["kind"] in ("ConfigMap", "Secret"):
            yield from ((name, variable) for variable in document.get("data", document.get("stringData", {})))
    yield from (("Dockerfile", variable) for variable in re.findall(r"(PIPELINE_\w+)=", DOCKERFILE))
    yield from (("unattended.md", variable) for variable in re.findall(r"(PIPELINE_[A-Z_]+)=", UNATTENDED))


def test_variables_are_settings() -> None:
    known = {settings.variable(section, name) for section, name, _ in settings.names()} | FOREIGN_VARIABLES
    assert [(where, variable) for where, variable in our_variables() if variable not in known] == []


# -- Dockerfile ------------------------------------------------------------------------------------


def test_dockerfile_copies_what_exists_and_is_let_in() -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.M)
    let_in = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = re.findall(r"^COPY (?:--from=(\w+) )?(.+) \S+$", DOCKERFILE, re.M)
    assert len(copies) > 6
    for stage, sources in copies:
        if stage:
            assert stage in stages
            continue
        for source in sources.split():
            assert (CHECKOUT / source).exists(), source
            assert any(source == each or source.startswith(f"{each}/") for each in let_in), f"{source} is ignored"
    assert [each for each in let_in if not (CHECKOUT / each).exists()] == []


def test_emulator_needs_nothing_but_the_image(tmp_path: Path) -> None:
    """It is mounted into the image, which has neither the tests nor what they need."""
    (mount,) = SERVICES["bigquery"]["volumes"]
    source, target, mode = mount.split(":")
    workdir = re.search(r"^WORKDIR (.+)$", DOCKERFILE, re.M)[1]  # type: ignore[index]
    assert (target, mode) == (f"{workdir}/{source.removeprefix('./')}", "ro")
    copied = shutil.copytree(CHECKOUT / source, tmp_path / "emulators")
    imported = dev_packages.import_with([], "bigquery", copied)
    assert imported.returncode == 0, imported.stderr


def test_image_runs_as_nobody_special() -> None:
    runtime = DOCKERFILE.partition("AS runtime")[2]
    assert re.search(r"^USER trips$", runtime, re.M) and "USER root" not in runtime
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name


def test_constraints_agree_with_the_requirements() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = re.findall(r"^([\w-]+)==([\w.]+)", path.read_text(), re.M)
        return {name.lower().replace("_", "-"): version for name, version in lines}

    constraints = pins(DEPLOY / "constraints.txt")
    assert len(constraints) > 30
    assert pins(CHECKOUT / "requirements.txt").items() <= constraints.items()


def test_image_is_built_and_both_its_commands_run() -> None:
    """On a base that was made on this machine and has the base's name; nothing is pulled."""
    buildah = shutil.which("buildah")
    if buildah is None:
        pytest.skip("no buildah on this machine")
    environment = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    base = re.search(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.M)[1]  # type: ignore[index]

    def run(*words: str) -> str:
        done = subprocess.run([buildah, *words], cwd=CHECKOUT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    known = subprocess.run([buildah, "inspect", "--type", "image", base], env=environment, capture_output=True)
    if known.returncode:
        pytest.skip(f"no image {base} on this machine; make one with debootstrap")
    run(
        "bud",
        "--pull-never",
        "--network",
        "host",
        "--volume",
        "/etc/ssl/certs:/etc/ssl/certs:ro",
        "-t",
        "nyc-trips",
        ".",
    )
    container = run("from", "--pull-never", "localhost/nyc-trips").strip()
    try:
        inside = ("run", container, "--")
        assert run(*inside, "id", "-u").strip() == "10001"
        assert "--folder" in run(*inside, "python", "-m", "pipeline", "ui", "--help")
        assert "status" in run(*inside, "python", "-m", "pipeline", "--help")
        sample = ("env", "PIPELINE_PUBLISHER_NAME=sample", "PIPELINE_PUBLISHER_URL=sample:?rows=50")
        loaded = run(*inside, *sample, "luigi", "--module", "pipeline", "RangeMonthly", "--local-scheduler")
        assert loaded.count("loaded") >= 4
    finally:
        run("rm", container)


# -- cron, systemd, Kubernetes ----------------------------------------------------------------------


def test_crontab_says_when_and_in_which_zone() -> None:
    text = (DEPLOY / "crontab").read_text()
    assert re.search(r"^CRON_TZ=America/New_York$", text, re.M) and re.search(r"^TZ=America/New_York$", text, re.M)
    (months, months_command), (nightly, nightly_command) = cron_lines()
    assert months == "0 5 1 * *" and months_command[-4:] == ["--last", "6", "--dataset", "all"]
    assert nightly.endswith("* * *") and "Refresh" in nightly_command
    assert len(cron_lines(also_examples=True)) == 3, "and an interval as an example"
    assert "%" not in text, "cron takes it for the end of the line"


def test_systemd_units_belong_together() -> None:
    found = dict(units())
    names = {path.name for path in found}
    for path, unit in found.items():
        if path.suffix == ".timer":
            assert unit.get("Timer", "Unit", fallback=path.with_suffix(".service").name) in names
            when = unit.get("Timer", "OnCalendar", fallback="")
            assert when.endswith("America/New_York") or unit.get("Timer", "OnUnitInactiveSec")
        else:
            assert unit["Service"]["Type"] == "oneshot"
            assert unit["Service"]["SuccessExitStatus"] == "10"
            home = unit["Service"]["WorkingDirectory"]
            assert f"useradd --system --home-dir {home} --shell /bin/bash {unit['Service']['User']}\n" in UNATTENDED
    analyze = shutil.which("systemd-analyze")
    if analyze:
        for unit in found.values():
            when = unit.get("Timer", "OnCalendar", fallback="")
            if when:
                assert subprocess.run([analyze, "calendar", when], capture_output=True).returncode == 0, when


def test_kubernetes_names_only_what_exists() -> None:
    everything = list(documents())
    listed = next(document for name, document in everything if name == "kustomization.yaml")
    for name in listed["resources"]:
        assert (DEPLOY / "kubernetes" / name).is_file()
    known: dict[str, set[str]] = {}
    for _, document in everything:
        if "metadata" in document:
            known.setdefault(document["kind"], set()).add(document["metadata"]["name"])
    for name, pod in pods():
        assert pod.get("serviceAccountName", "nyc-trips") in known["ServiceAccount"], name
        for volume in pod["volumes"]:
            assert volume["persistentVolumeClaim"]["claimName"] in known["PersistentVolumeClaim"], name
        for container in pod["containers"]:
            assert container["image"] == listed["images"][0]["name"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert source["configMapRef"]["name"] in known["ConfigMap"]
                else:
                    assert source["secretRef"]["name"] in known["Secret"]
    assert {"luigid"} <= known["Service"]


def test_kubernetes_runs_what_cron_runs() -> None:
    jobs = [document for _, document in documents() if document["kind"] == "CronJob"]
    assert [job["spec"]["schedule"] for job in jobs] == [when for when, _ in cron_lines()]
    assert {job["spec"]["timeZone"] for job in jobs} == {"America/New_York"}
    assert {job["spec"]["concurrencyPolicy"] for job in jobs} == {"Forbid"}


def test_pgadmin_knows_the_server_of_the_compose_file() -> None:
    server = json.loads((DEPLOY / "pgadmin" / "servers.json").read_text())["Servers"]["1"]
    assert server["Host"] in SERVICES
    assert server["Username"] == SERVICES["postgres"]["environment"]["ETL_ROLE"]
    assert server["MaintenanceDB"] == SERVICES["postgres"]["environment"]["ETL_DATABASE"]


def test_nobody_but_luigid_can_write_its_state() -> None:
    """It is unpickled: whoever writes it runs code in luigid."""
    used = {name: {volume.split(":")[0] for volume in service.get("volumes", [])} for name, service in SERVICES.items()}
    assert used["luigid"] == {"luigid"}
    assert [name for name, volumes in used.items() if "luigid" in volumes] == ["luigid"]
    claims = {name: {one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]} for name, pod in pods()}
    assert claims["Deployment luigid"] == {"luigid"}
    assert [name for name, claimed in claims.items() if "luigid" in claimed] == ["Deployment luigid"]


def test_luigid_knows_the_name_by_which_workers_call_it() -> None:
    for words in (SERVICES["luigid"]["command"], COMMANDS["Deployment luigid"]):
        assert parser().parse_args(words[3:]).allowed_host == ["luigid"]
    callers = [" ".join(words) for where, words in COMMANDS.items() if "scheduler-url" in " ".join(words)]
    assert len(callers) >= 4
    names = {name for words in callers for name in re.findall(r"--scheduler-url[ =]http://(?:\S+@)?([\w.]+):", words)}
    assert names == {"luigid"}


def test_postgresql_s_role_is_none_that_the_image_makes_a_superuser() -> None:
    environment = SERVICES["postgres"]["environment"]
    assert environment["ETL_ROLE"] != environment.get("POSTGRES_USER", "postgres")
    assert "./deploy/postgres:/docker-entrypoint-initdb.d:ro" in SERVICES["postgres"]["volumes"]
    assert os.access(DEPLOY / "postgres" / "etl.sh", os.X_OK)


def test_proxy_asks_for_a_password() -> None:
    template = (DEPLOY / "nginx" / "luigid.conf.template").read_text()
    assert "auth_basic_user_file /etc/nginx/conf.d/luigid.htpasswd" in template
    variables = set(re.findall(r"\$\{(\w+)\}", template + (DEPLOY / "nginx" / "luigid.htpasswd.template").read_text()))
    assert variables == set(SERVICES["proxy"]["environment"])
