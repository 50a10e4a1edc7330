"""Local servers that speak Google's and OpenAI's custom voice APIs, and refuse what the real ones refuse."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOGLE_KEY, OPENAI_KEY = "a-google-key", "sk-an-openai-key"


def tone(seconds: float = 2.0, rate: int = 24_000, level: float = 0.3) -> bytes:
    """A WAV file, mono PCM16."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        values = (int(32767 * level * math.sin(2 * math.pi * 220 * n / rate)) for n in range(int(seconds * rate)))
        file.writeframes(b"".join(struct.pack("<h", value) for value in values))
    return buffer.getvalue()


@dataclass
class Asked:
    """One request: `fields` of its JSON or form, `files` of its form."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0


@dataclass
class CloudServer:
    """`asked` so far; `next` are answers that are given before any real one; `spoken` is what speech sounds like."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    next: list[Answer] = field(default_factory=list)
    spoken: bytes = field(default_factory=tone)
    closing: threading.Event = field(default_factory=threading.Event)

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def answer(self, asked: Asked) -> Answer:
        if self.next:
            return self.next.pop(0)
        if asked.path.startswith("/v1beta1/"):
            return self._google(asked)
        return self._openai(asked)

    def _google(self, asked: Asked) -> Answer:
        if asked.headers.get("x-goog-api-key") != GOOGLE_KEY and asked.headers.get("authorization") != "Bearer fresh":
            return _error(401, "Request had invalid authentication credentials.")
        if asked.path == "/v1beta1/voices:generateVoiceCloningKey":
            for name in ("reference_audio", "voice_talent_consent"):
                sound = base64.b64decode(asked.fields[name]["content"])
                if asked.fields[name]["audio_config"] != {"audio_encoding": "LINEAR16"} or not seconds_of(sound) <= 10:
                    return _error(400, f"{name} must be LINEAR16 of at most 10 seconds.")
            begins = {"en": "I am the owner of this voice", "de": "Ich bin der Eigentümer dieser Stimme"}
            if not asked.fields["consent_script"].startswith(begins[asked.fields["language_code"][:2]]):
                return _error(400, "The consent script is not the one of the language.")
            return _json({"voiceCloningKey": "key-of-" + asked.fields["language_code"]})
        if asked.path == "/v1beta1/text:synthesize":
            if not asked.fields["voice"]["voice_clone"]["voice_cloning_key"].startswith("key-of-"):
                return _error(400, "Invalid voice cloning key.")
            return _json({"audioContent": base64.b64encode(self.spoken).decode()})
        return _error(404, "Not found.")

    def _openai(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {OPENAI_KEY}":
            return _error(401, "Incorrect API key provided.")
        if asked.path == "/v1/audio/voice_consents":
            if not {"name", "language"} <= asked.fields.keys() or not seconds_of(asked.files["recording"]):
                return _error(400, "Missing parameter.")
            return _json({"id": "cons_1", "object": "audio.voice_consent", **asked.fields})
        if asked.path == "/v1/audio/voices":
            if asked.fields.get("consent") != "cons_1":
                return _error(404, "No such consent.")
            if not 0 < seconds_of(asked.files["audio_sample"]) <= 30:
                return _error(400, "The audio sample must be 30 seconds or less.")
            return _json({"id": "voice_1", "object": "audio.voice", "name": asked.fields["name"]})
        if asked.path == "/v1/audio/speech":
            if asked.fields.get("voice") != {"id": "voice_1"} or asked.fields.get("response_format") != "wav":
                return _error(400, "Invalid voice.")
            return Answer(200, self.spoken, {"Content-Type": "audio/wav"})
        return _error(404, "Not found.")


def seconds_of(sound: bytes) -> float:
    """Of a mono PCM16 WAV file; anything else raises."""
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getnframes() / file.getframerate()


def _json(value: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _error(status: int, message: str) -> Answer:
    return Answer(status, json.dumps({"error": {"message": message, "code": status}}).encode())


@contextmanager
def cloud_server() -> Iterator[CloudServer]:
    """A running server."""
    state = CloudServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.path, headers, *_content(headers["content-type"], body))
            state.asked.append(asked)
            answer = state.answer(asked)
            state.closing.wait(answer.after)
            try:
                self.send_response(answer.status)
                for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except OSError:
                pass  # who asked did not wait

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _content(kind: str, body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    if kind.startswith("application/json"):
        return json.loads(body), {}
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            files[name] = content
        else:
            fields[name] = content.decode()
    return fields, files
