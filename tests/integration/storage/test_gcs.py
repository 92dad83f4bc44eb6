"""What is a bucket's own: chunks, checksums, retries over a failing line, errors of the service, and a lake in it.

The promises of every store are in tests/contract.
"""

from __future__ import annotations

import datetime as dt
import math
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import tenacity.nap

from pipeline import remote, retry, waiting
from pipeline.errors import ConflictError, LakeError, PipelineError, StorageUnavailable, UsageError
from pipeline.job import Job
from pipeline.lake import Lake, layout
from pipeline.partition import Partition
from pipeline.planning.state import CachedState
from pipeline.storage import Store, StoreOptions, gcs, gcs_client, open_store
from tests.patience import Clock, wait_for
from tests.servers.gcs import ALWAYS, Fault, GcsServer
from tests.servers.raw import RawServer
from tests.unit.lake.conftest import MakeMonth

#: Larger than what the client sends in one request, so that it becomes a resumable upload of several chunks.
LARGE = os.urandom(9 * 1024 * 1024 + 12345)
CHUNK = 1024 * 1024

APRIL = dt.date(2020, 4, 1)
GREEN_APRIL = Partition("green", APRIL)


@pytest.fixture
def store(gcs_bucket: str) -> Store:
    return open_store(f"gs://{gcs_bucket}/lake", StoreOptions(patience=10, chunk_size=CHUNK, largest_chunk=CHUNK))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large.parquet"
    file.write_bytes(LARGE)
    return file


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the retries: what was waited between two tries, and how long patience lasts, without any waiting."""
    clock = Clock()
    monkeypatch.setattr(tenacity, "time", clock)
    monkeypatch.setattr(gcs, "time", clock)
    monkeypatch.setattr(tenacity.nap, "time", clock)
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(gcs_client, "REQUESTS", replace(retry.REQUESTS, backoff=0.01, max_backoff=0.05))
    return clock


def test_listing_is_paged(store: Store, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "PAGE", 2)
    for number in range(5):
        store.write(f"many/{number}", b"x", metadata={"number": str(number)})
    gcs_server.clear()
    assert [one.metadata["number"] for one in store.list("many").values()] == list("01234")
    assert gcs_server.asked() == gcs_server.asked("list") == 3
    for _, _, path in gcs_server.requests:  # the double answers with all of them
        (fields,) = parse_qs(urlsplit(path).query)["fields"]
        assert fields == "items(name,size,generation,metadata,updated),nextPageToken"


def test_large_file_goes_up_in_chunks_and_comes_back(store: Store, large: Path, gcs_server: GcsServer) -> None:
    seen: list[int] = []
    stored = store.put(large, "large", metadata={"sha256": "x"}, progress=lambda done, total: seen.append(done))
    assert stored.size == len(LARGE)
    assert gcs_server.asked("chunk") == 10
    assert seen[-1] == len(LARGE) and len(seen) >= 10
    with store.local("large") as local:
        assert local.read_bytes() == LARGE
    assert not local.exists()


def test_requests_of_an_upload_grow_while_the_line_is_fast(
    gcs_bucket: str, gcs_server: GcsServer, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"gs://{gcs_bucket}", StoreOptions(patience=10, chunk_size=CHUNK, largest_chunk=4 * CHUNK))
    monkeypatch.setattr(gcs, "FAST", math.inf)
    store.put(large, "fast.bin")
    assert gcs_server.asked("chunk") == 4, "1, 2, 4, and the rest"
    assert store.has_bytes("fast.bin", large)
    monkeypatch.setattr(gcs, "FAST", 0.0)
    store.put(large, "slow.bin")
    assert gcs_server.asked("chunk") == 4 + 10


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("initiate", Fault(status=503)),
        ("initiate", Fault(lose_reply=True)),
        ("chunk", Fault(skip=2, status=503, times=3)),
        ("chunk", Fault(skip=3, cut_request=300_000, times=2)),
        ("chunk", Fault(skip=4, lose_reply=True)),
        ("chunk", Fault(skip=9, lose_reply=True)),
        ("chunk", Fault(skip=2, damage_request=True)),
        ("chunk", Fault(skip=5, status=410)),
        ("chunk", Fault(skip=5, status=404)),
        ("stat", Fault(cut_reply=20)),
        ("download", Fault(cut_reply=3_000_000, times=2)),
        ("download", Fault(status=503)),
        ("download", Fault(damage_reply=True)),
        ("*", Fault(status=500, times=2)),
    ],
    ids=lambda value: str(value).replace("=False", "") if isinstance(value, str) else None,
)
def test_large_file_survives(store: Store, large: Path, gcs_server: GcsServer, operation: str, fault: Fault) -> None:
    gcs_server.program(operation, fault)
    stored = store.put(large, "large", if_version="")
    with store.local("large") as local:
        assert local.read_bytes() == LARGE
    again = store.stat("large")
    assert again and again.version == stored.version
    assert gcs_server.next_fault(operation) == Fault(), "the fault was never met"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(lose_reply=True),
        Fault(lose_reply=True, times=3),
        Fault(cut_request=100),
        Fault(damage_request=True),
    ],
)
@pytest.mark.parametrize("if_version", ["", None])
def test_small_write_survives(store: Store, gcs_server: GcsServer, fault: Fault, if_version: str | None) -> None:
    gcs_server.program("upload", Fault(**vars(fault)))
    stored = store.write("small", b"x" * 5000, metadata={"k": "v"}, if_version=if_version)
    assert store.stat("small") == stored
    assert store.read("small") == b"x" * 5000


@pytest.mark.parametrize("size", [0, 1000, 9 * CHUNK, len(LARGE)])
def test_an_upload_that_fails_its_last_check_becomes_no_object(store: Store, tmp_path: Path, size: int) -> None:
    """In one request as well as in chunks, the last of them whole or not; what was there stays."""
    file = tmp_path / "file"
    file.write_bytes(LARGE[:size])

    def refuse() -> None:
        raise LakeError("not this one")

    for before in (None, store.write("other", b"what was there")):
        with pytest.raises(LakeError, match="not this one"):
            store.put(file, "other" if before else "new", last_check=refuse)
        assert store.stat("other" if before else "new") == before


def test_the_last_check_is_made_however_the_upload_goes(store: Store, large: Path, gcs_server: GcsServer) -> None:
    asked: list[int] = []
    gcs_server.program("chunk", Fault(skip=9, status=503, times=2))
    store.put(large, "large", last_check=lambda: asked.append(gcs_server.asked("chunk")))
    assert asked and asked[0] == 9, "only the last request was left"
    assert store.has_bytes("large", large)


def test_conflict_of_large_files(store: Store, large: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(LARGE[::-1])
    first = store.put(large, "large", if_version="")
    with pytest.raises(ConflictError):
        store.put(other, "large", if_version="")
    assert store.stat("large") == first
    assert store.put(large, "large", if_version="").version == first.version, "the same bytes are no conflict"


def test_retry_after_is_waited_for(store: Store, gcs_server: GcsServer, clock: Clock) -> None:
    gcs_server.program("upload", Fault(status=429, retry_after="7"))
    store.write("x", b"x", if_version="")
    assert clock.slept == [pytest.approx(7.0, abs=0.05)]


def test_patience_ends(gcs_bucket: str, gcs_server: GcsServer) -> None:
    store = open_store(f"gs://{gcs_bucket}", StoreOptions(patience=0.3))
    gcs_server.program("*", Fault(status=503, times=ALWAYS))
    with pytest.raises(StorageUnavailable, match=rf"gs://.*/x: no answer from {gcs_server.url} \(HTTP 503\)"):
        store.read("x")


def test_patience_counts_from_the_last_progress(
    gcs_bucket: str, large: Path, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Each request takes most of the patience, the whole upload many times as long: still one may be tried again."""
    send = requests.Session.send

    def slow(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        clock.now += 3
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", slow)
    store = open_store(f"gs://{gcs_bucket}", StoreOptions(patience=4, chunk_size=CHUNK, largest_chunk=CHUNK))
    gcs_server.program("chunk", Fault(skip=7, status=503))
    store.put(large, "large")
    assert gcs_server.asked("chunk") == 11
    assert store.stat("large")


@pytest.fixture
def slow_download(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Each piece of a download takes longer than patience."""
    write = gcs._Summed.write

    def slow(self: gcs._Summed, data: bytes) -> int:
        clock.now += 3600
        return write(self, data)

    monkeypatch.setattr(gcs._Summed, "write", slow)


def test_download_is_resumed_however_late_it_breaks(
    gcs_bucket: str, gcs_server: GcsServer, slow_download: None
) -> None:
    store = open_store(f"gs://{gcs_bucket}", StoreOptions(patience=0.3))
    data = os.urandom(20_000)
    store.write("slow", data)
    assert store.read("slow") == data
    gcs_server.clear()
    gcs_server.program("download", *[Fault(cut_reply=9_000) for _ in range(2)])
    assert store.read("slow") == data
    assert gcs_server.asked("download") == 3
    gcs_server.program("download", Fault(cut_reply=0, times=ALWAYS))
    with pytest.raises(StorageUnavailable):
        store.read("slow")


@pytest.mark.parametrize(
    ("status", "message", "kind", "says"),
    [
        (403, "robot@x.iam does not have storage.objects.create access", LakeError, "needs storage.objects.create on"),
        (403, "Forbidden", LakeError, "needs storage.objects.get on gs://"),
        (401, "Invalid Credentials", LakeError, "does not accept the credentials"),
        (400, "Bad name", LakeError, "Bad name"),
    ],
)
def test_refusals_are_one_clear_line(
    store: Store, gcs_server: GcsServer, status: int, message: str, kind: type[PipelineError], says: str
) -> None:
    gcs_server.program("stat", Fault(status=status, message=message))
    with pytest.raises(kind, match=says) as caught:
        store.stat("x")
    assert "\n" not in str(caught.value)


def test_missing_bucket(gcs_bucket: str) -> None:
    store = open_store("gs://no-such-bucket-here/lake")
    for call in (
        lambda: store.list(),
        lambda: store.write("x", b""),
        lambda: store.read("x"),
        lambda: store.location(),
    ):
        with pytest.raises(LakeError, match="bucket gs://no-such-bucket-here does not exist; make it with"):
            call()


def test_unreachable_is_told_by_its_address(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(waiting, "SAID_AFTER", 0.0)
    with pytest.raises(StorageUnavailable, match=r"no answer from http://127\.0\.0\.1:9 \(.*STORAGE_EMULATOR_HOST"):
        open_store("gs://some-bucket", StoreOptions(patience=3)).list()
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "waits for Cloud Storage at http://127.0.0.1:9 " in said and "some-bucket" not in said


def test_an_emulator_may_be_named_without_scheme(
    gcs_bucket: str, gcs_server: GcsServer, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url.removeprefix("http://"))
    store = open_store(f"gs://{gcs_bucket}/lake")
    store.write("small", b"x")
    store.put(large, "large")
    assert store.read("small") == b"x" and store.has_bytes("large", large) and set(store.list()) == {"small", "large"}


def test_an_emulator_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "gs://some-bucket")
    with pytest.raises(UsageError, match=r"STORAGE_EMULATOR_HOST is no address; write http://host:port"):
        open_store("gs://some-bucket")


def test_somebody_who_waits_is_told_of_a_silent_server_before_its_time_out(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, time_outs: list[float]
) -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with remote.interactive(0.1), pytest.raises(StorageUnavailable, match="no answer"):
            open_store("gs://some-bucket").list()
    assert time_outs and max(time_outs) <= 0.1 and sum(clock.slept) <= 0.1, "those of a run are minutes"


@pytest.mark.parametrize("what", ["list", "stat", "read", "delete", "write", "location"])
def test_somebody_who_waits_is_told_of_a_server_that_drips(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Each byte comes within any time-out, and the answer never."""

    def drip(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            server.pause(0.02)
            connection.sendall(b"a")

    asked: dict[str, tuple[str | bytes, ...]] = {"stat": ("a",), "read": ("a",), "delete": ("a",), "write": ("a", b"x")}
    with RawServer(drip) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        with remote.interactive(0.2), pytest.raises(StorageUnavailable, match="no answer from http"):
            getattr(open_store("gs://some-bucket"), what)(*asked.get(what, ()))


def test_upload_sessions_stay_out_of_messages(
    gcs_bucket: str, large: Path, gcs_server: GcsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has the address of an upload session can write to the bucket."""
    store = open_store(f"gs://{gcs_bucket}", StoreOptions(patience=0.3, chunk_size=CHUNK, largest_chunk=CHUNK))
    gcs_server.program("chunk", Fault(cut_request=10, times=ALWAYS))
    with caplog.at_level("DEBUG"), pytest.raises(StorageUnavailable) as caught:
        store.put(large, "large")
    assert "trying again" in caplog.text
    assert "upload_id" not in caplog.text + str(caught.value)
    assert store.list() == {}


def test_local_copy_survives_replacement_while_it_is_read(store: Store, gcs_server: GcsServer) -> None:
    """The generation that was looked up is gone when its bytes are asked for."""
    store.write("x", b"first")
    gcs_server.program("download", Fault(status=404))
    assert store.read("x") == b"first"


def put(url: str, file: Path) -> None:
    open_store(url, StoreOptions(chunk_size=CHUNK, largest_chunk=CHUNK)).put(file, "large")


def test_killed_upload_leaves_what_was_there(store: Store, large: Path, gcs_server: GcsServer) -> None:
    before = store.write("large", b"old")
    gcs_server.program("chunk", Fault(skip=3, hold=True))
    process = multiprocessing.get_context("spawn").Process(target=put, args=(store.url, large))
    process.start()
    wait_for(lambda: gcs_server.held.is_set() or not process.is_alive())
    process.kill()
    process.join()
    assert gcs_server.asked("chunk") == 4
    assert list(store.list().values()) == [before]
    store.put(large, "large")
    assert store.read("large") == LARGE


def test_a_forked_process_has_a_client_of_its_own(store: Store) -> None:
    """A connection used on both sides of a fork mixes up the answers."""
    assert isinstance(store, gcs.GcsStore)
    client = store._client
    child = os.fork()
    if not child:
        os._exit(store._client is client)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store._client is client


@pytest.mark.parametrize(
    "key", ["not JSON, planted-secret", '{"type": "service_account", "private_key": "planted-secret"}']
)
def test_unusable_key_file_is_one_line_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    (tmp_path / "key.json").write_text(key)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    store = open_store("gs://some-bucket")
    for call in (lambda: store.stat("x"), lambda: store.write("x", b""), store.list, store.location):
        with pytest.raises(LakeError, match=r"gs://some-bucket.*: no usable Google credentials; set GOOGLE_") as caught:
            call()
        assert "planted" not in str(caught.value)
    assert not any(check.ok for check in store.check())


@pytest.mark.parametrize(
    "url", ["gs://", "gs:///x", "gs://UPPER/x", "gs://user:secret@bucket/x", "gs://b/x?key=secret"]
)
def test_bad_urls_are_named_without_secrets(url: str) -> None:
    with pytest.raises(UsageError, match=r"gs://|'UPPER': the name of a bucket has no capitals") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_url_is_normalised() -> None:
    assert open_store("gs://bucket/a/b/").url == "gs://bucket/a/b"
    assert open_store("gs://bucket/").url == "gs://bucket"
    assert open_store("gs://bucket").uri("x") == "gs://bucket/x"


def test_doctor(gcs_bucket: str, gcs_server: GcsServer) -> None:
    assert all(check.ok for check in open_store(f"gs://{gcs_bucket}/lake").check())
    assert open_store(f"gs://{gcs_bucket}").list() == {}
    missing = open_store("gs://made-by-doctor", StoreOptions(location="EU"))
    (failed,) = [check for check in missing.check() if not check.ok]
    assert "--create" in failed.remedy and f"{failed.subject}{failed.detail}".count("made-by-doctor") == 2
    assert all(check.ok for check in missing.check(create=True))
    assert all(check.ok for check in missing.check(create=True)), "a second time changes nothing"
    gcs_server.program("upload", Fault(status=403, message="x does not have storage.objects.create access"))
    (failed,) = [check for check in missing.check() if not check.ok]
    assert "storage.objects.create" in failed.detail
    assert "roles/storage.objectUser" in failed.remedy


def test_location(gcs_server: GcsServer, gcs_bucket: str) -> None:
    name = gcs_server.make_bucket(location="europe-west1")
    assert open_store(f"gs://{name}").location() == "EUROPE-WEST1"
    gcs_server.program("bucket", Fault(status=403))
    assert open_store(f"gs://{name}").location() is None


# -- the lake on a bucket ------------------------------------------------------------------------------------------


def test_published_month_is_complete_by_two_listings(
    store: Store, make_month: MakeMonth, gcs_server: GcsServer
) -> None:
    lake = Lake(store)
    for number in range(1, 4):
        lake.publish(*make_month(month=dt.date(2020, number, 1), content=b"x" * number))
    gcs_server.clear()
    found = lake.manifests("green")
    assert set(found) == {Partition("green", dt.date(2020, number, 1)) for number in range(1, 4)}
    assert gcs_server.asked() == gcs_server.asked("list") == 2
    manifest = found[Partition("green", dt.date(2020, 2, 1))]
    file = lake.file(manifest)
    assert file.uri == f"{store.url}/data/green/green_tripdata_2020-02.parquet"
    assert file.generation and file.location == "US"
    with file.local() as local:
        assert local.read_bytes() == b"xx"


def test_all_datasets_are_told_by_three_listings_and_what_was_seen(
    store: Store, make_month: MakeMonth, gcs_server: GcsServer
) -> None:
    lake = Lake(store)
    names = ("yellow", "green", "fhv", "fhvhv")
    for name in names:
        for number in range(1, 4):
            lake.publish(*make_month(dataset=name, month=dt.date(2020, number, 1)))
    for name in names:
        lake.observe("tlc", {Partition(name, APRIL): {"absent": "not yet published"}})
    gcs_server.clear()
    job = Job("tlc", "none", store.url, store.url)
    state = CachedState()
    for name in names:
        assert len(state.manifests(job, name)) == 3
        assert state.observation(job, Partition(name, APRIL)) == {"absent": "not yet published"}
    read = gcs_server.asked("stat", "download")
    assert (gcs_server.asked("list"), read) == (3, 2)


def test_same_size_other_bytes_is_incomplete(store: Store, make_month: MakeMonth, tmp_path: Path) -> None:
    lake = Lake(store)
    lake.publish(*make_month(content=b"first"))
    other = tmp_path / "other"
    other.write_bytes(b"other")
    store.put(other, layout.data(GREEN_APRIL), metadata={"sha256": "of another"})
    assert lake.manifest(GREEN_APRIL) is None
    assert lake.manifests("green") == {}


def test_damaged_bytes_under_our_digest_are_sent_again(store: Store, make_month: MakeMonth, tmp_path: Path) -> None:
    """What an upload left whose every answer was lost, at a service that checks less than it should."""
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"first"[::-1])
    month = make_month(content=b"first")
    store.put(damaged, layout.data(GREEN_APRIL), metadata={"sha256": month[2].parquet.sha256})
    Lake(store).publish(*month)
    assert store.read(layout.data(GREEN_APRIL)) == b"first"


def test_replaced_month_and_versions(store: Store, make_month: MakeMonth, gcs_server: GcsServer) -> None:
    lake = Lake(store)
    first = make_month(content=b"first")[2]
    lake.publish(*make_month(content=b"first"))
    lake.publish(*make_month(content=b"second"), keep_versions=True)
    kept = layout.version(GREEN_APRIL, first.parquet.sha256)
    assert store.read(kept) == b"first"
    gcs_server.clear()
    lake.publish(*make_month(content=b"second", run_id="again"))
    assert gcs_server.asked("upload", "chunk") == 1, "only the manifest is written"


def test_two_hosts_publish_the_same_month(
    store: Store, make_month: MakeMonth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other host's month arrives between our Parquet file and our manifest."""
    lake, other = Lake(store), Lake(open_store(store.url))
    original = type(store).write

    def late(self: Store, path: str, *args: object, **kwargs: object) -> object:
        if self is store:
            monkeypatch.undo()
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
            other.publish(*make_month(content=b"other"))
        return original(self, path, *args, **kwargs)  # type: ignore[arg-type]

    host = os.environ["STORAGE_EMULATOR_HOST"]
    month = make_month(content=b"first")
    monkeypatch.setattr(type(store), "write", late)
    with pytest.raises(ConflictError):
        lake.publish(*month)
    found = lake.manifest(GREEN_APRIL)
    assert found and store.read(found.parquet.path) == b"other"


def observe(url: str, year: int) -> None:
    lake = Lake(open_store(url))
    for month in range(1, 6):
        lake.observe("tlc", {Partition("green", dt.date(year, month, 1)): {"year": year}})


def test_parallel_observers_lose_nothing(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    Lake(store).observe("tlc", {GREEN_APRIL: {"year": 0}})  # the parent has a client before it forks
    processes = [context.Process(target=observe, args=(store.url, year)) for year in (2021, 2022, 2023)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(Lake(store).observations("tlc")) == 16


@pytest.mark.parametrize("times", [10, 1000])
def test_an_object_that_is_replaced_while_it_is_read_is_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, clock: Clock, times: int
) -> None:
    store.write("hot", b"0")
    fetch, writes = gcs.GcsStore._fetch, iter(range(1, times + 1))

    def late(self: gcs.GcsStore, *args: Any) -> None:
        if (content := next(writes, None)) is not None:
            store.write("hot", b"%d" % content)
        fetch(self, *args)

    monkeypatch.setattr(gcs.GcsStore, "_fetch", late)
    if times == 10:
        assert store.read("hot") == b"10"
    else:
        with pytest.raises(StorageUnavailable, match="hot is replaced all the time by other runs; run again"):
            store.read("hot")


def test_parts_of_an_object_are_read_without_the_rest(store: Store, gcs_server: GcsServer, large: Path) -> None:
    with pytest.raises(FileNotFoundError), store.open("large.bin"):
        pass
    store.put(large, "large.bin")
    gcs_server.program("download", Fault(status=503))
    gcs_server.requests.clear()
    with store.open("large.bin") as file:
        file.seek(-8, os.SEEK_END)
        assert file.read() == LARGE[-8:]
    assert gcs_server.asked("download") == 2, "the one that failed, and one for the end"


def test_parts_of_an_object_are_asked_for_by_its_version(
    store: Store, monkeypatch: pytest.MonkeyPatch, gcs_server: GcsServer
) -> None:
    """The service refuses any other one, so that no file is put together from two."""
    monkeypatch.setattr(gcs, "READ_AHEAD", 4)
    version = store.write("a", b"first second third").version
    gcs_server.requests.clear()
    with store.open("a") as file:
        assert file.read(6) + file.read() == b"first second third"
    asked = [path for operation, _, path in gcs_server.requests if operation == "download"]
    assert len(asked) == 2 and all(path.endswith(f"ifGenerationMatch={version}") for path in asked)
