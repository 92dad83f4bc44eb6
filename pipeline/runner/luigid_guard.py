"""Access control of luigid: which requests it answers, and what its pages may do in a browser.

luigid has no authentication. Any web page in a local browser can send it requests, directly or under a host name that
resolves to this machine (DNS rebinding). Therefore luigid answers only requests with a known ``Host`` header, from its
own pages or from programs, and GET changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import luigi.server
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, ErrorHandler, RequestHandler

from ..sanitize import sanitize_for_luigid

#: Addresses that mean all interfaces of the machine.
EVERYWHERE = ("", "0.0.0.0", "::")

#: Calls that change nothing. Luigi's page and scripts make them by GET.
_READING = {
    "count_pending",
    "dep_graph",
    "fetch_error",
    "get_running_task_resources",
    "get_task_progress_percentage",
    "get_task_status_message",
    "graph",
    "has_task_history",
    "inverse_dep_graph",
    "is_pause_enabled",
    "is_paused",
    "resource_list",
    "task_list",
    "task_search",
    "worker_list",
}

#: A name or an address, and a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?")

#: JSON that may contain HTML, links or control characters.
_ODD = re.compile(r"[<>]|\\[bfru]|tracking_url|[^ -~]")


class Hosts:
    """Host names under which luigid answers: this machine's, that of the listening address, and ``names``."""

    def __init__(self, address: str, names: Iterable[str] = ()) -> None:
        self.given = {name.lower().rstrip(".") for name in names}
        host = socket.gethostname().lower()
        self._names = {"localhost", host, host.partition(".")[0], address.lower(), *self.given}
        self._is_everywhere = address in EVERYWHERE

    def __contains__(self, host: str) -> bool:
        """Whether a ``Host`` header means this luigid. IP addresses are safe: DNS rebinding needs a name."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].strip("[]").lower().rstrip(".")
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return address.is_loopback or self._is_everywhere or name in self._names

    def is_own(self, origin: str, host: str) -> bool:
        """Whether an ``Origin`` header names luigid itself or a site that [cors] in luigi.cfg allows."""
        cors = luigi.server.cors()
        if cors.enabled and (cors.allow_any_origin or origin in cors.allowed_origins):
            return True
        if origin == "null":
            return bool(cors.enabled and cors.allow_null_origin)
        scheme, _, place = origin.lower().partition("://")
        if scheme not in ("http", "https") or _HOST.fullmatch(place) is None:
            return False
        # A proxy may drop the port. Only given names can be a proxy's.
        return place == host.lower() or place.partition(":")[0] in self.given


def guard(application: Application, hosts: Hosts) -> Application:
    """Add the checks to every handler of Luigi's application, and the headers to every answer."""
    headers = _headers()
    for rule in application.wildcard_router.rules:
        rule.target = _guarded(rule.target, hosts, headers)
    application.settings |= {
        "default_handler_class": _guarded(ErrorHandler, hosts, headers),
        "default_handler_args": {"status_code": 404},
    }
    return application


def refusal(request: HTTPServerRequest, hosts: Hosts) -> tuple[int, str] | None:
    """The HTTP status and the line with which a request is refused; None if it is answered."""
    host = request.headers.get("Host", "localhost")  # HTTP/1.0 clients send none
    if host not in hosts:
        return (
            421,
            "luigid does not allow this host name; if it is right, start luigid with --allowed-host and the name",
        )
    origin = request.headers.get("Origin")
    if origin is not None and not hosts.is_own(origin, host):
        return 403, "the request comes from a page of another site"
    call = request.path.removeprefix("/api/")
    is_from_page = request.headers.get("X-Requested-With") == "XMLHttpRequest"  # another site's page cannot set it
    if request.path != call and request.method == "GET" and call not in _READING and not is_from_page:
        return 405, "a call that changes something needs POST"
    return None


def _guarded(handler: type[RequestHandler], hosts: Hosts, headers: dict[str, str]) -> type[RequestHandler]:
    class Guarded(handler):  # type: ignore[valid-type, misc]
        def set_default_headers(self) -> None:
            super().set_default_headers()
            for name, value in headers.items():
                self.set_header(name, value)

        def prepare(self) -> Any:
            if found := refusal(self.request, hosts):
                status, why = found
                self.set_status(status)
                self.set_header("Content-Type", "text/plain")
                self.finish(f"{why}\n")
                return None
            return super().prepare()

        def get_argument(self, name: str, *args: Any, **kwargs: Any) -> Any:
            value = super().get_argument(name, *args, **kwargs)
            is_odd = name == "data" and isinstance(value, str) and _ODD.search(value)
            return json.dumps(sanitize_for_luigid(json.loads(value))) if is_odd else value

    return Guarded


def _headers() -> dict[str, str]:
    """Security headers of every answer: only Luigi's own scripts run, and no other site may frame or read a page."""
    page = Path(luigi.server.__file__).with_name("static") / "visualiser" / "index.html"
    scripts = re.findall(r"<script>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL)
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    policy = {
        "default-src": "'self'",
        "script-src": f"'self' {hashes}".strip(),
        "style-src": "'self' 'unsafe-inline'",  # widths of bars
        "img-src": "'self' data:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
