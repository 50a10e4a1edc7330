"""One suite for both stores: a folder, and S3 through minio-py on a real socket."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libs.common.errors import InvalidName, NotFound, StorageFull, Unavailable
from libs.common.settings import CommonSettings
from libs.common.storage import WORKERS, FolderStorage, S3Storage, Storage, open_storage
from scripts.processes import free_port
from tests.s3_server import running_s3
from tests.waiting import PATIENCE

BUCKET = "voice-models"


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    with running_s3() as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "objects")
    address: str = request.getfixturevalue("s3_address")
    store = S3Storage(address, "access", "secret", secure=False, region="us-east-1")
    for key in store.list(BUCKET):
        store.delete(BUCKET, key)
    return store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "voice.pth"
    path.write_bytes(os.urandom(3_000_000))
    return path


def test_what_is_put_is_read_back(storage: Storage, file: Path, tmp_path: Path) -> None:
    storage.put_file(BUCKET, "anna/job_1/anna.pth", file)

    storage.get_file(BUCKET, "anna/job_1/anna.pth", tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert b"".join(storage.read(BUCKET, "anna/job_1/anna.pth")) == file.read_bytes()
    assert storage.size(BUCKET, "anna/job_1/anna.pth") == 3_000_000


def test_a_second_put_replaces_the_first(storage: Storage, file: Path, tmp_path: Path) -> None:
    storage.put_file(BUCKET, "a", file)
    other = tmp_path / "other"
    other.write_bytes(b"new")

    storage.put_file(BUCKET, "a", other)

    assert b"".join(storage.read(BUCKET, "a")) == b"new"


def test_keys_are_listed_by_prefix_in_order(storage: Storage, file: Path) -> None:
    for key in ("b/2", "a/1", "b/1"):
        storage.put_file(BUCKET, key, file)

    assert storage.list(BUCKET, "b/") == ["b/1", "b/2"]
    assert storage.list(BUCKET) == ["a/1", "b/1", "b/2"]
    assert storage.list("no-such-bucket") == []


def test_what_is_not_there_is_not_found(storage: Storage, tmp_path: Path) -> None:
    assert storage.size(BUCKET, "nothing") is None
    with pytest.raises(NotFound):
        storage.read(BUCKET, "nothing")
    with pytest.raises(NotFound):
        storage.get_file(BUCKET, "nothing", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_deleting_twice_is_fine(storage: Storage, file: Path) -> None:
    storage.put_file(BUCKET, "a/1", file)

    storage.delete(BUCKET, "a/1")
    storage.delete(BUCKET, "a/1")

    assert storage.list(BUCKET) == []


@pytest.mark.parametrize("key", ["", "/a", "../a", "a//b", "a/../b", ".hidden", "a b", "ü", "a/" + "b" * 200])
def test_keys_that_could_be_anything_else_are_refused(storage: Storage, file: Path, key: str) -> None:
    with pytest.raises(InvalidName):
        storage.put_file(BUCKET, key, file)


@pytest.mark.parametrize("bucket", ["", "..", "A", "a/b", "x"])
def test_bucket_names_are_checked(storage: Storage, file: Path, bucket: str) -> None:
    with pytest.raises(InvalidName):
        storage.put_file(bucket, "a", file)


def test_a_store_that_answers_says_so(storage: Storage) -> None:
    assert storage.check() in ("folder", "s3")


def test_an_s3_that_is_away_is_unavailable(file: Path) -> None:
    store = S3Storage(f"127.0.0.1:{free_port()}", "a", "b", secure=False, region="us-east-1", timeout=0.5)

    with pytest.raises(Unavailable):
        store.check()
    with pytest.raises(Unavailable):
        store.put_file(BUCKET, "a", file)


FILL = """
import resource, sys
from pathlib import Path
from libs.common.storage import FolderStorage
from libs.common.errors import StorageFull
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    FolderStorage(Path(sys.argv[1])).put_file("voice-models", "a/b", Path(sys.argv[2]))
except StorageFull as error:
    print("full:", error.detail)
"""


def test_as_many_as_work_at_once_each_have_a_connection_and_keep_it(
    s3_address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = S3Storage(s3_address, "access", "secret", secure=False, region="us-east-1")
    store.list(BUCKET)
    large = tmp_path / "large.pth"
    large.write_bytes(bytes(16_000_000))  # goes up in several parts, side by side
    together = threading.Barrier(WORKERS)

    def ask(number: int) -> int | None:
        together.wait(PATIENCE)
        return store.size(BUCKET, f"nothing/{number}")

    with caplog.at_level("WARNING", logger="urllib3"), ThreadPoolExecutor(WORKERS) as pool:
        asked = list(pool.map(ask, range(WORKERS)))
        store.put_file(BUCKET, "large", large)

    assert asked == [None] * WORKERS
    assert [record.getMessage() for record in caplog.records] == []


def test_a_full_disk_leaves_nothing_behind(file: Path, tmp_path: Path) -> None:
    root = tmp_path / "objects"

    done = subprocess.run(
        [sys.executable, "-c", FILL, str(root), str(file)], capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("full:")
    assert [p for p in root.rglob("*") if p.is_file()] == []
    assert issubclass(StorageFull, Exception)


def test_the_storage_url_chooses_the_store(make_settings: Callable[..., CommonSettings], tmp_path: Path) -> None:
    folder = open_storage(make_settings())
    s3 = open_storage(
        make_settings(storage_url="s3+http://127.0.0.1:9", storage_access_key="a", storage_secret_key="b")
    )

    assert isinstance(folder, FolderStorage)
    assert isinstance(s3, S3Storage)
    with pytest.raises(ValueError, match="STORAGE_ACCESS_KEY"):
        open_storage(make_settings(storage_url="s3+https://host"))
    with pytest.raises(ValueError, match="ftp"):
        open_storage(make_settings(storage_url="ftp://host"))
