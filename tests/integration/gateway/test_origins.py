"""Which pages may call the API from a browser? None, unless their origin is in the settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from tests.integration.gateway.conftest import running_house

PREFLIGHT = {
    "Origin": "https://studio.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,idempotency-key",
}


async def _ask(tmp_path: Path, migrated: Path, **settings: object) -> httpx.Response:
    shutil.copy(migrated, tmp_path / "gateway.db")
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    async with running_house(tmp_path, url, **settings) as house, httpx.AsyncClient(trust_env=False) as client:
        return await client.options(f"{house.url}/api/v1/datasets", headers=PREFLIGHT)


async def test_no_foreign_page_may_call_by_default(tmp_path: Path, migrated_sqlite: Path) -> None:
    answer = await _ask(tmp_path, migrated_sqlite)

    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_of_a_named_origin_may_call(tmp_path: Path, migrated_sqlite: Path) -> None:
    answer = await _ask(tmp_path, migrated_sqlite, cors_origins=("https://studio.example",))

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://studio.example"
    assert "idempotency-key" in answer.headers["access-control-allow-headers"].lower()


async def test_a_page_of_another_origin_may_not(tmp_path: Path, migrated_sqlite: Path) -> None:
    answer = await _ask(tmp_path, migrated_sqlite, cors_origins=("https://other.example",))

    assert "access-control-allow-origin" not in answer.headers
