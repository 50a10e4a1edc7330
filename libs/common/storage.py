"""Where is kept what must outlive a node? One interface, two stores: a folder, and any S3 through minio-py.

Calls block; async code moves them to a thread. Keys are made in `paths.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from libs.common.errors import InvalidName, NotFound, StorageFull, Unavailable
from libs.common.settings import CommonSettings

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")
_CHUNK = 1024 * 1024
WORKERS = min(32, (os.cpu_count() or 1) + 4)
"""Threads that may ask the store at once: those of asyncio's own pool, which async code moves its calls to."""
_PARTS_AT_ONCE = 3
"""Connections of one large upload, whose parts go side by side."""


def _checked(bucket: str, key: str) -> str:
    if not _BUCKET.fullmatch(bucket):
        raise InvalidName(f"{bucket!r} is no bucket name: use 3-63 of a-z, 0-9 and -")
    parts = key.split("/")
    if len(key) > 900 or not all(_PART.fullmatch(part) and ".." not in part for part in parts):
        raise InvalidName(f"{key!r} is no object key")
    return key


class Storage(Protocol):
    """Objects by bucket and key. An object is whole or not there."""

    def put_file(self, bucket: str, key: str, source: Path) -> None:
        """Stores a file's content, replacing what was there. Raises StorageFull or Unavailable."""

    def get_file(self, bucket: str, key: str, target: Path) -> None:
        """Writes the object to `target`, whole or not at all. Raises NotFound."""

    def read(self, bucket: str, key: str) -> Iterator[bytes]:
        """The object in blocks. Raises NotFound before the first block."""

    def size(self, bucket: str, key: str) -> int | None:
        """Bytes of the object, or None when there is none."""

    def list(self, bucket: str, prefix: str = "") -> list[str]:
        """Keys that begin with `prefix`, sorted."""

    def delete(self, bucket: str, key: str) -> None:
        """Removes an object; one that is not there is fine."""

    def check(self) -> str:
        """A few words when the store answers; raises Unavailable when it does not."""


def delete_all(storage: Storage, bucket: str, prefix: str) -> int:
    """Removes every object whose key begins with `prefix`; returns how many there were. Raises Unavailable."""
    keys = storage.list(bucket, prefix)
    for key in keys:
        storage.delete(bucket, key)
    return len(keys)


class FolderStorage:
    """Objects as files under `root/<bucket>/`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, bucket: str, key: str) -> Path:
        return self._root / bucket / _checked(bucket, key)

    def put_file(self, bucket: str, key: str, source: Path) -> None:
        target = self._path(bucket, key)
        with _filesystem_errors(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_whole(source, target)

    def get_file(self, bucket: str, key: str, target: Path) -> None:
        source = self._path(bucket, key)
        if not source.is_file():
            raise NotFound(f"there is no object {bucket}/{key}")
        with _filesystem_errors(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_whole(source, target)

    def read(self, bucket: str, key: str) -> Iterator[bytes]:
        path = self._path(bucket, key)
        try:
            file = path.open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFound(f"there is no object {bucket}/{key}") from error

        def blocks() -> Iterator[bytes]:
            with file:
                while block := file.read(_CHUNK):
                    yield block

        return blocks()

    def size(self, bucket: str, key: str) -> int | None:
        path = self._path(bucket, key)
        return path.stat().st_size if path.is_file() else None

    def list(self, bucket: str, prefix: str = "") -> list[str]:
        root = self._root / bucket
        if not _BUCKET.fullmatch(bucket) or not root.is_dir():
            return []
        found = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and p.name[0] != ".")
        return sorted(key for key in found if key.startswith(prefix))

    def delete(self, bucket: str, key: str) -> None:
        path = self._path(bucket, key)
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self._root / bucket or not parent.is_relative_to(self._root):
                break
            try:
                parent.rmdir()
            except OSError:
                break

    def check(self) -> str:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot write in {self._root}: {error.strerror}") from error
        if not os.access(self._root, os.W_OK):
            raise Unavailable(f"cannot write in {self._root}")
        return "folder"


class S3Storage:
    """Objects in any S3; buckets are made on first use."""

    def __init__(
        self, endpoint: str, access_key: str, secret_key: str, *, secure: bool, region: str, timeout: float = 10.0
    ) -> None:
        pool = urllib3.PoolManager(
            maxsize=WORKERS * _PARTS_AT_ONCE,  # each is opened when it is needed, and kept
            timeout=urllib3.Timeout(connect=timeout, read=60.0),
            retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )
        self._client = Minio(
            endpoint, access_key=access_key, secret_key=secret_key, secure=secure, region=region, http_client=pool
        )
        self._region = region
        self._known: set[str] = set()

    def _ensure(self, bucket: str) -> None:
        if bucket in self._known:
            return
        if not self._client.bucket_exists(bucket_name=bucket):
            try:
                self._client.make_bucket(bucket_name=bucket, location=self._region)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise
        self._known.add(bucket)

    def put_file(self, bucket: str, key: str, source: Path) -> None:
        _checked(bucket, key)
        with _s3_errors(bucket, key):
            self._ensure(bucket)
            self._client.fput_object(
                bucket_name=bucket, object_name=key, file_path=str(source), num_parallel_uploads=_PARTS_AT_ONCE
            )

    def get_file(self, bucket: str, key: str, target: Path) -> None:
        blocks = self.read(bucket, key)
        with _filesystem_errors(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(blocks, target)

    def read(self, bucket: str, key: str) -> Iterator[bytes]:
        _checked(bucket, key)
        with _s3_errors(bucket, key):
            response = self._client.get_object(bucket_name=bucket, object_name=key)

        def blocks() -> Iterator[bytes]:
            try:
                with _s3_errors(bucket, key):
                    yield from response.stream(_CHUNK)
            finally:
                response.close()
                response.release_conn()

        return blocks()

    def size(self, bucket: str, key: str) -> int | None:
        _checked(bucket, key)
        try:
            with _s3_errors(bucket, key):
                return self._client.stat_object(bucket_name=bucket, object_name=key).size
        except NotFound:
            return None

    def list(self, bucket: str, prefix: str = "") -> list[str]:
        try:
            with _s3_errors(bucket, prefix):
                found = self._client.list_objects(bucket_name=bucket, prefix=prefix, recursive=True)
                return sorted(item.object_name for item in found if item.object_name)
        except NotFound:
            return []

    def delete(self, bucket: str, key: str) -> None:
        _checked(bucket, key)
        try:
            with _s3_errors(bucket, key):
                self._client.remove_object(bucket_name=bucket, object_name=key)
        except NotFound:
            return

    def check(self) -> str:
        with _s3_errors("", ""):
            self._client.list_buckets()
        return "s3"


def open_storage(settings: CommonSettings) -> Storage:
    """The store that `STORAGE_URL` names: `file:///folder`, `s3+http://host:port` or `s3+https://host`.

    Raises ValueError for another URL, or one of S3 without its keys.
    """
    if fault := settings.storage_fault():
        raise ValueError(fault)
    url = urlsplit(settings.storage_url)
    if url.scheme == "file":
        return FolderStorage(Path(unquote(url.path)))
    assert settings.storage_access_key
    assert settings.storage_secret_key
    return S3Storage(
        url.netloc,
        settings.storage_access_key.get_secret_value(),
        settings.storage_secret_key.get_secret_value(),
        secure=url.scheme == "s3+https",
        region=settings.storage_region,
    )


def _copy_whole(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        _write_whole(iter(lambda: file.read(_CHUNK), b""), target)
    shutil.copymode(source, target)


def _write_whole(blocks: Iterator[bytes], target: Path) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _filesystem_errors(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in (28, 122, 27) else Unavailable
        raise kind(f"the object store did not take {key}: {error.strerror}") from error


@contextmanager
def _s3_errors(bucket: str, key: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchBucket", "NoSuchObject", "ResourceNotFound"):
            raise NotFound(f"there is no object {bucket}/{key}") from error
        raise Unavailable(f"the object store refused {bucket}/{key}: {error.code}") from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"the object store does not answer: {type(error).__name__}") from error
