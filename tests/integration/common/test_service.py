"""What every service has in common over HTTP: tokens, problems, request ids, honest readiness, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field

from libs.common.bus import Bus
from libs.common.errors import Busy, NotFound
from libs.common.health import BrokerCheck, ReadableCheck, StorageCheck, WritableFolderCheck
from libs.common.service import create_service
from libs.common.settings import CommonSettings
from libs.common.storage import FolderStorage
from tests.conftest import TOKEN, NatsServer

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Thing(BaseModel):
    epochs: int = Field(ge=1, le=1000)


def thing_router() -> APIRouter:
    router = APIRouter()

    @router.post("/things")
    async def make(thing: Thing) -> dict[str, int]:
        return {"epochs": thing.epochs}

    @router.delete("/things")
    async def remove() -> None: ...

    @router.get("/things/{number}")
    async def one(number: int) -> dict[str, int]:
        return {"number": number}

    @router.get("/missing")
    async def missing() -> None:
        raise NotFound("there is no thing 7")

    @router.get("/busy")
    async def busy() -> None:
        raise Busy("three are waiting", retry_after=2.2)

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret of the inside")

    @router.get("/open/door")
    async def door() -> dict[str, str]:
        return {"door": "open"}

    return router


@asynccontextmanager
async def nothing(_: FastAPI) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def client(make_settings: Callable[..., CommonSettings]) -> AsyncIterator[httpx.AsyncClient]:
    app = create_service(
        "test",
        make_settings(),
        routers=[thing_router()],
        lifespan=nothing,
        checks=[],
        open_prefixes=("/open/",),
        title="Test",
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_an_inner_service_refuses_calls_without_its_token(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        answer = await client.get("/missing", headers=headers)

        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics", "/open/door"])
async def test_open_paths_need_no_token(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


async def test_a_path_that_only_begins_like_an_open_one_needs_the_token(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez/../missing")).status_code == 401
    assert (await client.get("/openness")).status_code == 401


async def test_an_error_of_the_tree_is_a_problem_document(client: httpx.AsyncClient) -> None:
    answer = await client.get("/missing", headers=HEADERS)

    body = answer.json()
    assert answer.status_code == 404
    assert body["title"] == "There is no such thing"
    assert body["detail"] == "there is no thing 7"
    assert body["suggested_actions"]
    assert body["request_id"] == answer.headers["x-request-id"]


async def test_a_busy_answer_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/busy", headers=HEADERS)

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"


async def test_a_field_out_of_range_is_named_with_its_limit(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things", headers=HEADERS, json={"epochs": 1001})

    body = answer.json()
    assert answer.status_code == 422
    assert body["field"] == "epochs"
    assert "1000" in body["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b'{"epochs": ', "application/json", "not JSON: Expecting value at character 11"),
        (b"[]", "application/json", "JSON object"),
        (b"", "application/json", "JSON object"),
        (b'{"epochs": 3}', "text/plain", "Content-Type: application/json"),
        (b'{"\xff": 1}', "application/json", "UTF-8"),
    ],
)
async def test_a_body_that_is_no_json_object_is_told_so_and_how_to_send_one(
    client: httpx.AsyncClient, content: bytes, kind: str, said: str
) -> None:
    answer = await client.post("/things", headers=HEADERS | {"Content-Type": kind}, content=content)

    body = answer.json()
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in body["detail"] + " ".join(body["suggested_actions"])
    assert body.get("field", "body") == "body"


async def test_an_unexpected_error_tells_nothing_of_the_inside(client: httpx.AsyncClient) -> None:
    answer = await client.get("/broken", headers=HEADERS)

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text


async def test_unknown_addresses_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    unknown = await client.get("/nowhere", headers=HEADERS)
    method = await client.patch("/things", headers=HEADERS)
    single = await client.post("/things/7", headers=HEADERS)

    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert unknown.json()["detail"] == "GET /nowhere is not there"
    assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
    assert method.json()["detail"].startswith("PATCH /things is not there")
    assert (method.headers["allow"], single.headers["allow"]) == ("POST, DELETE", "GET")
    assert method.json()["detail"].endswith("it takes POST, DELETE")
    assert unknown.json()["suggested_actions"] == method.json()["suggested_actions"] != []


async def test_a_request_id_is_kept_when_it_is_harmless(client: httpx.AsyncClient) -> None:
    kept = await client.get("/livez", headers={"X-Request-Id": "abc-123"})
    replaced = await client.get("/livez", headers={"X-Request-Id": "a b\tc"})

    assert kept.headers["x-request-id"] == "abc-123"
    assert replaced.headers["x-request-id"].startswith("req_")


async def test_readiness_follows_the_broker_and_the_folders(
    nats_server: NatsServer, make_settings: Callable[..., CommonSettings], tmp_path: Path
) -> None:
    settings = make_settings(nats_url=nats_server.url)
    bus = await Bus.connect(settings, "test")
    await bus.ensure()
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    checks = [
        BrokerCheck(bus),
        WritableFolderCheck(tmp_path / "data", "data"),
        StorageCheck(FolderStorage(tmp_path / "objects")),
        ReadableCheck(tmp_path, "models"),
    ]
    app = create_service("test", settings, routers=[], lifespan=nothing, checks=checks, title="Test")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        ready = await client.get("/readyz")
        checks.append(WritableFolderCheck(blocked, "blocked"))
        unwritable = await client.get("/readyz")
        checks.pop()
        nats_server.kill()
        brokerless = await client.get("/readyz")
        alive = await client.get("/livez")
    await bus.close()

    assert ready.status_code == 200
    assert {c["name"] for c in ready.json()["checks"]} == {"broker", "data", "storage", "models"}
    assert unwritable.status_code == 503
    assert [c["name"] for c in unwritable.json()["checks"] if not c["ok"]] == ["blocked"]
    assert brokerless.status_code == 503
    assert [c["name"] for c in brokerless.json()["checks"] if not c["ok"]] == ["broker"]
    assert alive.status_code == 200


async def test_requests_are_counted_by_route(client: httpx.AsyncClient) -> None:
    await client.get("/missing", headers=HEADERS)

    text = (await client.get("/metrics")).text

    assert 'voicewright_http_requests_total{method="GET",route="/missing",status="404"}' in text
