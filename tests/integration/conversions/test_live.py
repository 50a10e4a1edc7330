"""Does live speech come back in the other voice, in step, and does every session end cleanly? Over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from services.gateway.accounts.tables import Role
from tests.integration.conversions.conftest import Person, Studio
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timeout(300)
Make = Callable[..., Path]
RATE = 16_000


class Line:
    """One WebSocket to the gateway."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def begin(self, voice: str = "anna", **more: Any) -> dict[str, Any]:
        """The first message; what `ready` says."""
        await self.say(**({"voice_id": voice, "sample_rate": RATE, "format": "f32le", "f0_method": "praat"} | more))
        return await self.hear("ready")

    async def sound(self) -> bytes:
        """The next block of PCM; what is told meanwhile is kept."""
        while isinstance(message := await self.socket.recv(), str):
            self.told.append(json.loads(message))
        return message

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of a kind; PCM in between is thrown away."""
        while True:
            message = await self.socket.recv()
            if isinstance(message, str):
                self.told.append(json.loads(message))
                if self.told[-1]["type"] == kind:
                    return self.told[-1]

    async def closed(self) -> int:
        """Reads to the end; the close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = await self.socket.recv()
                if isinstance(message, str):
                    self.told.append(json.loads(message))
        assert self.socket.close_code is not None
        return self.socket.close_code

    @property
    def problem(self) -> dict[str, Any]:
        return next(message["problem"] for message in self.told if message["type"] == "error")


@asynccontextmanager
async def line(studio: Studio, person: Person | None, query: str = "") -> AsyncIterator[Line]:
    url = studio.running["gateway"].url.replace("http", "ws", 1) + "/api/v1/ws/convert" + query
    headers = {"Authorization": f"Bearer {person.token}"} if person is not None else {}
    async with connect(url, additional_headers=headers, proxy=None, open_timeout=PATIENCE, close_timeout=2) as socket:
        yield Line(socket)


async def _through(on: Line, ready: dict[str, Any], wave: np.ndarray) -> np.ndarray:
    """`wave` block by block, each sent when the one before has come back."""
    size = ready["block_samples"]
    heard = []
    for start in range(0, len(wave) - size + 1, size):
        await on.socket.send(wave[start : start + size].astype("<f4").tobytes())
        heard.append(np.frombuffer(await on.sound(), "<f4"))
    return np.concatenate(heard)


def _speech(path: Path) -> np.ndarray:
    wave, rate = soundfile.read(path, dtype="float32")
    return np.interp(np.arange(0, len(wave), rate / RATE), np.arange(len(wave)), wave).astype(np.float32)


def _stands_out(wave: np.ndarray, rate: int, first_hz: int, step_hz: int) -> float:
    """Power near `first_hz`, `first_hz + step_hz` … below 6 kHz, over that half-way between multiples of 150 Hz."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    hertz = np.arange(len(spectrum)) * rate / len(wave)

    def near(first: int, step: int) -> float:
        return float(np.mean([spectrum[np.abs(hertz - centre) < 10].sum() for centre in range(first, 6000, step)]))

    return near(first_hz, step_hz) / near(75, 150)


async def test_sound_comes_back_in_step_and_pitch_follows_what_was_asked(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna, preset="lite")
    wave = (0.3 * (2 * (np.arange(3 * RATE) * 150 / RATE % 1) - 1)).astype(np.float32)  # a steady voice at 150 Hz

    async with line(studio, anna) as on:
        ready = await on.begin(block_seconds=0.2)
        plain = await _through(on, ready, wave)
        await on.say(type="settings", pitch_shift=12)
        changed = await on.hear("settings")
        shifted = await _through(on, ready, wave)
        await on.say(type="end")
        code = await on.closed()

    blocks = len(wave) // ready["block_samples"]
    assert ready["block_samples"] == 0.2 * RATE
    assert (ready["input_rate"], ready["output_rate"], ready["voice_version"]) == (RATE, 24_000, "job_1")
    assert 0.2 < ready["latency_seconds"] < 0.4
    assert len(plain) == len(shifted) == blocks * ready["output_samples"]
    assert changed["pitch_shift"] == 12
    plain, shifted = plain[24_000:-12_000], shifted[24_000:-12_000]  # where pitch has settled
    assert _stands_out(plain, 24_000, 150, 300) > 2  # the odd multiples of 150 Hz …
    assert _stands_out(shifted, 24_000, 150, 300) < 1.5  # … are gone an octave higher
    assert _stands_out(shifted, 24_000, 300, 300) > 2
    stats = on.told[-1]
    assert code == 1000
    assert (stats["type"], stats["blocks"], stats["dropped_blocks"]) == ("stats", 2 * blocks, 0)
    assert stats["block_ms"]["mean"] > 0


async def test_a_lite_voice_is_as_loud_as_it_is_until_somebody_wants_the_loudness_of_the_source(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna, preset="lite")
    wave = (0.01 * (2 * (np.arange(2 * RATE) * 150 / RATE % 1) - 1)).astype(np.float32)

    async with line(studio, anna) as on:
        ready = await on.begin(block_seconds=0.2)
        heard, told = [await _through(on, ready, wave)], []
        for mix in (0, None):
            await on.say(type="settings", rms_mix_rate=mix)
            told.append((await on.hear("settings"))["rms_mix_rate"])
            heard.append(await _through(on, ready, wave))

    own, followed, again = (float(np.sqrt(np.mean(each[24_000:] ** 2))) for each in heard)
    assert told == [0, None]
    assert followed == pytest.approx(0.01 / np.sqrt(3), rel=0.2)  # that of the wave
    assert own > 2 * followed
    assert again == pytest.approx(own, rel=0.1)


@pytest.mark.slow
async def test_frames_of_any_size_and_16_bits_are_taken_and_the_rest_is_filled_up(
    studio: Studio, recordings: Make
) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    wave = _speech(recordings("speech.wav", 1.0))[: RATE // 2 + 101]
    pcm = (wave * 32767).astype("<i2").tobytes()

    async with line(studio, anna) as on:
        ready = await on.begin(format="s16le", block_seconds=0.2)
        for start in range(0, len(pcm), 777):
            await on.socket.send(pcm[start : start + 777])
        await on.say(type="end")
        heard = [await on.sound() for _ in range(3)]
        code = await on.closed()

    assert [len(block) for block in heard] == [2 * ready["output_samples"]] * 3
    assert code == 1000


async def test_a_ticket_opens_one_session_and_only_one(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    ticket = (await anna.post("/ws/tickets")).json()["ticket"]

    async with line(studio, None, f"?ticket={ticket}") as on:
        ready = await on.begin()
    async with line(studio, None, f"?ticket={ticket}") as again:
        second = await again.closed()
    async with line(studio, None, f"?token={anna.token}") as with_jwt:
        third = await with_jwt.closed()

    assert ready["type"] == "ready"
    assert (second, again.problem["reason"]) == (4401, "ticket_invalid")
    assert (third, with_jwt.problem["reason"]) == (4401, "token_missing")


async def test_who_may_not_is_told_why_and_closed(studio: Studio) -> None:
    anna, ben = await studio.person("anna"), await studio.person("ben")
    vera = await studio.person("vera", Role.viewer)
    await studio.voice(anna)

    async with line(studio, ben) as stranger:
        await stranger.say(voice_id="anna", sample_rate=RATE)
        codes = [await stranger.closed()]
    async with line(studio, vera) as viewer:
        codes.append(await viewer.closed())
    async with line(studio, None) as nobody:
        codes.append(await nobody.closed())

    assert codes == [4404, 4403, 4401]
    assert stranger.problem["field"] == "voice"
    assert (await vera.post("/ws/tickets")).status_code == 403


async def test_a_first_message_that_cannot_be_is_refused_by_name(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    rate = {"voice_id": "anna", "sample_rate": RATE}
    wrong: list[tuple[str | bytes, str]] = [
        (b"\0\0\0\0", "message"),
        ("no json", "message"),
        ("[1]", "message"),
        (json.dumps({"sample_rate": RATE}), "voice_id"),
        (json.dumps({"voice_id": "anna"}), "sample_rate"),
        (json.dumps(rate | {"sample_rate": 12_345}), "input_rate"),
        (json.dumps(rate | {"block_seconds": 9}), "block_seconds"),
        (json.dumps(rate | {"format": "mp3"}), "format"),
        (json.dumps(rate | {"rms_mix_rate": 2}), "rms_mix_rate"),
        (json.dumps(rate | {"colour": "red"}), "colour"),
        (json.dumps(rate | {"f0_method": "none-such"}), "f0_method"),
    ]

    for message, field in wrong:
        async with line(studio, anna) as on:
            await on.socket.send(message)
            code = await on.closed()
        assert (code, on.problem["field"]) == (4422, field), message


@pytest.mark.slow
async def test_settings_that_cannot_be_are_refused_and_the_stream_goes_on(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    wave = _speech(recordings("speech.wav", 1.0))

    async with line(studio, anna) as on:
        ready = await on.begin(block_seconds=0.2)
        for message in ({"pitch_shift": 99}, {"block_seconds": 0.5}, {"colour": "red"}, {"pitch_shift": "up"}):
            await on.say(type="settings", **message)
            problem = (await on.hear("error"))["problem"]
            assert (problem["status"], problem["field"]) == (422, next(iter(message)))
        heard = await _through(on, ready, wave)

    assert len(heard) == len(wave) // ready["block_samples"] * ready["output_samples"]


async def test_more_than_the_machine_can_do_drops_the_oldest_and_says_so(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    rng = np.random.default_rng(0)

    async with line(studio, anna) as on:
        ready = await on.begin(block_seconds=0.2)
        second = rng.uniform(-0.1, 0.1, RATE).astype("<f4").tobytes()
        for _ in range(40):  # 40 s at once: the queue holds one
            await on.socket.send(second)
        await on.say(type="end")
        code = await on.closed()

    overruns = [message for message in on.told if message["type"] == "overrun"]
    stats = on.told[-1]
    assert ready["queue_blocks"] == 5
    assert overruns[-1]["in_all"] == stats["dropped_blocks"] > 0
    assert stats["blocks"] + stats["dropped_blocks"] == 200
    assert code == 1000


async def test_a_session_that_ends_in_any_way_gives_its_place_back(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    await studio.restart("inference", signal.SIGTERM, LIVE_SESSIONS="1")

    async with line(studio, anna) as first:
        await first.begin()
        async with line(studio, anna) as second:
            await second.say(voice_id="anna", sample_rate=RATE)
            refused = await second.closed()
        first.socket.transport.abort()  # gone without a word

    async def gets_the_place() -> bool:
        async with line(studio, anna) as third:
            await third.say(voice_id="anna", sample_rate=RATE, f0_method="praat")
            return bool(json.loads(await third.socket.recv())["type"] == "ready")

    await until(gets_the_place)
    assert (refused, second.problem["code"]) == (4429, "busy")


@pytest.mark.slow
async def test_an_account_has_its_own_limit(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)

    async with line(studio, anna) as first, line(studio, anna) as second, line(studio, anna) as third:
        await first.begin()
        await second.begin()
        code = await third.closed()

    assert (code, third.problem["code"]) == (4429, "busy")


@pytest.mark.slow
async def test_a_voice_that_is_retrained_meanwhile_is_used_by_the_next_session(
    studio: Studio, recordings: Make
) -> None:
    anna = await studio.person()
    await studio.voice(anna, seed=0)
    wave = _speech(recordings("speech.wav", 1.0))

    async with line(studio, anna) as on:
        ready = await on.begin(block_seconds=0.2)
        before = await _through(on, ready, wave)
        await studio.voice(anna, version="job_2", seed=1)
        await _through(on, ready, wave)
    async with line(studio, anna) as next_one:
        following = await next_one.begin(block_seconds=0.2)
        after = await _through(next_one, following, wave)

    assert (ready["voice_version"], following["voice_version"]) == ("job_1", "job_2")
    assert not np.allclose(before, after)


@pytest.mark.slow
async def test_silence_and_age_end_a_session(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)

    await studio.restart("inference", signal.SIGTERM, LIVE_IDLE="0.5")
    async with line(studio, anna) as idle:
        await idle.begin()
        silent = await idle.closed()
    await studio.restart("inference", signal.SIGTERM, LIVE_IDLE="60", LIVE_LONGEST="1.5")
    async with line(studio, anna) as long:
        await long.begin()

        async def hum() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await long.socket.send(bytes(4 * RATE // 10))
                    await asyncio.sleep(0.1)

        humming = asyncio.create_task(hum())
        old = await long.closed()
        humming.cancel()

    assert (silent, idle.problem["code"]) == (4408, "session_idle")
    assert (old, long.problem["code"]) == (4413, "recording_too_long")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inference", "gateway"])
async def test_a_service_that_goes_says_come_again(studio: Studio, name: str) -> None:
    anna = await studio.person()
    await studio.voice(anna)

    async with line(studio, anna) as on:
        await on.begin()
        studio.running[name].signal(signal.SIGTERM)
        code = await on.closed()
        gone = await asyncio.to_thread(studio.running[name].process.wait, PATIENCE)

    assert code == 1012
    assert gone in (0, -signal.SIGTERM)


@pytest.mark.slow
async def test_a_killed_inference_is_told_as_unavailable(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)

    async with line(studio, anna) as on:
        await on.begin()
        studio.running["inference"].kill()
        code = await on.closed()
    async with line(studio, anna) as later:
        await later.say(voice_id="anna", sample_rate=RATE)
        refused = await later.closed()

    assert (code, on.problem["code"]) == (4503, "unavailable")
    assert (refused, later.problem["service"]) == (4503, "inference")
