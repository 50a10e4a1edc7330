"""Does the server that takes traces while the stacks are tried understand what the services send?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from libs.common import tracing
from scripts.processes import free_port
from tests.deploy.files import PROJECT
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector() -> Iterator[str]:
    """The address of one in a process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "deploy" / "smoke" / "collector.py")], env=os.environ | {"PORT": str(port)}
    )
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


async def answered(url: str) -> httpx.Response | None:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"{url}/traces")
    except httpx.TransportError:
        return None


async def test_spans_are_kept_by_trace_and_service(collector: str) -> None:
    await until(lambda: answered(collector))
    assert tracing.configure("trainer", collector)
    with tracing.span("work train", "consumer", f"00-{TRACE}-00f067aa0ba902b7-01"):
        pass
    tracing.shutdown()

    answer = await answered(collector)

    assert answer is not None
    assert answer.json() == {TRACE: {"trainer": ["work train"]}}


async def test_what_is_no_export_is_refused_and_leaves_nothing(collector: str) -> None:
    await until(lambda: answered(collector))

    async with httpx.AsyncClient(trust_env=False) as client:
        refused = await client.post(f"{collector}/v1/traces", content=b"\xff\xff not protobuf")

    assert refused.status_code == 400
    answer = await answered(collector)
    assert answer is not None
    assert answer.json() == {}
