"""An address for notifications: takes what Apprise posts to ``json://``, or never answers. On 127.0.0.1.

with Inbox() as inbox:
    project.environment["PIPELINE_NOTIFY_URLS"] = inbox.url
    ...
    assert "failed" in inbox.messages[0]["title"]
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

#: Stands for the token that is part of many addresses.
SECRET = "t0k3n-of-the-inbox"


class Inbox:
    """Serves until the ``with`` block ends. With ``is_silent`` it takes a message and never answers."""

    def __init__(self, is_silent: bool = False, status: int = 200) -> None:
        self.messages: list[dict[str, Any]] = []
        self.is_silent = is_silent
        self.status = status
        self.over = threading.Event()
        handler = type("Handler", (_Handler,), {"inbox": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """As ``[notify] urls`` has it."""
        return f"json://user:{SECRET}@127.0.0.1:{self._server.server_address[1]}/{SECRET}"

    def __enter__(self) -> Inbox:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    inbox: Inbox

    def do_POST(self) -> None:
        self.inbox.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.inbox.is_silent:
            # A byte now and then, so that no read times out: only the sender's own patience ends this.
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
            while not self.inbox.over.wait(0.5):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
            return
        self.send_response(self.inbox.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent: tests look at ``Inbox.messages``."""
