"""A real luigid, as ``python -m pipeline ui`` starts it, on a free port of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from ..patience import PATIENCE, wait_for
from ..warm import WARM
from .ports import free_port

CHECKOUT = Path(__file__).resolve().parents[2]

#: Seconds of silence after which a host counts as dead, where no test is about that: a busy machine is no dead host.
PATIENT = 3600


class Luigid:
    """Runs in ``folder`` until the ``with`` block ends. ``prefix`` is put before the command, such as ip netns exec.

    ``arguments`` are put behind it.

    A host that is not heard of for ``disconnect_delay`` seconds is dead; by default as many as luigi.cfg says.
    """

    def __init__(
        self,
        folder: Path,
        address: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
        disconnect_delay: int | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder, self.address, self.prefix, self.arguments = folder, address, prefix, arguments
        self.config = CHECKOUT / "luigi.cfg"
        if disconnect_delay is not None:
            text, count = re.subn(
                r"(?m)^worker_disconnect_delay = .*",
                f"worker_disconnect_delay = {disconnect_delay}",
                self.config.read_text(),
            )
            assert count == 1
            folder.mkdir(exist_ok=True)
            self.config = folder / "luigi.cfg"
            self.config.write_text(text)
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def flags(self) -> tuple[str, ...]:
        return "--scheduler-host", self.address, "--scheduler-port", str(self.port)

    def __enter__(self) -> Luigid:
        self.folder.mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        with (self.folder / "luigid.log").open("ab") as log:
            self._process = WARM.start(
                [
                    *(*self.prefix, sys.executable, "-m", "pipeline", "ui"),
                    *("--address", self.address, "--port", str(self.port)),
                    *self.arguments,
                ],
                self.folder,
                {**env, "LUIGI_CONFIG_PATH": str(self.config)},
                log,
            )
        wait_for(self._answers, self._process, lambda: self.log)

    def _answers(self) -> bool:
        try:
            return requests.head(self.url, timeout=PATIENCE).status_code == 204
        except requests.ConnectionError:
            return False

    def send(self, number: int) -> None:
        """Send a signal, and do not wait for what it does."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self._process is not None
        self.send(number)
        self._process.wait(PATIENCE)

    @property
    def log(self) -> str:
        return (self.folder / "luigid.log").read_text()

    def ask(self, method: str, **arguments: Any) -> Any:
        """The answer of one of luigid's own RPC methods."""
        answer = requests.post(f"{self.url}/api/{method}", data={"data": json.dumps(arguments)}, timeout=PATIENCE)
        answer.raise_for_status()
        return answer.json()["response"]

    def tasks(self, status: str = "") -> list[dict[str, Any]]:
        """What the visualiser shows of all tasks of a status."""
        found = self.ask("task_list", status=status, upstream_status="")
        return [{"id": name, **task} for name, task in found.items()]

    def page(self, path: str) -> str:
        answer = requests.get(f"{self.url}{path}", timeout=PATIENCE)
        answer.raise_for_status()
        return answer.text
