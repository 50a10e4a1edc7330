"""How do requests reach the gateway? Tokens that are renewed when they expire, safe repeats, problems as errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from libs.client.errors import ApiProblem, NotReachable, SignInNeeded
from libs.client.models import Problem, Tokens

PREFIX = "/api/v1"
RETRIED = frozenset({502, 503, 504})


def problem_of(response: httpx.Response) -> ApiProblem:
    """The error that an unsuccessful answer stands for, whatever its body is."""
    try:
        body = response.json()
        problem = Problem.model_validate(body | {"status": response.status_code})
    except (ValueError, TypeError):
        text = response.text.strip()[:300]
        problem = Problem(title=f"The server answered {response.status_code}", status=response.status_code, detail=text)
    return (SignInNeeded if response.status_code in (401, 403) else ApiProblem)(problem)


class Connection:
    """A connection to one gateway on behalf of one account.

    `url` is the gateway's, without `/api/v1`. `on_tokens` is told whenever tokens were renewed. `attempts` is how
    often a request is sent that reached nobody or met an unavailable service; only GETs and requests with an
    Idempotency-Key are repeated.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        refresh_token: str | None = None,
        *,
        timeout: float = 60.0,
        attempts: int = 4,
        pause: float = 0.5,
        transport: httpx.BaseTransport | None = None,
        on_tokens: Callable[[Tokens], None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.refresh_token = refresh_token
        self._attempts = max(1, attempts)
        self._pause = pause
        self._on_tokens = on_tokens
        self._http = httpx.Client(
            base_url=self.url + PREFIX,
            timeout=httpx.Timeout(timeout, connect=10.0),
            transport=transport,
            headers={"User-Agent": "voicewright-client"},
        )

    def close(self) -> None:
        self._http.close()

    def take(self, tokens: Tokens) -> None:
        """Uses `tokens` from now on."""
        self.token, self.refresh_token = tokens.access_token, tokens.refresh_token or self.refresh_token
        if self._on_tokens:
            self._on_tokens(tokens)

    def request(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """One answer, successful or 304; raises ApiProblem, SignInNeeded or NotReachable.

        `key` makes a creating request safe to repeat: give `new_key()`.
        """
        may_repeat = method == "GET" or key is not None
        attempts = self._attempts if may_repeat else 1
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._http.request(
                    method,
                    path,
                    headers=self._headers(options.get("headers"), key),
                    **{
                        name: value() if callable(value) else value
                        for name, value in options.items()
                        if name != "headers"
                    },
                )
            except httpx.TransportError as error:
                if attempt < attempts and not isinstance(error, httpx.UnsupportedProtocol):
                    time.sleep(self._pause * 2 ** (attempt - 1))
                    continue
                raise NotReachable(
                    f"No answer from {self.url} ({error or type(error).__name__}). Is the platform running, and is the "
                    "address right? It comes from VOICEWRIGHT_URL or `voicewright login --url`."
                ) from error
            if response.status_code == 401 and not renewed and self._renew():
                renewed = True
                attempt -= 1
                continue
            if response.status_code in RETRIED and attempt < attempts:
                time.sleep(_retry_after(response, self._pause * 2 ** (attempt - 1)))
                continue
            if response.is_success or response.status_code == 304:
                return response
            raise problem_of(response)

    @contextmanager
    def stream(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> Iterator[httpx.Response]:
        """An answer whose body is read as it comes; raises as `request` does."""
        try:
            with self._http.stream(method, path, headers=self._headers(headers, None), **options) as response:
                if response.status_code == 401 and self._renew():
                    response.close()
                    with self._http.stream(method, path, headers=self._headers(headers, None), **options) as again:
                        yield _checked(again)
                    return
                yield _checked(response)
        except httpx.ConnectError as error:
            raise NotReachable(f"No answer from {self.url} ({error}). Is the platform running?") from error
        except httpx.TransportError as error:
            raise NotReachable(f"The connection to {self.url} broke ({error or type(error).__name__}).") from error

    def _headers(self, more: dict[str, str] | None, key: str | None) -> dict[str, str]:
        headers = dict(more or {})
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if key:
            headers["Idempotency-Key"] = key
        return headers

    def _renew(self) -> bool:
        """New tokens for an expired one, if there is a refresh token that still works."""
        if not self.refresh_token:
            return False
        try:
            answer = self._http.post("/auth/refresh", json={"refresh_token": self.refresh_token})
        except httpx.TransportError:
            return False
        if not answer.is_success:
            return False
        self.take(Tokens.model_validate(answer.json()))
        return True


def new_key() -> str:
    """An Idempotency-Key: one per intention, the same for its repeats."""
    return uuid.uuid4().hex


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        response.read()
        raise problem_of(response)
    return response


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    """Seconds that the server asks for, at most 30."""
    try:
        return min(30.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return otherwise
