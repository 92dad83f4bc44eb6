"""Hosts as network namespaces of this machine: each with an address of its own, and a link that can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import TracebackType

HUB = "hub"


class Network:
    """A hub and hosts around it, until the ``with`` block ends. The tests' own process reaches the hub.

    ``NotImplementedError`` says why this machine has no namespaces for us.
    """

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self._prefix = f"trips{os.getpid()}"
        # Of this process alone: other tests may have a network of their own at the same time.
        high, low = divmod(os.getpid() % (1 << 14), 1 << 8)
        self._subnet = f"10.{192 + high}.{low}"
        #: Address of the hub as every host and the tests see it.
        self.address = f"{self._subnet}.1"

    def __enter__(self) -> Network:
        if sys.platform != "linux" or not shutil.which("ip"):
            raise NotImplementedError("network namespaces are Linux's, and made with the command ip")
        try:
            self._ip("netns", "add", self._name(HUB))
            self._ip("-n", self._name(HUB), "link", "set", "lo", "up")
            self._ip("-n", self._name(HUB), "addr", "add", f"{self.address}/32", "dev", "lo")
            self._connect("tests", 1, None)
            for number, host in enumerate(self.hosts, 2):
                self._ip("netns", "add", self._name(host))
                self._ip("-n", self._name(host), "link", "set", "lo", "up")
                self._connect(host, number, self._name(host))
            subprocess.run([*self.prefix(HUB), "true"], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            self.__exit__(None, None, None)
            raise NotImplementedError(f"no network namespaces here: {error.stderr.strip()}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in (HUB, *self.hosts):
            subprocess.run(["ip", "netns", "del", self._name(name)], capture_output=True)

    def prefix(self, host: str) -> tuple[str, ...]:
        """What to put before a command that shall run on a host."""
        return "ip", "netns", "exec", self._name(host)

    def cut(self, host: str) -> None:
        self._ip("-n", self._name(HUB), "link", "set", f"to-{host}", "down")

    def mend(self, host: str) -> None:
        self._ip("-n", self._name(HUB), "link", "set", f"to-{host}", "up")

    def _name(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _connect(self, host: str, number: int, namespace: str | None) -> None:
        """Lay a link between the hub and a host, or the namespace of the tests, and tell the host where the hub is."""
        there = ["-n", namespace] if namespace else []
        device = f"{self._prefix[-7:]}h{number}"
        self._ip(*there, "link", "add", device, "type", "veth", "peer", "name", f"to-{host}", "netns", self._name(HUB))
        self._ip("-n", self._name(HUB), "addr", "add", f"{self._subnet}.{4 * number + 1}/30", "dev", f"to-{host}")
        self._ip("-n", self._name(HUB), "link", "set", f"to-{host}", "up")
        self._ip(*there, "addr", "add", f"{self._subnet}.{4 * number + 2}/30", "dev", device)
        self._ip(*there, "link", "set", device, "up")
        self._ip(*there, "route", "add", self.address, "via", f"{self._subnet}.{4 * number + 1}")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
