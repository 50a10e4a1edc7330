"""A version of a voice: whole, copied, ordered, and never silent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from libs.common.events import ManifestRef
from libs.common.jobs import Lane
from libs.common.manifests import sha256_of
from libs.common.storage import open_storage
from tests.integration.voice_services.parts import prepared_tones, untrained_steps
from tests.integration.voice_services.platform import Platform, publish
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def prepared(here: Platform) -> ManifestRef:
    return prepared_tones(here.paths)


async def test_a_published_version_is_whole_and_replaces_the_last(here: Platform, prepared: ManifestRef) -> None:
    await here.started("trainer")
    voice = here.paths.voice("anna")
    cards = {}
    for seed, job in enumerate(("job_1", "job_2")):
        event = await here.send(publish(job, prepared, *untrained_steps(here.paths, job, seed=seed)), "published")
        cards[job] = event.card

        version = voice.version(job)
        served = json.loads(voice.card.read_text())
        assert served["version"] == job
        assert json.loads(version.card.read_text()) == event.card
        assert sha256_of(version.weights) == event.weights_sha256 == served["weights"]["sha256"]
        assert sha256_of(version.index) == event.index_sha256 == served["index"]["sha256"]
        assert (voice.weights.resolve(), voice.index.resolve()) == (version.weights, version.index)
        store = open_storage(here.settings)
        for path in (version.weights, version.index, version.card):
            assert b"".join(store.read("voice-models", f"anna/{job}/{path.name}")) == path.read_bytes()

    assert cards["job_1"]["weights"] != cards["job_2"]["weights"]
    assert served["content_encoder"]["checksum"]
    assert served["lineage"]["job_id"] == "job_2"
    assert not list(voice.versions.glob(".*"))


async def test_a_silent_voice_is_never_published(here: Platform, prepared: ManifestRef) -> None:
    here.start("trainer")
    await here.send(publish("job_1", prepared, *untrained_steps(here.paths, "job_1")), "published")
    before = here.paths.voice("anna").card.read_bytes()

    failed = await here.send(
        publish("job_2", prepared, *untrained_steps(here.paths, "job_2", zeros=True)), "step_failed"
    )

    assert failed.problem["code"] == "model_validation_failed"
    assert here.events.of("published", "job_2") == []
    assert here.paths.voice("anna").card.read_bytes() == before
    assert not here.paths.voice("anna").version("job_2").folder.exists()


async def test_a_version_waits_for_the_object_store_and_comes_late_without_rolling_back(
    here: Platform, prepared: ManifestRef
) -> None:
    obstacle = in_the_way_of(here, "job_1")
    here.start("trainer")
    await here.bus.send_command(publish("job_1", prepared, *untrained_steps(here.paths, "job_1")), Lane.normal)
    delayed = await here.events.wait_for("step_delayed", job="job_1", seconds=60)
    assert not here.paths.voice("anna").card.exists()
    await here.send(publish("job_2", prepared, *untrained_steps(here.paths, "job_2", seed=1)), "published")

    obstacle.unlink()
    late = await here.events.wait_for("published", job="job_1")

    assert delayed.problem["code"] == "unavailable"
    assert late.card["lineage"]["job_id"] == "job_1"
    assert here.paths.voice("anna").version("job_1").weights.is_file()
    assert json.loads(here.paths.voice("anna").card.read_text())["version"] == "job_2"
    assert open_storage(here.settings).list("voice-models", "anna/job_1/")
    await until(lambda: len(here.events.of("published")) == 2)


async def test_a_version_that_was_damaged_after_its_commit_fails_instead_of_waiting_for_ever(
    here: Platform, prepared: ManifestRef
) -> None:
    obstacle = in_the_way_of(here, "job_1")
    here.start("trainer")
    await here.bus.send_command(publish("job_1", prepared, *untrained_steps(here.paths, "job_1")), Lane.normal)
    await here.events.wait_for("step_delayed", seconds=60)

    here.paths.voice("anna").version("job_1").weights.write_bytes(b"damaged")
    obstacle.unlink()
    failed = await here.events.wait_for("step_failed")

    assert failed.problem["code"] == "work_failed"
    assert "not whole" in failed.problem["detail"]
    assert not here.paths.voice("anna").card.exists()


def in_the_way_of(here: Platform, job: str) -> Path:
    """A file where the object store would make the folder of a job."""
    store = Path(here.settings.storage_url.removeprefix("file://"))
    obstacle = store / "voice-models" / "anna" / job
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("in the way")
    return obstacle


async def test_a_retry_puts_a_version_together_again_that_was_committed_and_is_gone(
    here: Platform, prepared: ManifestRef
) -> None:
    here.start("trainer")
    order = publish("job_1", prepared, *untrained_steps(here.paths, "job_1"))
    first = await here.send(order, "published")
    voice = here.paths.voice("anna")
    shutil.rmtree(voice.folder)

    await here.bus.send_command(order.model_copy(update={"attempt": 2}), Lane.normal)
    second = await here.events.wait_for("published", count=2)

    assert (first.manifest.token, second.manifest.token) == (1, 2)
    assert sha256_of(voice.version("job_1").weights) == second.weights_sha256
    assert json.loads(voice.card.read_text())["version"] == "job_1"
