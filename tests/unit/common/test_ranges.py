"""Is a part of a file that does not exist refused as everything else is?"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from libs.common.ranges import RangedFile


@pytest.fixture
def client(tmp_path: Path) -> httpx.AsyncClient:
    """A service that gives out one file of ten bytes."""
    path = tmp_path / "ten.wav"
    path.write_bytes(b"0123456789")
    app = FastAPI()

    @app.get("/file", response_class=RangedFile)
    async def file() -> RangedFile:
        return RangedFile(path, media_type="audio/wav")

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def test_a_file_comes_whole_or_in_the_range_that_is_asked_for(client: httpx.AsyncClient) -> None:
    whole = await client.get("/file")
    part = await client.get("/file", headers={"Range": "bytes=2-4"})
    end = await client.get("/file", headers={"Range": "bytes=-3"})

    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert (end.status_code, end.content) == (206, b"789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=5-2", "bytes=", "lines=1-2", "nonsense"])
async def test_a_range_that_the_file_has_not_is_refused_with_its_size(client: httpx.AsyncClient, asked: str) -> None:
    refused = await client.get("/file", headers={"Range": asked})

    assert (refused.status_code, refused.headers["content-type"]) == (416, "application/problem+json")
    assert refused.headers["content-range"] == "bytes */10"
    assert refused.json()["code"] == "range_not_satisfiable"
    assert "10 bytes" in refused.json()["detail"]
