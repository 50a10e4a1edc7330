"""Conversions over HTTP: formats, parameters, queue, refusals."""

from __future__ import annotations

import asyncio
import pickle
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from libs.audio.decode import decode
from libs.common.paths import Paths
from tests.comparing import SAME, apart, samples
from tests.factories_audio import FORMATS, encode_as, make_tone
from tests.factories_audio import speech as make_wave
from tests.integration.inference.conftest import Serve
from tests.integration.inference.voice_factory import Voices, stage
from tests.waiting import until


async def convert(client: httpx.AsyncClient, upload_id: str, voice: str = "anna", **wanted: Any) -> httpx.Response:
    return await client.post("/conversions", json={"upload_id": upload_id, "voice": voice, **wanted})


async def test_every_format_goes_in(client: httpx.AsyncClient, paths: Paths, voices: Voices, tmp_path: Path) -> None:
    voices.publish("anna", "job_1")
    wave = make_wave(1.5)
    for name in FORMATS:
        stage(paths, f"upl_{name}", encode_as(name, wave, 22_050, tmp_path / f"in.{name}"))

    answers = {name: await convert(client, f"upl_{name}") for name in FORMATS}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(FORMATS, 200)
    for answer in answers.values():
        assert abs(float(answer.headers["X-Duration-Seconds"]) - 1.5) < 0.2
        assert float(answer.headers["X-Real-Time-Factor"]) > 0


@pytest.mark.parametrize("preset", ["rvc-tiny", "lite"])
async def test_every_format_comes_out(
    client: httpx.AsyncClient, voices: Voices, speech: str, tmp_path: Path, preset: str
) -> None:
    sha256 = voices.publish("anna", "job_1", preset=preset)

    for name, mime in {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg"}.items():
        answer = await convert(client, speech, format=name)

        assert (answer.status_code, answer.headers["content-type"]) == (200, mime)
        assert (answer.headers["X-Voice-Version"], answer.headers["X-Voice-Sha256"]) == ("job_1", sha256)
        file = tmp_path / f"out.{name}"
        file.write_bytes(answer.content)
        sound = decode(file, limit_seconds=10)
        assert abs(sound.seconds - 2.0) < 0.2
        assert 1e-4 < float(np.abs(sound.wave).max()) <= 1.0


async def test_the_same_seed_gives_the_same_sound(client: httpx.AsyncClient, voices: Voices, speech: str) -> None:
    voices.publish("anna", "job_1")

    once, again, other = [samples((await convert(client, speech, seed=seed)).content) for seed in (5, 5, 6)]

    assert apart(once, again) <= SAME
    assert apart(once, other) > 10 * SAME


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pitch_shift", 25),
        ("index_rate", 1.1),
        ("protect", 0.6),
        ("rms_mix_rate", -0.1),
        ("seed", -1),
        ("format", "aiff"),
        ("f0_method", "magic"),
        ("volume", 3),
        ("filter_radius", 8),
        ("autotune_strength", 1.1),
        ("proposed_pitch_hz", 40),
        ("formant_timbre", 0.01),
        ("formant_quefrency", 17),
        ("output_rate", 4000),
        ("speaker_id", 2334),
    ],
)
async def test_a_parameter_out_of_range_is_named_with_its_limits(
    client: httpx.AsyncClient, voices: Voices, speech: str, field: str, value: object
) -> None:
    voices.publish("anna", "job_1")

    answer = await convert(client, speech, **{field: value})

    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert problem["field"] == field
    if isinstance(value, float) or field == "pitch_shift":
        assert problem["errors"][0]["limits"]
    assert problem["suggested_actions"] or problem["detail"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"autotune": True},
        {"proposed_pitch": True, "proposed_pitch_hz": 400},
        {"formant_timbre": 1.4},
        {"f0_file": "0,300\n2,400"},
        {"f0_method": "harvest", "filter_radius": 7},
        {"fill_unvoiced": True},
    ],
    ids=lambda wanted: next(iter(wanted)),
)
async def test_each_further_parameter_changes_the_sound(
    client: httpx.AsyncClient, voices: Voices, speech: str, wanted: dict[str, Any]
) -> None:
    voices.publish("anna", "job_1", preset="lite")

    plain, changed = [samples((await convert(client, speech, **more)).content) for more in ({}, wanted)]

    assert len(plain) == len(changed)
    assert apart(plain, changed) > SAME


async def test_the_result_has_the_rate_that_was_asked_for_and_the_length_of_its_source(
    client: httpx.AsyncClient, voices: Voices, speech: str, tmp_path: Path
) -> None:
    voices.publish("anna", "job_1")

    answer = await convert(client, speech, output_rate=44100, split_silence=True)

    file = tmp_path / "out.wav"
    file.write_bytes(answer.content)
    sound = decode(file)
    assert sound.sample_rate == 44100 == int(answer.headers["X-Sample-Rate"])
    assert abs(sound.seconds - 2.0) < 0.001


async def test_a_pitch_file_that_is_none_is_refused(client: httpx.AsyncClient, voices: Voices, speech: str) -> None:
    voices.publish("anna", "job_1")

    answer = await convert(client, speech, f0_file="once upon a time")

    assert (answer.status_code, answer.json()["field"]) == (422, "f0_file")
    assert "line 1" in answer.json()["detail"]


@pytest.mark.parametrize("voice", ["nobody", "../anna", "models", "Ännä"])
async def test_an_unknown_voice_is_not_found(client: httpx.AsyncClient, speech: str, voice: str) -> None:
    answer = await convert(client, speech, voice)

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (404, "not_found", "voice")


@pytest.mark.parametrize("upload", ["upl_unknown", "../uploads", "..", "", "a/b"])
async def test_an_unknown_upload_is_not_found(client: httpx.AsyncClient, voices: Voices, upload: str) -> None:
    voices.publish("anna", "job_1")

    answer = await convert(client, upload)

    assert (answer.status_code, answer.json()["code"]) == (404, "voice_sample_not_found")


async def test_a_call_without_the_service_token_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/conversions", json={}, headers={"Authorization": "Bearer wrong"})

    assert answer.status_code == 401


async def test_a_full_queue_asks_to_come_back(serve: Serve, voices: Voices, speech: str, gate: threading.Event) -> None:
    voices.publish("anna", "job_1")
    gate.clear()

    async with serve(conversions_at_once=1, conversions_waiting=1) as client:
        calls = [asyncio.create_task(convert(client, speech)) for _ in range(4)]
        await until(lambda: sum(call.done() for call in calls) == 2)
        gate.set()
        answers = await asyncio.gather(*calls)
        later = await convert(client, speech)

    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["retryable"] is True
    assert later.status_code == 200


class Evil:
    """Runs a command in whoever unpickles it."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, (f"touch {self._mark}",)


async def test_a_bad_voice_file_is_refused_and_the_service_lives(
    client: httpx.AsyncClient, voices: Voices, speech: str, tmp_path: Path
) -> None:
    weights, index = voices.files(0)
    mark = tmp_path / "executed"
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"weight": Evil(mark), "config": [], "sr": 16_000}))
    cut = tmp_path / "cut.pth"
    cut.write_bytes(weights.read_bytes()[:5000])
    lie = tmp_path / "lie.index"
    lie.write_bytes(index.read_bytes()[:200])
    voices.publish("evil", "job_1", files=(evil, index))
    voices.publish("cut", "job_1", files=(cut, index))
    voices.publish("lie", "job_1", files=(weights, lie))
    voices.publish("anna", "job_1")

    answers = {slug: await convert(client, speech, slug) for slug in ("evil", "cut", "lie")}
    good = await convert(client, speech)

    assert {slug: answer.status_code for slug, answer in answers.items()} == {"evil": 422, "cut": 422, "lie": 422}
    assert {answer.json()["code"] for answer in answers.values()} == {"model_file_refused"}
    assert not mark.exists()
    assert good.status_code == 200


async def test_a_voice_is_loaded_from_our_own_form_and_sounds_the_same(
    client: httpx.AsyncClient, paths: Paths, voices: Voices, speech: str
) -> None:
    voices.publish("anna", "job_1")
    voices.publish("berta", "job_1", native=True)
    voices.publish("clara", "job_1", native=True)
    paths.voice("berta").version("job_1").weights.write_bytes(b"nobody opens a torch file")
    paths.voice("clara").version("job_1").native.write_bytes(b"another")

    old, ours, changed = [await convert(client, speech, slug, seed=1) for slug in ("anna", "berta", "clara")]

    assert old.status_code == ours.status_code == 200
    assert ours.content == old.content
    assert ours.headers["x-voice-sha256"] == old.headers["x-voice-sha256"]
    assert changed.status_code == 503


async def test_a_file_that_was_changed_behind_its_card_is_not_used(
    client: httpx.AsyncClient, paths: Paths, voices: Voices, speech: str
) -> None:
    voices.publish("anna", "job_1")
    version = paths.voice("anna").version("job_1")
    version.weights.write_bytes(voices.files(1)[0].read_bytes())
    voices.publish("berta", "job_1")
    paths.voice("berta").card.write_text("{}")

    answers = [await convert(client, speech, slug) for slug in ("anna", "berta")]

    assert [answer.status_code for answer in answers] == [503, 422]


async def test_a_voice_of_another_content_encoder_is_refused(
    client: httpx.AsyncClient, voices: Voices, speech: str
) -> None:
    voices.publish("anna", "job_1", content_encoder={"name": "hubert", "checksum": "0" * 64, "width": 768})

    answer = await convert(client, speech)

    assert (answer.status_code, answer.json()["field"]) == (422, "content_encoder")
    assert "HUBERT_PATH" in answer.json()["detail"]


async def test_sound_that_cannot_be_converted_is_refused(
    client: httpx.AsyncClient, paths: Paths, voices: Voices, tmp_path: Path
) -> None:
    voices.publish("anna", "job_1")
    (tmp_path / "text.mp3").write_text("no sound at all " * 50)
    text = stage(paths, "upl_text", tmp_path / "text.mp3")
    blip = stage(paths, "upl_blip", make_tone(0.05, tmp_path / "blip.wav"))
    silence = stage(paths, "upl_silence", make_tone(1.0, tmp_path / "silence.wav", level=0.0))

    answers = [await convert(client, upload) for upload in (text, blip, silence)]

    assert [answer.status_code for answer in answers] == [415, 422, 200]
    assert answers[1].json()["code"] == "recording_too_short"


async def test_readiness_says_which_engines_are_used(serve: Serve, paths: Paths) -> None:
    async with serve() as client:
        paths.models_root.mkdir(parents=True)
        ready = await client.get("/readyz")
    answers = {}
    for file in (paths.hubert, paths.rmvpe):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"no checkpoint")
        async with serve() as client:
            answers[file.name] = await client.get("/readyz")
        file.unlink()

    said = {check["name"]: check for check in ready.json()["checks"]}
    assert ready.status_code == 200
    assert "voicewright-content" in said["engines"]["detail"]
    assert "swift" in said["engines"]["detail"]
    for name, broken in answers.items():
        said = {check["name"]: check for check in broken.json()["checks"]}
        assert (broken.status_code, said["engines"]["ok"]) == (503, False)
        assert name in said["engines"]["detail"]
