"""A gateway for the client's tests: a real HTTP server with the journey's routes, a memory, and planned misfortunes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MOMENT = "2026-01-02T03:04:05Z"


class Gateway:
    """What the server knows. `feed` is a list of connections; each is a list of frames after which it breaks."""

    def __init__(self) -> None:
        self.valid_tokens = {"good"}
        self.refresh_tokens: dict[str, str] = {"again": "good"}
        self.datasets: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.voices: list[dict[str, Any]] = []
        self.users: list[dict[str, Any]] = []
        self.access_keys: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.uploads: list[str] = []
        self.speakers: list[str] = []  # as the forms of the uploads name them
        self.metadata: dict[str, str] = {}
        self.converted = b""
        self.keys: Counter[str] = Counter()
        self.unavailable = 0
        self.room: int | None = None  # files until the disk is full
        self.feed: list[list[bytes]] = []
        self.feed_asked: list[str | None] = []
        self.seen: list[tuple[str, str, dict[str, Any]]] = []
        self.results: list[dict[str, Any]] = []
        self.sounds: dict[str, bytes] = {}
        self.texts: tuple[str, bytes, dict[str, str]] | None = None
        self.cut_sounds = 0
        self.lock = threading.Lock()
        gateway = self

        class Handler(_Handler):
            state = gateway

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def job(self, **fields: Any) -> dict[str, Any]:
        job = {
            "id": "job_1",
            "name": "Anna",
            "kind": "training",
            "status": "queued",
            "dataset": "anna",
            "voice": "anna",
        }
        job |= {"preset": "lite", "created_at": MOMENT, "error": None, "warnings": []} | fields
        self.jobs[job["id"]] = job
        return job


def frame(number: int, kind: str, data: dict[str, Any]) -> bytes:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def problem(status: int, title: str, detail: str, *actions: str) -> dict[str, Any]:
    return {"status": status, "title": title, "detail": detail, "code": "x", "suggested_actions": list(actions)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Gateway

    def do_GET(self) -> None:
        self.handle_one("GET")

    def do_POST(self) -> None:
        self.handle_one("POST")

    def do_PUT(self) -> None:
        self.handle_one("PUT")

    def do_PATCH(self) -> None:
        self.handle_one("PATCH")

    def do_DELETE(self) -> None:
        self.handle_one("DELETE")

    def handle_one(self, method: str) -> None:
        state = self.state
        path = urlsplit(self.path)
        route = path.path.removeprefix("/api/v1")
        query = {name: values[0] for name, values in parse_qs(path.query).items()}
        body = self._body()
        parsed = (
            json.loads(body) if self.headers.get("Content-Type", "").startswith("application/json") and body else {}
        )
        with state.lock:
            state.seen.append((method, route, parsed))
            if state.unavailable > 0:
                state.unavailable -= 1
                self._answer(503, problem(503, "A part is away", "the broker", "Try again."), {"Retry-After": "0"})
                return
        if route == "/auth/login":
            if parsed.get("password") != "right":
                self._answer(401, problem(401, "Sign in first", "e-mail or password is wrong"))
            else:
                self._answer(200, {"access_token": "good", "refresh_token": "again", "expires_in": 60})
            return
        if route == "/auth/refresh":
            token = state.refresh_tokens.pop(parsed["refresh_token"], None)
            if token is None:
                self._answer(401, problem(401, "Sign in first", "the session is over"))
            else:
                state.valid_tokens.add(token)
                state.refresh_tokens["next"] = token
                self._answer(200, {"access_token": token, "refresh_token": "next", "expires_in": 60})
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in state.valid_tokens:
            self._answer(401, problem(401, "Sign in first", "the token is not valid"))
            return
        if key := self.headers.get("Idempotency-Key"):
            state.keys[key] += 1
        self._authorised(method, route, query, parsed, body)

    def _authorised(self, method: str, route: str, query: dict[str, str], parsed: dict[str, Any], body: bytes) -> None:
        state = self.state
        parts = route.strip("/").split("/")
        match method, parts:
            case "POST", ["auth", "logout"]:
                self._answer(204, None)
            case "GET", ["auth", "me"]:
                self._answer(200, {"id": "usr_1", "email": "anna@example.com", "name": "Anna", "role": "admin"})
            case "POST", ["auth", "tokens"]:
                made = parsed | {
                    "id": f"key_{len(state.access_keys)}",
                    "begins_with": "vwk_secret",
                    "created_at": MOMENT,
                }
                state.access_keys.append(made)
                self._answer(201, made | {"token": "vwk_secret_words"})
            case "GET", ["auth", "tokens"]:
                self._page(state.access_keys, query)
            case "DELETE", ["auth", "tokens", key_id]:
                state.access_keys = [key for key in state.access_keys if key["id"] != key_id]
                self._answer(204, None)
            case "POST", ["admin", "users"]:
                state.users.append(parsed | {"id": f"usr_{len(state.users)}", "is_active": True, "created_at": MOMENT})
                self._answer(201, state.users[-1])
            case "GET", ["admin", "users"]:
                self._page(state.users, query)
            case "GET", ["datasets"]:
                self._page(state.datasets, query)
            case "POST", ["datasets"]:
                slug = parsed["name"].lower()
                made = {"id": f"dst_{len(state.datasets)}", "slug": slug, "name": parsed["name"], "user_id": "usr_1"}
                state.datasets.append(made)
                self._answer(201, made)
            case "PUT", ["datasets", dataset, "metadata.csv"]:
                state.metadata[dataset] = body.decode()
                self._answer(
                    200, {"changed": body.count(b"\n"), "confirmed": 3, "without_transcript": 2, "by_machine": 1}
                )
            case "GET", ["datasets", dataset, "metadata.csv"]:
                self._bytes(state.metadata[dataset].encode(), "text/csv")
            case "GET", ["samples"]:
                self._page(state.samples, query)
            case "POST", ["samples"]:
                self._upload(body)
            case "PATCH", ["samples", sample]:
                self._answer(200, {"id": sample} | parsed)
            case "POST", [kind, "jobs"]:
                job = state.job(
                    kind={"convert": "conversion", "synthesize": "speech"}.get(kind, kind),
                    preset=parsed.get("preset") or "lite",
                )
                self._answer(202, job)
            case "GET", [kind, "jobs"]:
                found = sorted((j for j in state.jobs.values() if self._has(kind, j["id"])), key=lambda j: j["id"])[
                    ::-1
                ]
                if query.get("status") == "active":
                    found = [j for j in found if j["status"] not in ("completed", "failed", "cancelled")]
                self._page(found, query)
            case "GET", [kind, "jobs", job_id] if self._has(kind, job_id):
                self._answer(200, state.jobs[job_id])
            case "POST", [kind, "jobs", job_id, deed] if self._has(kind, job_id):
                state.jobs[job_id]["status"] = {"cancel": "cancelled", "retry": "queued"}[deed]
                self._answer(200, state.jobs[job_id])
            case "GET", [kind, "jobs", job_id, "logs"] if self._has(kind, job_id):
                line = {
                    "timestamp": MOMENT,
                    "level": "info",
                    "kind": "step",
                    "message": "started",
                    "metadata": {"n": 1},
                }
                self._answer(200, {"items": [line], "next_cursor": None})
            case "POST", ["synthesize", "jobs", "file"]:
                state.texts = (self.headers["Content-Type"], body, query)
                self._answer(202, state.job(kind="speech", name="2 texts by linda"))
            case "GET", ["convert" | "synthesize", "jobs", _, "results"]:
                self._answer(200, {"files": state.results})
            case "GET", ["convert" | "synthesize", "jobs", _, "results", number]:
                self._sound(state.sounds[number])
            case "GET", [kind, "jobs", job_id, "events"] if self._has(kind, job_id):
                self._feed()
            case "GET", ["models"]:
                self._page(state.voices, query)
            case "GET", ["models", key] if self._voice(key):
                self._answer(200, self._voice(key))
            case "DELETE", ["models", key] if self._voice(key):
                state.voices.remove(self._voice(key))  # type: ignore[arg-type]
                self._answer(204, None)
            case "GET", ["models", key, "export"] if self._voice(key):
                self._bytes(b"PK" + b"z" * 5000, "application/zip")
            case "POST", ["synthesize", "reference"]:
                self._bytes(b"RIFF" + body, "audio/wav", {"X-Duration-Seconds": "1.5"})
            case "POST", ["synthesize"]:
                if not parsed["text"].strip():
                    self._answer(
                        422, problem(422, "The request cannot be accepted", "the text is empty", "Send words.")
                    )
                else:
                    headers = {"X-Voice-Version": "job_1", "X-Duration-Seconds": "1.5", "X-Characters-Left-Out": "1"}
                    self._bytes(b"RIFF" + body, "audio/wav", headers)
            case "POST", ["convert"]:
                state.converted = body
                if b"\nsilence" in body:
                    said = problem(422, "The recording holds no sound", "the peak is 0", "Check the microphone.")
                    self._answer(422, said)
                else:
                    headers = {"X-Voice-Version": "job_1", "X-Duration-Seconds": "1.5", "X-Real-Time-Factor": "0.05"}
                    self._bytes(b"RIFF" + body[-100:], "audio/wav", headers)
            case _:
                self._answer(404, problem(404, "There is no such thing", route, "List what you have."))

    def _has(self, kind: str, job_id: str) -> bool:
        return self.state.jobs.get(job_id, {}).get("kind") == {"convert": "conversion", "synthesize": "speech"}.get(
            kind, kind
        )

    def _voice(self, key: str) -> dict[str, Any] | None:
        return next((v for v in self.state.voices if key in (v["id"], v["slug"])), None)

    def _upload(self, body: bytes) -> None:
        state = self.state
        names = [
            line.split(b'filename="')[1].split(b'"')[0].decode() for line in body.split(b"\r\n") if b"filename=" in line
        ]
        rejected = [
            {"name": n, "problem": problem(415, "This is no sound", f"{n} is text", "Send sound.")}
            for n in names
            if n.startswith("bad")
        ]
        with state.lock:
            if state.room is not None and len(state.uploads) + len(names) > state.room:
                full = problem(507, "There is no space left", "the uploads' volume is full", "Free disk space.")
                self._answer(507, full)
                return
            state.uploads += names
            if b'name="speaker_id"' in body:
                state.speakers.append(body.split(b'name="speaker_id"\r\n\r\n')[1].split(b"\r\n")[0].decode())
        warned = [{"code": "narrow_band", "message": "There is nothing above 4.0 kHz.", "value": 4000, "limit": 7000}]
        kept = [
            {"id": f"smp_{n}", "name": n, "warnings": warned if n.startswith("dull") else []}
            for n in names
            if not n.startswith("bad")
        ]
        self._answer(201, {"dataset": state.datasets[0], "samples": kept, "rejected": rejected})

    def _feed(self) -> None:
        self.state.feed_asked.append(self.headers.get("Last-Event-ID"))
        frames = self.state.feed.pop(0) if self.state.feed else []
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for block in frames:
            self.wfile.write(block)
            self.wfile.flush()
        self.close_connection = True

    def _sound(self, data: bytes) -> None:
        """A sound, whole or, `cut_sounds` times, broken off in its middle."""
        if self.state.cut_sounds <= 0:
            self._bytes(data, "audio/wav")
            return
        self.state.cut_sounds -= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            blocks = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                blocks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(blocks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _page(self, items: list[dict[str, Any]], query: dict[str, str]) -> None:
        start, count = int(query.get("cursor", 0)), min(2, int(query.get("limit", 2)))
        following = str(start + count) if start + count < len(items) else None
        self._answer(200, {"items": items[start : start + count], "next_cursor": following})

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self._send(status, data, "application/json", headers)

    def _bytes(self, data: bytes, media_type: str, headers: dict[str, str] | None = None) -> None:
        self._send(200, data, media_type, headers)

    def _send(self, status: int, data: bytes, media_type: str, headers: dict[str, str] | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return
