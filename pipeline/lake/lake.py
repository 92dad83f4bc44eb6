"""The lake: publishes and lists months with their manifests, and stores what was last seen at the publishers."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConflictError, DamagedScratch, LakeError
from ..partition import Partition
from ..retry import RACES, pause
from ..storage.base import Progress, Store, StoredFile, StoredObject, no_progress
from . import layout
from .manifest import Digest, Manifest

LOGGER = logging.getLogger("pipeline")

#: What was last seen of each partition at a publisher.
Observations = dict[Partition, dict[str, Any]]

#: How often a lost race over an observations file is run again; each time one of the racers has won.
_RACES = 30


@dataclass(frozen=True)
class Listing:
    """What lay in a lake when it was listed, by path: Parquet files, manifests and observations."""

    data: Mapping[str, StoredObject]
    manifests: Mapping[str, StoredObject]
    observations: Mapping[str, StoredObject]


class Lake:
    """Published months in ``store``. A month is complete when its manifest and the Parquet file it names are there."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def url(self) -> str:
        return self.store.url

    def manifest(self, partition: Partition) -> Manifest | None:
        """The whole manifest of a complete month, else None."""
        found = self._read_manifest(layout.manifest(partition))
        return found if found and _is_there(found.parquet, self.store.stat(found.parquet.path)) else None

    def settled_manifest(self, partition: Partition) -> Manifest | None:
        """The same, after somebody who replaces the month now is done; in a bucket nobody can tell."""
        found = self.manifest(partition)
        if found is None:
            with self.store.lock(layout.manifest(partition)):
                found = self.manifest(partition)
        return found

    def listing(self) -> Listing:
        """One look at everything that tells what is complete: three listings, however many datasets there are."""
        return Listing(
            data=self.store.list(layout.DATA),
            manifests=self.store.list(layout.MANIFESTS),
            observations=self.store.list(layout.OBSERVATIONS),
        )

    def manifests(self, dataset: str, listing: Listing | None = None) -> dict[Partition, Manifest]:
        """The manifests of all complete months of a dataset: two listings, however many months there are, or none
        where there is a ``listing`` of the lake already.

        From a bucket they come without the bulky counters (``Manifest.from_summary``).
        """
        folder = f"{layout.MANIFESTS}/{dataset}"
        files = listing.data if listing else self.store.list(f"{layout.DATA}/{dataset}")
        complete: dict[Partition, Manifest] = {}
        for path, stored in (listing.manifests if listing else self.store.list(folder)).items():
            if not path.startswith(f"{folder}/"):
                continue
            found = Manifest.from_summary(stored.metadata) or self._read_manifest(path)
            if (
                found
                and path == layout.manifest(found.partition)
                and _is_there(found.parquet, files.get(found.parquet.path))
            ):
                complete[found.partition] = found
        return complete

    def file(self, manifest: Manifest) -> StoredFile:
        """The Parquet file that a manifest names."""
        return StoredFile(self.store, manifest.parquet.path)

    def publish(
        self,
        parquet: Path,
        rejects: Path,
        manifest: Manifest,
        keep_versions: bool = False,
        progress: Progress = no_progress,
    ) -> Manifest:
        """Put a month into the lake: rejects, then Parquet, then the manifest that names their digests.

        A manifest that names other bytes is removed first, so that a process killed in between leaves the month
        incomplete, never wrong. Bytes that are already there are not sent again. With ``keep_versions`` a replaced
        Parquet file and its manifest stay under ``versions/``. Raises ``ConflictError`` when another host publishes the
        same month at the same time, ``DamagedScratch`` when a local file is not the one the manifest speaks of.
        """
        place = layout.manifest(manifest.partition)
        _check_digest(rejects, manifest.rejects)
        with ThreadPoolExecutor(1, "sha256") as pool, self.store.lock(place):
            # The Parquet file is summed up while its bytes travel; they do not become an object before that is done.
            check = pool.submit(_check_digest, parquet, manifest.parquet)
            old = self.store.stat(place)
            old_manifest = self._read_manifest(place) if old else None
            if old and (
                not old_manifest or (old_manifest.parquet, old_manifest.rejects) != (manifest.parquet, manifest.rejects)
            ):
                check.result()  # nothing that is good is taken away for a file that is not
                if keep_versions and old_manifest:
                    self._keep(old_manifest, manifest)
                self.forget(manifest.partition)
                old = None
            self._send(rejects, manifest.rejects)
            self._send(parquet, manifest.parquet, progress, check.result)
            check.result()
            self.store.write(
                place, manifest.to_json().encode(), metadata=manifest.summary(), if_version=old.version if old else ""
            )
        return manifest

    def restate(self, manifest: Manifest) -> None:
        """Rewrite the manifest of a month whose files stay; ``ConflictError`` if they were replaced meanwhile."""
        place = layout.manifest(manifest.partition)
        with self.store.lock(place):
            stored = self.store.stat(place)
            old = self._read_manifest(place) if stored else None
            if stored is None or old is None or (old.parquet, old.rejects) != (manifest.parquet, manifest.rejects):
                raise ConflictError(f"{self.store.uri(place)} was replaced by another process meanwhile; try again")
            self.store.write(place, manifest.to_json().encode(), metadata=manifest.summary(), if_version=stored.version)

    def forget(self, partition: Partition) -> None:
        """Make a month incomplete: its manifest is removed, its data stay until they are replaced."""
        self.store.delete(layout.manifest(partition))

    def observations(self, publisher: str, listing: Listing | None = None) -> Observations:
        """What was last seen at a publisher (its label); {} if nobody looked yet.

        One file for all datasets: to read it is all that a run with nothing to do needs besides the listings.
        """
        path = layout.observations(publisher)
        return {} if listing and path not in listing.observations else self._read_observations(path)

    def observe(self, publisher: str, updates: Mapping[Partition, dict[str, Any] | None]) -> None:
        """Merge what was seen into the observations; None forgets a partition. Two writers lose nothing."""
        if not updates:
            return
        path = layout.observations(publisher)
        for race in range(_RACES):
            stored = self.store.stat(path)
            plain: dict[str, dict[str, Any]] = {}
            for partition, seen in {**(self._read_observations(path) if stored else {}), **updates}.items():
                if seen is not None:
                    plain.setdefault(partition.dataset, {})[partition.month_text or ""] = seen
            text = json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            try:
                self.store.write(path, text.encode(), if_version=stored.version if stored else "")
                return
            except ConflictError:
                if race == _RACES - 1:
                    raise
                pause(RACES, race)

    def _read_observations(self, path: str) -> Observations:
        try:
            plain = json.loads(self.store.read(path))
            return {
                Partition.parse(dataset, month): seen
                for dataset, months in plain.items()
                for month, seen in months.items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, RecursionError) as error:
            raise LakeError(
                f"{self.store.uri(path)} is not readable ({error}); remove it, and the months are looked up anew"
            ) from error

    def _read_manifest(self, path: str) -> Manifest | None:
        try:
            return Manifest.from_json(self.store.read(path))
        except FileNotFoundError:
            return None
        except ValueError as error:
            LOGGER.warning("%s counts as missing: %s", self.store.uri(path), error)
            return None

    def _send(
        self,
        local: Path,
        digest: Digest,
        progress: Progress = no_progress,
        last_check: Callable[[], object] | None = None,
    ) -> None:
        stored = self.store.stat(digest.path)
        if _is_there(digest, stored) and self.store.has_bytes(digest.path, local):
            return
        self.store.put(
            local,
            digest.path,
            metadata={"sha256": digest.sha256},
            progress=progress,
            if_version=stored.version if stored else "",
            last_check=last_check,
        )

    def _keep(self, old: Manifest, new: Manifest) -> None:
        """Keep what is about to be replaced, if it is what its manifest says and not the same bytes again."""
        if old.parquet != new.parquet and _is_there(old.parquet, self.store.stat(old.parquet.path)):
            sha256 = old.parquet.sha256
            self.store.copy(old.parquet.path, layout.version(old.partition, sha256))
            self.store.copy(layout.manifest(old.partition), layout.version(old.partition, sha256, suffix="json"))


def digest_of(local: Path, path: str) -> Digest:
    """The digest of a local file that is, or will be, at ``path`` in the lake."""
    with open(local, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Digest(path, sha256, file.tell())


def _check_digest(local: Path, digest: Digest) -> None:
    if digest != (actual := digest_of(local, digest.path)):
        raise DamagedScratch(
            f"{local} is not the file of its manifest ({actual.bytes} bytes, {actual.sha256}); run again"
        )


def is_intact(file: StoredFile, digest: Digest) -> bool:
    """Whether a file of the lake still has the bytes of its manifest; all of them are read."""
    try:
        with file.local() as path:
            return digest_of(path, digest.path) == digest
    except FileNotFoundError:
        return False


def _is_there(digest: Digest, stored: StoredObject | None) -> bool:
    """Whether an object of the lake is the file of a digest, as far as a listing can tell."""
    return (
        stored is not None
        and stored.size == digest.bytes
        and stored.metadata.get("sha256", digest.sha256) == digest.sha256
    )
