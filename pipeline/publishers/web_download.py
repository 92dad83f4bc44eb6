"""Downloads one file from a web server; a broken transfer is resumed where it stopped, also by another process.

A broken transfer is resumed as long as the server's ETag promises the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..errors import NoAnswer, PipelineError, PublisherUnavailable, TruncatedFile
from ..retry import Policy
from .download_checks import check_zones
from .fetching import CHUNK, Fetched, IncomingFile
from .version import Version

if TYPE_CHECKING:
    from ..http_client import Answer

#: A broken transfer that brought at least so many bytes goes on at once and does not count as a failed try.
ADVANCE = 8 << 20


class WebDownload:
    """One try to bring a file from a web server; it goes on by itself as long as it gets ahead.

    ``get`` makes a GET request for it with the headers given, and returns the answer if that is a success or 416, and
    else raises what the status means.
    """

    def __init__(self, file: IncomingFile, get: Callable[[Mapping[str, str]], Answer], policy: Policy) -> None:
        self._file = file
        self._get = get
        self._policy = policy

    def attempt(self) -> Fetched:
        while True:
            before = self._arrived_before()
            try:
                return self._request()
            except (PublisherUnavailable, TruncatedFile):
                if not self._file.version.is_strong:
                    self._file.discard()
                if self._arrived_before() - before < ADVANCE:
                    raise
            except PipelineError:
                self._file.remove_parts()
                raise

    def _request(self) -> Fetched:
        offset = self._arrived_before()
        headers = {"Range": f"bytes={offset}-", "If-Range": self._file.version.etag or ""} if offset else {}
        with self._get(headers) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{offset}":
                    return self._take(lambda: b"", offset)  # all is there: it ended just before the renaming
                self._file.discard()
                raise TruncatedFile(f"{self._file.title}: it is shorter than what was fetched before; starting over")
            version = Version.from_headers(answer.headers)
            if answer.status_code == 206:
                if not self._is_rest(version, answer, offset):
                    self._file.discard()
                    raise TruncatedFile(f"{self._file.title}: not the part that was asked for; starting over")
                self._file.version = version
                return self._take(lambda: self._read(answer), offset)
            self._file.version = version
            if headers or not self._arrived_before():
                return self._take(lambda: self._read(answer), 0)
        # The answer told which version is there now, and an earlier process left a part of just that.
        return self._request()

    def _take(self, read: Callable[[], bytes], offset: int) -> Fetched:
        return self._file.receive(read, offset, verify=self._verify_zones if self._file.file_format == "csv" else None)

    def _is_rest(self, version: Version, answer: Answer, offset: int) -> bool:
        """Whether a 206 is what follows our first ``offset`` bytes, of the same version."""
        return (
            version.etag == self._file.version.etag
            and version.length is not None
            and version.length == (self._file.version.length or version.length)
            and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        )

    def _arrived_before(self) -> int:
        """Bytes of this version in the partial file; 0 where they must not be used."""
        if self._file.version.is_strong and self._file.part.exists():
            return self._file.part.stat().st_size
        return 0

    def _read(self, answer: Answer) -> bytes:
        import urllib3

        from .. import http_client

        try:
            return answer.read(CHUNK, self._policy.min_rate)
        except http_client.Silent:
            raise NoAnswer(f"{self._file.title}: silent for {self._policy.timeout:g} s; try again later") from None
        except http_client.TooSlow as error:
            raise PublisherUnavailable(
                f"{self._file.title}: it comes at {error.rate:.0f} bytes per second, less than the "
                f"{self._policy.min_rate:g} of [publisher] min_rate; try again later, or set that lower"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            raise TruncatedFile(f"{self._file.title}: the connection broke before the end; try again later") from None

    def _verify_zones(self, sha256: str) -> None:
        """The zone table has no checksum: it must have all known zones, and come twice the same."""
        check_zones(self._file.part)
        again = hashlib.sha256()
        with self._get({}) as answer:
            length = 0
            while data := self._read(answer):
                length += len(data)
                self._file.check_size(length)
                again.update(data)
        if again.hexdigest() != sha256:
            self._file.discard()
            raise TruncatedFile(f"{self._file.title}: two transfers brought different bytes; try again later")
