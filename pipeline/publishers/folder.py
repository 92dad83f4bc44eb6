"""A publisher that is a folder of this machine, in the layout of tlc or dtc: ``file:`` addresses."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from .. import datasets
from ..errors import MissingAtPublisher, RefusedByPublisher, TruncatedFile, UsageError, WrongFormat
from ..local_paths import path_of, url_of
from ..partition import ZONES, Partition, parse_month
from ..retry import DEFAULT, Policy
from .availability import Availability
from .base import LEAVE_OUT, Publisher
from .catalog import README, Catalog
from .fetching import CHUNK, Fetched, IncomingFile
from .version import Version


class FolderPublisher(Publisher):
    """Files are looked at whenever a question about them comes up."""

    is_local: ClassVar = True

    @classmethod
    def open(cls, catalog: Catalog, url: str) -> FolderPublisher:
        try:
            return cls(catalog, url_of(path_of(url)))
        except UsageError as error:
            raise UsageError(f"[publisher] url: {error}") from None

    @cached_property
    def folder(self) -> Path:
        """The base folder."""
        return path_of(self.base_url)

    @property
    def is_synthetic(self) -> bool:
        return super().is_synthetic or (self.folder / README).exists()

    def address(self, partition: Partition) -> str:
        return f"{self.base_url.rstrip('/')}/{self.layout.path(partition)}"

    def path(self, partition: Partition) -> Path:
        """Path of a file."""
        return self.folder / self.layout.path(partition)

    def version(self, partition: Partition, policy: Policy = DEFAULT, known_month: dt.date | None = None) -> Version:
        path = self.path(partition)
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._check_folder()
            raise MissingAtPublisher(f"{partition}: {path} is not there; {LEAVE_OUT}") from None
        except OSError as error:
            raise RefusedByPublisher(f"{partition}: {path} cannot be read: {error.strerror}") from None
        if not path.is_file():
            raise RefusedByPublisher(f"{partition}: {path} is not a file; check [publisher] url")
        return Version.from_stat(stat)

    def _availability(
        self, dataset: str, wanted: Sequence[dt.date], policy: Policy, known_month: dt.date | None, today: dt.date
    ) -> Availability:
        """As declared; the folder is listed once."""
        found = self._months(dataset)
        return Availability.of(wanted, set(wanted) - found, max(found, default=None), today)

    def check_reachable(self, policy: Policy) -> None:
        self._check_folder()

    def is_unchanged(self, partition: Partition, recorded: Version, sha256: str, current: Version) -> bool:
        """A file that was only touched is still the same."""
        if super().is_unchanged(partition, recorded, sha256, current):
            return True
        if current.length != recorded.length:
            return False
        try:
            with self.path(partition).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return True  # taken away since it was looked at; a check that fails changes nothing

    def _fetch_once(self, incoming: IncomingFile, policy: Policy, known_month: dt.date | None) -> Fetched:
        path = self.path(incoming.partition)
        incoming.version = self.version(incoming.partition)

        def check_unchanged(sha256: str = "") -> None:
            try:
                is_unchanged = Version.from_stat(path.stat()) == incoming.version
            except OSError:
                is_unchanged = False
            if not is_unchanged:
                raise TruncatedFile(f"{incoming.title} changed while it was copied; try again when it is complete")

        try:
            with path.open("rb") as file:
                return incoming.receive(lambda: file.read(CHUNK), verify=check_unchanged)
        except (WrongFormat, TruncatedFile):
            check_unchanged()  # half of each version looks like a damaged file
            raise
        except OSError as error:
            raise RefusedByPublisher(f"{incoming.title} cannot be read: {error.strerror or error}") from None
        finally:
            incoming.discard()

    def _check_folder(self, has_months: bool = False) -> None:
        """Raise ``RefusedByPublisher`` if this is no folder that can be read, or has none of the publisher's.

        With ``has_months`` the folder of the zone table is not enough.
        """
        if not self.folder.is_dir():
            raise RefusedByPublisher(f"[publisher] url: the folder {self.folder} is not there; correct the setting")
        if not os.access(self.folder, os.R_OK | os.X_OK):
            raise RefusedByPublisher(f"[publisher] url: {self.folder} cannot be read; permit it to this user")
        if self.path(ZONES).parent.is_dir() and not has_months:
            return
        folders = {self.layout.folder(name) for name in datasets.MONTHLY}
        if not any((self.folder / folder).is_dir() for folder in folders):
            raise RefusedByPublisher(
                f"[publisher] url: {self.folder} has none of the folders {', '.join(sorted(folders))} "
                f"of the publisher {self.name}; correct the setting, or [publisher] name"
            )

    def _months(self, dataset: str) -> set[dt.date]:
        """All months of a dataset that are in the folder."""
        self._check_folder(has_months=True)
        folder = self.folder / self.layout.folder(dataset)
        pattern = re.compile(rf"{dataset}_tripdata_([0-9]{{4}}-(?:0[1-9]|1[0-2]))\.{re.escape(self.layout.format)}")
        try:
            with os.scandir(folder) as entries:
                matches = [match for entry in entries if (match := pattern.fullmatch(entry.name)) and entry.is_file()]
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise RefusedByPublisher(f"[publisher] url: {folder} cannot be read: {error.strerror}") from None
        return {parse_month(match[1]) for match in matches}
