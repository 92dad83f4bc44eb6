"""Whether a bucket is unreachable: asked with every kind of request that a stage makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import remote
from pipeline.errors import MissingBucket, StorageUnavailable, Unreachable
from pipeline.reporting import journal
from pipeline.storage import open_store
from pipeline.tasks import servers

from ..patience import PATIENCE
from ..servers.gcs import ALWAYS, Fault, GcsServer, gcs_bucket, gcs_server

__all__ = ["gcs_bucket", "gcs_server"]


@pytest.mark.parametrize("operation", ["stat", "upload", "download", "delete"])
def test_bucket_that_answers_to_some_only(
    operation: str, gcs_bucket: str, gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setenv(journal.RUN_ID, "a-run")
    bucket = servers.of_store(f"gs://{gcs_bucket}/lake")
    monkeypatch.setattr(remote, "PLANNING_TIMEOUT", 0.2)
    gcs_server.program(operation, Fault(status=503, times=ALWAYS))
    with pytest.raises(Unreachable):
        bucket.diagnose(StorageUnavailable("no answer"))
    with pytest.raises(Unreachable):
        bucket.check()
    gcs_server.clear()
    monkeypatch.setattr(remote, "PLANNING_TIMEOUT", PATIENCE)
    open_store(f"gs://{gcs_bucket}/lake").delete_tree("doctor")
    bucket.diagnose(StorageUnavailable("no answer"))  # it answers, and so it is another object's trouble
    bucket.check()
    assert open_store(f"gs://{gcs_bucket}").list() == {}


def test_bucket_that_may_not_be_written_answers(
    gcs_bucket: str, gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setenv(journal.RUN_ID, "a-run")
    gcs_server.program("upload", Fault(status=403, times=ALWAYS))
    servers.of_store(f"gs://{gcs_bucket}/lake").diagnose(StorageUnavailable("no answer"))


def test_bucket_that_is_gone_is_said_once(
    gcs_bucket: str, gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setenv(journal.RUN_ID, "a-run")
    store = open_store(f"gs://{gcs_bucket}-gone/lake")
    with pytest.raises(MissingBucket) as error:
        store.stat("manifests")
    bucket = servers.of_store(store.url)
    with pytest.raises(Unreachable, match="does not exist; make it") as first:
        bucket.diagnose(error.value)
    with pytest.raises(Unreachable) as second:
        bucket.check()
    assert str(first.value) == str(second.value)
    assert second.value.is_repeated and not first.value.is_repeated
