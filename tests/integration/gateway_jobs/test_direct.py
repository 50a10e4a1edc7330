"""Do the customer's eight commands work as written, on the ports where they were?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import update

from libs.common.service import create_service
from scripts.processes import free_port
from services.gateway.accounts.tables import Role
from services.gateway.datasets.tables import Sample
from services.gateway.settings import GatewaySettings
from services.preprocessor.direct import router as preprocess_router
from services.trainer.direct import OPEN_PREFIXES, as_job
from services.trainer.direct import router as trainer_router
from tests.integration.gateway_jobs.conftest import House, Person, served
from tests.integration.gateway_jobs.scripted_workers import Workers
from tests.waiting import PATIENCE


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[None]:
    yield


def _service(name: str, settings: GatewaySettings, gateway_url: str) -> FastAPI:
    router, prefixes = (
        (preprocess_router, ("/api/v1/preprocess/",)) if name == "preprocessor" else (trainer_router, OPEN_PREFIXES)
    )
    return create_service(
        name,
        settings.model_copy(update={"gateway_url": gateway_url}),
        routers=[router],
        lifespan=_nothing,
        checks=[],
        open_prefixes=prefixes,
        title=name,
    )


@pytest.fixture
async def ports(house: House, settings: GatewaySettings) -> AsyncIterator[dict[str, str]]:
    """Addresses of a preprocessor and a trainer that forward to the house's gateway."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(served(_service(name, settings, house.url)))
            for name in ("preprocessor", "trainer")
        }


async def curl(person: Person | None, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The real curl, with the person's token."""
    token = ["-H", f"Authorization: Bearer {person.token}"] if person else []
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "-w", "\n%{http_code}", *token, *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    body, _, status = out.decode().rpartition("\n")
    return int(status), json.loads(body) if body.strip() else {}


async def test_start_status_and_validate_work_as_written(house: House, ports: dict[str, str], workers: Workers) -> None:
    anna = await house.person()
    await house.dataset(anna, "test_model")
    workers.work()
    as_json = ["-H", "Content-Type: application/json"]

    health = [await curl(None, f"{url}/health") for url in ports.values()]
    begun = await curl(
        anna, "-X", "POST", f"{ports['preprocessor']}/api/v1/preprocess/start", *as_json, "-d",
        '{"exp_name": "test_model"}',
    )  # fmt: skip
    status = await curl(anna, f"{ports['preprocessor']}/api/v1/preprocess/status/{begun[1]['job_id']}")
    checked = await curl(anna, f"{ports['preprocessor']}/api/v1/preprocess/validate/test_model")
    trained = await curl(
        anna, "-X", "POST", f"{ports['trainer']}/api/v1/trainer/start", *as_json, "-d",
        '{"exp_name": "test_model", "epochs": 10}',
    )  # fmt: skip
    training = await curl(anna, f"{ports['trainer']}/api/v1/trainer/status/{trained[1]['job_id']}")
    ready = await curl(anna, f"{ports['trainer']}/api/v1/trainer/validate/test_model")

    assert [code for code, _ in health] == [200, 200]
    assert begun[0] == 202
    assert (status[0], status[1]["job_id"], status[1]["kind"]) == (200, begun[1]["job_id"], "preprocess")
    assert checked[0] == 200
    assert len(checked[1]["artifacts"]["folders"]) == 5
    assert trained[0] == 202
    assert (trained[1]["preset"], trained[1]["options"]["epochs"]) == ("lite", 10)
    assert (training[0], training[1]["kind"]) == (200, "training")
    assert (ready[0], ready[1]["exp_name"], ready[1]["can_train"]) == (200, "test_model", True)
    assert len(ready[1]["artifacts"]["folders"]) == 5
    await house.wait_status(anna, trained[1]["job_id"], "completed")


async def test_stop_ends_the_job(house: House, ports: dict[str, str]) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))

    code, body = await curl(anna, "-X", "POST", f"{ports['trainer']}/api/v1/trainer/stop/{job['id']}")

    assert (code, body["success"], body["status"], body["job_id"]) == (200, True, "cancelled", job["id"])


async def test_problems_of_the_gateway_come_through(house: House, ports: dict[str, str]) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    job = await house.train(anna, await house.dataset(anna))
    start = f"{ports['trainer']}/api/v1/trainer/start"

    no_token = await curl(None, f"{ports['trainer']}/api/v1/trainer/status/{job['id']}")
    stranger = await curl(ben, f"{ports['trainer']}/api/v1/trainer/status/{job['id']}")
    sneaky = await curl(anna, f"{ports['trainer']}/api/v1/trainer/status/..%2F..%2F..%2Fauth%2Fme")
    no_json = await curl(anna, "-X", "POST", start, "-d", "{")
    no_object = await curl(anna, "-X", "POST", start, "-d", "[]")
    range_ = await curl(anna, "-X", "POST", start, "-d", '{"exp_name": "anna", "epochs": 5000}')

    dots = await curl(anna, f"{ports['trainer']}/api/v1/trainer/status/%2E%2E")
    odd = [
        (await curl(anna, "-X", "POST", start, "-d", body))[0]
        for body in ('{"epochs": NaN}', '{"epochs": 1e999}', '{"exp_name": "\\ud800"}', "[" * 100_000)
    ]
    header = await curl(anna, f"{ports['trainer']}/api/v1/trainer/status/{job['id']}", "-H", "If-None-Match: é")

    assert (dots[0], dots[1]["detail"]) == (404, "there is no training job '..'")
    assert odd == [422, 422, 422, 422]
    assert header[0] == 200
    assert (no_token[0], no_token[1]["code"]) == (401, "unauthenticated")
    assert (stranger[0], stranger[1]["code"]) == (404, "not_found")
    assert sneaky[0] == 404
    assert [no_json[0], no_object[0], range_[0]] == [422, 422, 422]
    assert "epochs" in range_[1]["detail"]


async def test_a_gateway_that_is_down_is_a_503_that_names_it(house: House, settings: GatewaySettings) -> None:
    anna = await house.person()
    async with served(_service("trainer", settings, f"http://127.0.0.1:{free_port()}")) as url:
        code, body = await curl(anna, f"{url}/api/v1/trainer/status/job_1")

    assert (code, body["code"], body["service"]) == (503, "unavailable", "gateway")
    assert body["retryable"] is True


async def test_an_upload_streams_through_before_it_is_complete(house: House, settings: GatewaySettings) -> None:
    anna = await house.person()
    arrived = asyncio.Event()
    seen: dict[str, Any] = {"bytes": 0}
    gateway = FastAPI()

    @gateway.post("/api/v1/samples", status_code=201)
    async def samples(request: Request) -> dict[str, Any]:
        seen["authorization"] = request.headers["authorization"]
        seen["type"] = request.headers["content-type"]
        async for piece in request.stream():
            seen["bytes"] += len(piece)
            arrived.set()
        return {"dataset": {"slug": "test_model"}, "samples": [], "rejected": []}

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        await asyncio.wait_for(arrived.wait(), PATIENCE)  # the gateway has the first piece while the last is not sent
        yield b"y" * 100_000

    async with (
        served(gateway) as gateway_url,
        served(_service("preprocessor", settings, gateway_url)) as url,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        answer = await client.post(
            f"{url}/api/v1/preprocess/upload",
            content=body(),
            headers={"Authorization": f"Bearer {anna.token}", "Content-Type": "multipart/form-data; boundary=b"},
        )

    assert answer.status_code == 201
    assert answer.json()["exp_name"] == "test_model"
    assert seen == {
        "bytes": 200_000,
        "authorization": f"Bearer {anna.token}",
        "type": "multipart/form-data; boundary=b",
    }


def test_the_old_flat_body_becomes_a_job() -> None:
    assert as_job({"exp_name": "a", "epochs": 10, "options": {"seed": 1}, "preset": "lite"}) == {
        "exp_name": "a",
        "preset": "lite",
        "options": {"seed": 1, "epochs": 10},
    }


async def test_the_trainers_oldest_addresses_start_and_list_for_administrators(
    house: House, ports: dict[str, str]
) -> None:
    anna, boss = await house.person("anna"), await house.person("boss", Role.admin)
    as_json = ["-H", "Content-Type: application/json"]
    dataset = await house.dataset(boss, "linda")
    async with house.database.write() as session:
        await session.execute(update(Sample).where(Sample.dataset_id == dataset).values(transcript="Words of it."))

    def start(name: str) -> list[str]:
        body = json.dumps({"dataset_name": name, "epochs": 3})
        return ["-X", "POST", f"{ports['trainer']}/train", *as_json, "-d", body]

    refused = [await curl(None, *start("linda")), await curl(anna, *start("linda")), await curl(boss, *start("nobody"))]
    begun, job = await curl(boss, *start("linda"))
    listed = [await curl(person, f"{ports['trainer']}/training-jobs") for person in (None, anna, boss)]

    assert [status for status, _ in refused] == [401, 403, 404]
    assert [status for status, _ in listed] == [401, 403, 200]
    assert (begun, job["dataset_name"]) == (202, "linda")
    (shown,) = listed[-1][1]["jobs"]
    assert (shown["job_id"], shown["status"], shown["model_available"]) == (job["job_id"], "pending", False)
    assert (await boss.get(f"/training/jobs/{job['job_id']}")).json()["options"]["epochs"] == 3
