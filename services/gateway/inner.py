"""How does the gateway call ingest and inference? With the service token, streaming, their problems passed through."""

from __future__ import annotations

import json as json_module
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from libs.common.errors import PlatformError, Unavailable
from libs.common.logs import current_traceparent, get_logger, request_id
from services.gateway import inner_upload

log = get_logger("gateway.inner")

_PROBLEM_BYTES = 65_536


class InnerProblem(PlatformError):
    """An inner service refused"""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("detail", "")))
        self.body = body
        # What is a class's own elsewhere is the inner service's word here.
        told = {"status": int(body["status"]), "code": str(body["code"]), "retryable": bool(body.get("retryable"))}
        self.__dict__.update(told)

    def problem(self) -> dict[str, Any]:
        """The inner service's own words."""
        return self.body


class InnerService:
    """A client of one inner service; connections are kept and shared."""

    def __init__(self, name: str, url: str, token: str, timeout: float) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0), pool=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=20),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    def _headers(self, headers: dict[str, str] | None) -> dict[str, str]:
        common = {"Authorization": f"Bearer {self._token}"}
        if request_id.get():
            common["X-Request-Id"] = request_id.get()
        if trace := current_traceparent():
            common["traceparent"] = trace
        return common | (headers or {})

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: AsyncIterable[bytes] | bytes | None = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """An answer with status below 400, its body not yet read.

        Raises InnerProblem with the service's own problem; Unavailable, naming the service, when it does not answer.
        """
        wait = self._timeout if timeout is None else timeout
        request = self._client.build_request(
            method,
            path,
            json=json,
            content=content,
            params=params,
            headers=self._headers(headers),
            timeout=httpx.Timeout(wait, connect=min(wait, 5.0), pool=min(wait, 10.0)),
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self.name} did not answer in time", service=self.name) from error
        except httpx.TransportError as error:
            log.warning("inner.unreachable", service=self.name, error=f"{type(error).__name__}: {error}")
            raise Unavailable(f"{self.name} is not reachable", service=self.name) from error
        try:
            if response.status_code >= 400:
                raise await self._refusal(response)
            yield response
        except httpx.TransportError as error:
            raise Unavailable(f"{self.name} broke off its answer", service=self.name) from error
        finally:
            await response.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """A short call: the decoded JSON of its answer, None when the answer is empty. Raises as `stream` does."""
        async with self.stream(
            method, path, json=json, content=content, params=params, headers=headers, timeout=timeout
        ) as response:
            await response.aread()
            return response.json() if response.content else None

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether `/readyz` says so, and its checks; raises Unavailable."""
        try:
            response = await self._client.get("/readyz", headers=self._headers(None), timeout=6.0)
            body = response.json()
        except (httpx.TransportError, ValueError) as error:
            raise Unavailable(f"{self.name} is not reachable", service=self.name) from error
        return response.status_code == 200, body if isinstance(body, dict) else {}

    async def upload(
        self, path: str, body: AsyncIterator[bytes], *, content_type: str, timeout: float, idle: float
    ) -> Any:
        """Streams `body` there; the decoded JSON of the answer. A refusal stops the stream. Raises as `stream`."""
        answer = await inner_upload.post(
            self._url + path,
            self._headers({"Content-Type": content_type, "Accept": "application/json"}),
            body,
            service=self.name,
            timeout=timeout,
            idle=idle,
        )
        if answer.status >= 400:
            raise self._problem(answer.status, answer.body)
        return answer.json()

    async def _refusal(self, response: httpx.Response) -> PlatformError:
        body = b""
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > _PROBLEM_BYTES:
                break
        return self._problem(response.status_code, body)

    def _problem(self, status: int, body: bytes) -> PlatformError:
        try:
            problem = json_module.loads(body)
            is_problem = isinstance(problem, dict) and problem.get("status") == status and "code" in problem
        except ValueError:
            is_problem = False
        # A token that an inner service refuses is a fault of the installation, not of the caller.
        if not is_problem or status == 401:
            log.error("inner.refused", service=self.name, status=status, body=body[:500].decode("latin-1"))
            return Unavailable(f"{self.name} answered with status {status}", service=self.name)
        return InnerProblem(problem)
