"""How is somebody else's service asked, and what do its refusals mean here?

No answer is trusted: its size is bounded, its text is kept short, and what it says about the caller's key is turned
into advice. Redirects are not followed, so that a key never goes to another host.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from libs.common.errors import PlatformError, ProviderFailed, ProviderRefused, ProviderUnavailable
from libs.common.storable import storable_text

ANSWER_LIMIT = 64 * 1024 * 1024
LONGEST_WAIT = 3600.0
SAID = 300
Headers = Callable[[], Mapping[str, str]]


class CloudClient:
    """One service at `base_url`. `headers` is asked before each request, so that a renewed key is used at once."""

    def __init__(self, name: str, base_url: str, headers: Headers, *, timeout: float, key_setting: str) -> None:
        """`timeout` in seconds, for a whole answer; `key_setting` is named when the key is refused."""
        self.name = name
        self._base = base_url.rstrip("/")
        self._headers = headers
        self._timeout = timeout
        self._key_setting = key_setting

    async def post_json(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The answer to a JSON body. Raises ProviderUnavailable, ProviderRefused, ProviderFailed."""
        return await self._send(path, json=dict(body))

    async def post_form(
        self, path: str, fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes, str]]
    ) -> bytes:
        """The answer to a form with files, each as (name, content, type). Raises as `post_json`."""
        return await self._send(path, data=dict(fields), files=dict(files))

    def object_of(self, answer: bytes) -> dict[str, Any]:
        """The JSON object in an answer; raises ProviderFailed when it is none."""
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ProviderFailed(f"{self.name} answered with something that is no JSON object")
        return found

    def text_in(self, answer: bytes, field: str) -> str:
        """A text that the answer must have; raises ProviderFailed without it."""
        value = self.object_of(answer).get(field)
        if not isinstance(value, str) or not value:
            raise ProviderFailed(f"{self.name} answered without {field!r}")
        return value

    async def _send(self, path: str, **content: Any) -> bytes:
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx.AsyncClient(timeout=self._timeout, follow_redirects=False) as http,
                http.stream("POST", self._base + path, headers=dict(self._headers()), **content) as answer,
            ):
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > ANSWER_LIMIT:
                        raise ProviderFailed(f"{self.name} answered with more than {ANSWER_LIMIT // 2**20} MiB")
        except (httpx.TimeoutException, TimeoutError) as error:
            raise ProviderFailed(f"{self.name} did not answer within {self._timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderFailed(f"{self.name} cannot be reached: {type(error).__name__}") from error
        if answer.status_code in (200, 201):
            return bytes(body)
        raise self._problem(answer, bytes(body))

    def _problem(self, answer: httpx.Response, body: bytes) -> PlatformError:
        status, said = answer.status_code, _message(body)
        told = f"{self.name} answered {status}" + (f": {said}" if said else "")
        if status == 401:
            return ProviderUnavailable(
                f"{self.name} does not accept the key (401)", actions=(f"Renew the key: {self._key_setting}.",)
            )
        if status == 403:
            return ProviderUnavailable(
                told, actions=(f"Custom voices must be allowed for the account of {self._key_setting}.",)
            )
        if status in (408, 429) or status >= 500:
            return ProviderFailed(told, retry_after=_retry_after(answer.headers.get("retry-after")))
        if 300 <= status < 400:
            return ProviderFailed(f"{self.name} answered with a redirect, which is not followed", actions=())
        return ProviderRefused(told)


def _message(body: bytes) -> str:
    """What an error says, as both services put it: `{"error": {"message": …}}`."""
    try:
        error = json.loads(body[:65_536]).get("error")
        said = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        return ""
    return storable_text(" ".join(str(said or "").split()), SAID)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which gives them or a date; None when it gives neither. An hour at most."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        if when.tzinfo is None:
            return None
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None
