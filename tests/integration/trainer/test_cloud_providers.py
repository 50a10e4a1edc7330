"""Do voices of Google and OpenAI go the way of every voice: checked, made once, tried, published whole?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from libs.common.cloud import google, openai
from libs.common.events import CheckSpeech, ManifestRef, PublishVoice, SpokenClip, TrainingOptions, TrainVoice
from libs.common.jobs import Step
from libs.common.manifests import sha256_of
from tests.cloud_servers import GOOGLE_KEY, OPENAI_KEY, Answer, CloudServer, cloud_server, seconds_of, tone
from tests.integration.voice_services.platform import Platform

LENGTHS = {"smp_long": 40.0, "smp_9": 9.0, "smp_28": 28.0, "smp_consent": 6.0}
OPTIONS = {
    "google": {"preset": "google-instant", "language": "en-US", "consent_recording": "smp_consent"},
    "openai": {"preset": "openai-custom", "language": "en", "consent_recording": "smp_consent"},
}
STATEMENTS = {"google": google.STATEMENTS["en-US"], "openai": openai.STATEMENTS["en"]}


@pytest.fixture
def cloud() -> Iterator[CloudServer]:
    with cloud_server() as server:
        yield server


async def start(here: Platform, cloud: CloudServer, **changed: Any) -> None:
    environment = {
        "GOOGLE_TTS_API_KEY": GOOGLE_KEY,
        "GOOGLE_TTS_URL": cloud.url,
        "OPENAI_API_KEY": OPENAI_KEY,
        "OPENAI_URL": f"{cloud.url}/v1",
    }
    await here.started("trainer", **(environment | changed))


def clips(here: Platform, provider: str, **changed: Any) -> tuple[SpokenClip, ...]:
    """Sounds where ingest leaves them, and the words of the consent."""
    uploads = here.paths.uploads("anna")
    uploads.wavs.mkdir(parents=True, exist_ok=True)
    made = []
    for number, (sample, seconds) in enumerate(LENGTHS.items(), 1):
        sha256 = f"{number:064x}"
        uploads.wav(sha256).write_bytes(tone(seconds, rate=22_050))
        said = STATEMENTS[provider] if sample == "smp_consent" else ""
        clip = {"transcript": said, "seconds": seconds} | (changed if sample == "smp_consent" else {})
        made.append(SpokenClip(sample_id=sample, sha256=sha256, extension="wav", name=f"{sample}.wav", **clip))
    return tuple(made)


def check(job: str, provider: str, clips: tuple[SpokenClip, ...]) -> CheckSpeech:
    options = TrainingOptions.model_validate(OPTIONS[provider])
    return CheckSpeech(
        job_id=job, step=Step.preprocess, experiment="anna", dataset="anna", clips=clips, options=options
    )


def train(job: str, provider: str, prepared: ManifestRef, attempt: int = 1) -> TrainVoice:
    options = TrainingOptions.model_validate(OPTIONS[provider])
    return TrainVoice(
        job_id=job,
        step=Step.train,
        attempt=attempt,
        experiment="anna",
        voice="anna",
        prepared=prepared,
        options=options,
    )


def publish(job: str, provider: str, prepared: ManifestRef, trained: ManifestRef) -> PublishVoice:
    return PublishVoice(
        job_id=job,
        step=Step.publish,
        experiment="anna",
        voice="anna",
        display_name="Anna",
        dataset="anna",
        inputs=(),
        prepared=prepared,
        trained=trained,
        preset=OPTIONS[provider]["preset"],
    )


async def test_a_voice_is_checked_made_elsewhere_heard_and_published(here: Platform, cloud: CloudServer) -> None:
    await start(here, cloud)
    for provider, longest in (("google", 10.0), ("openai", 30.0)):
        job = f"job_{provider}"

        checked = await here.send(check(job, provider, clips(here, provider)), "checked")
        trained = await here.send(train(job, provider, checked.manifest), "trained")
        published = await here.send(publish(job, provider, checked.manifest, trained.manifest), "published")

        version = here.paths.voice("anna").version(job)
        remote = json.loads(version.file("remote.json").read_text())
        card = json.loads(here.paths.voice("anna").card.read_text())
        assert (checked.clips, checked.language) == (3, OPTIONS[provider]["language"])
        assert (card["kind"], card["preset"], card["weights"]) == (provider, OPTIONS[provider]["preset"], None)
        assert (card["version"], published.weights_sha256) == (job, "")
        assert card["files"][0]["sha256"] == sha256_of(version.file("remote.json"))
        assert card["consent"]["statement"] == STATEMENTS[provider]
        assert remote["provider"] == provider
        key = remote.get("voice_cloning_key") or remote["voice_id"]
        assert key in ("key-of-en-US", "voice_1")
        assert key not in json.dumps(card)
        assert card["lineage"]["recordings"] == [f"{2 if longest == 10 else 3:064x}"]
    sample = next(asked.files["audio_sample"] for asked in cloud.asked if asked.path == "/v1/audio/voices")
    assert seconds_of(sample) == pytest.approx(28.0, abs=0.01)
    assert not here.paths.voice("anna").weights.exists()


async def test_a_busy_service_is_asked_again_when_it_said_and_a_retry_makes_nothing_twice(
    here: Platform, cloud: CloudServer
) -> None:
    await start(here, cloud)
    checked = await here.send(check("job_1", "openai", clips(here, "openai")), "checked")
    cloud.next += [Answer(429, headers={"Retry-After": "3"})]
    asked = time.monotonic()

    trained = await here.send(train("job_1", "openai", checked.manifest), "trained")
    waited = time.monotonic() - asked
    cloud.spoken = tone(level=0.0)
    failed = await here.send(publish("job_1", "openai", checked.manifest, trained.manifest), "step_failed")

    delayed = here.events.of("step_delayed", "job_1")
    assert [(event.problem["code"], event.delay_seconds) for event in delayed] == [("provider_failed", 3.0)]
    assert waited > 2.7  # a little less than was said, because the broker has its own clock
    assert failed.problem["code"] == "model_validation_failed"
    assert cloud.paths().count("/v1/audio/voices") == 1
    assert cloud.paths().count("/v1/audio/voice_consents") == 2  # one was refused
    assert not here.paths.voice("anna").card.exists()


async def test_a_consent_that_is_not_the_statement_and_a_key_that_is_refused_end_the_job_with_advice(
    here: Platform, cloud: CloudServer
) -> None:
    await start(here, cloud, OPENAI_API_KEY="", GOOGLE_TTS_API_KEY="an old one")

    wrong = await here.send(check("job_1", "google", clips(here, "google", transcript="I agree.")), "step_failed")
    long = await here.send(check("job_2", "google", clips(here, "google", seconds=10.5)), "step_failed")
    off = await here.send(check("job_3", "openai", clips(here, "openai")), "step_failed")
    checked = await here.send(check("job_4", "google", clips(here, "google")), "checked")
    refused = await here.send(train("job_4", "google", checked.manifest), "step_failed")

    assert STATEMENTS["google"] in wrong.problem["suggested_actions"][0]
    assert "10 s are allowed" in long.problem["detail"]
    assert (off.problem["code"], off.problem["retryable"]) == ("provider_unavailable", False)
    assert "OPENAI_API_KEY" in off.problem["suggested_actions"][0]
    assert refused.problem["code"] == "provider_unavailable"
    assert "GOOGLE_TTS_API_KEY" in refused.problem["suggested_actions"][0]
    assert "an old one" not in json.dumps([event.problem for event in here.events.of("step_failed")])
