"""Downloads one file from a web server: what broke off is resumed where it stopped, also by another process.

A broken transfer is resumed as long as the server's ETag promises the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NoAnswer, PipelineError, PublisherUnavailable, TruncatedFile
from ..partition import Partition
from ..retry import Policy
from .fetching import CHUNK, Fetched, IncomingFile, Progress
from .file_checks import check_zones
from .version import Version

if TYPE_CHECKING:
    from .http_request import Answer

#: A broken transfer that brought at least so many bytes goes on at once and does not count as a failed try.
ADVANCE = 8 << 20


class WebDownload(IncomingFile):
    """A file on its way from a web server.

    ``get`` makes a GET request for it with the headers given, and returns the answer if that is a success or 416, and
    else raises what the status means. ``redact`` removes credentials from a text.
    """

    def __init__(
        self,
        partition: Partition,
        url: str,
        target: Path,
        file_format: str,
        progress: Progress | None,
        *,
        get: Callable[[Mapping[str, str]], Answer],
        redact: Callable[[str], str],
        policy: Policy,
    ) -> None:
        super().__init__(partition, url, target, file_format, progress)
        self._get = get
        self._redact = redact
        self._policy = policy

    def redact(self, text: str) -> str:
        return self._redact(text)

    def attempt(self) -> Fetched:
        """One try; it goes on by itself as long as it gets ahead."""
        while True:
            before = self._arrived_before()
            try:
                return self._request()
            except (PublisherUnavailable, TruncatedFile):
                if not self.version.is_strong:
                    self.discard()
                if self._arrived_before() - before < ADVANCE:
                    raise
            except PipelineError:
                self.remove_parts()
                raise

    def _request(self) -> Fetched:
        offset = self._arrived_before()
        headers = {"Range": f"bytes={offset}-", "If-Range": self.version.etag or ""} if offset else {}
        with self._get(headers) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{offset}":
                    return self._take(lambda: b"", offset)  # all is there: it ended just before the renaming
                self.discard()
                raise TruncatedFile(f"{self.title}: it is shorter than what was fetched before; starting over")
            version = Version.from_headers(answer.headers)
            if answer.status_code == 206:
                if not self._is_rest(version, answer, offset):
                    self.discard()
                    raise TruncatedFile(f"{self.title}: not the part that was asked for; starting over")
                self.version = version
                return self._take(lambda: self._read(answer), offset)
            self.version = version
            if headers or not self._arrived_before():
                return self._take(lambda: self._read(answer), 0)
        # The answer told which version is there now, and an earlier process left a part of just that.
        return self._request()

    def _take(self, read: Callable[[], bytes], offset: int) -> Fetched:
        return self.receive(read, offset, verify=self._verify_zones if self.file_format == "csv" else None)

    def _is_rest(self, version: Version, answer: Answer, offset: int) -> bool:
        """Whether a 206 is what follows our first ``offset`` bytes, of the same version."""
        return (
            version.etag == self.version.etag
            and version.length is not None
            and version.length == (self.version.length or version.length)
            and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        )

    def _arrived_before(self) -> int:
        """Bytes of this version in the partial file; 0 where they must not be used."""
        if self.version.is_strong and self.part.exists():
            return self.part.stat().st_size
        return 0

    def _read(self, answer: Answer) -> bytes:
        import urllib3

        from . import http_request

        try:
            return answer.read(CHUNK, self._policy.min_rate)
        except http_request.Silent:
            raise NoAnswer(f"{self.title}: silent for {self._policy.timeout:g} s; try again later") from None
        except http_request.TooSlow as error:
            raise PublisherUnavailable(
                f"{self.title}: it comes at {error.rate:.0f} bytes per second, less than the "
                f"{self._policy.min_rate:g} of [publisher] min_rate; try again later, or set that lower"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            raise TruncatedFile(f"{self.title}: the connection broke before the end; try again later") from None

    def _verify_zones(self, sha256: str) -> None:
        """The zone table has no checksum: it must have all known zones, and come twice the same."""
        check_zones(self.part)
        again = hashlib.sha256()
        with self._get({}) as answer:
            length = 0
            while data := self._read(answer):
                length += len(data)
                self.check_size(length)
                again.update(data)
        if again.hexdigest() != sha256:
            self.discard()
            raise TruncatedFile(f"{self.title}: two transfers brought different bytes; try again later")
