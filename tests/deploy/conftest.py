"""A file, and a web server that has it, for the tests of what is fetched from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.asset_manifest import AssetFile
from tests.deploy.file_server import Behaviour, FileServer, serving

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()


def left(root: Path) -> set[str]:
    """Every file below `root` but the lock."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name for name in found if name != ".fetch-assets.lock"}


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FileServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(shared_server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server that has BODY as `/a.pt`, and nothing else yet; no proxy stands before it."""
    shared_server.files = {"/a.pt": Behaviour(BODY)}
    shared_server.asked = []
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return shared_server


@pytest.fixture
def file(server: FileServer) -> AssetFile:
    """The entry of the list for what `server` has."""
    return AssetFile("hubert/a.pt", f"{server.url}/a.pt", SHA256, len(BODY))
