"""Can a dataset be trained on? Real commands over a real broker to a real ingest."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.common import manifests
from libs.common.bus import Bus
from libs.common.events import InputFile, ValidateDataset
from libs.common.jobs import Lane, Step
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.common.storage import open_storage
from tests.conftest import NatsServer
from tests.factories_audio import make_speech, make_tone, tone, write_float_wav
from tests.hearing import Events, heard
from tests.integration.ingest.conftest import Service, StartIngest
from tests.waiting import until


@pytest.fixture
async def events(bus: Bus) -> AsyncIterator[Events]:
    async with heard(bus) as found:
        yield found


@pytest.fixture
def running(start_ingest: StartIngest) -> Service:
    return start_ingest()


def fill(ingest: Service, dataset: str, recordings: list[Path]) -> tuple[InputFile, ...]:
    """Uploads recordings into a dataset; returns them as a command names them."""
    files = [ingest.stage(path) for path in recordings]
    with ingest.client() as client:
        answer = client.post(f"/datasets/{dataset}/files", json={"upload_ids": [f["upload_id"] for f in files]})
    assert answer.status_code == 200, answer.text
    return tuple(
        InputFile(sample_id=f"smp_{n}", sha256=file["sha256"], extension=file["extension"])
        for n, file in enumerate(files)
    )


def command(inputs: tuple[InputFile, ...], min_seconds: float = 3.0) -> ValidateDataset:
    return ValidateDataset(
        job_id="job_1",
        step=Step.validate,
        experiment="anna",
        dataset="anna",
        inputs=inputs,
        min_seconds=min_seconds,
    )


async def test_a_good_dataset_is_validated_with_its_length_and_warnings(
    bus: Bus, events: Events, running: Service, tmp_path: Path, paths: Paths
) -> None:
    clipped = write_float_wav(tmp_path / "clipped.wav", (tone(2.0, level=1.0) * 3).clip(-1, 1))
    recordings = [make_speech(3.0, "en-us", tmp_path / "a.mp3"), clipped]
    inputs = await asyncio.to_thread(fill, running, "anna", recordings)

    await bus.send_command(command(inputs), Lane.normal)
    event = await events.wait_for("validated")

    assert event.dataset == "anna"
    assert event.recordings == 2
    assert event.seconds == pytest.approx(5.0, abs=0.1)
    assert {w["code"] for w in event.warnings if w["sample_id"] == "smp_1"} >= {"clipping"}
    assert all(w["sha256"] in {i.sha256 for i in inputs} and w["message"] for w in event.warnings)
    manifest = manifests.load(paths, event.manifest)
    assert manifests.verify(paths, manifest) == []
    (name,) = manifest.files
    result = json.loads(paths.in_data(name).read_text())
    assert [r["sha256"] for r in result["recordings"]] == [i.sha256 for i in inputs]
    assert result["seconds"] == event.seconds


async def test_too_little_speech_names_both_numbers(bus: Bus, events: Events, running: Service, tmp_path: Path) -> None:
    inputs = await asyncio.to_thread(fill, running, "anna", [make_tone(2.0, tmp_path / "a.wav")])

    await bus.send_command(command(inputs, min_seconds=30.0), Lane.normal)
    failed = await events.wait_for("step_failed")

    assert failed.problem["code"] == "dataset_too_short"
    assert (failed.problem["seconds"], failed.problem["min_seconds"]) == (2.0, 30.0)
    assert "2.0 s" in failed.problem["detail"]
    assert "30 s" in failed.problem["detail"]


async def test_an_empty_dataset_is_refused(bus: Bus, events: Events, running: Service) -> None:
    await bus.send_command(command(()), Lane.normal)
    failed = await events.wait_for("step_failed")

    assert failed.problem["code"] == "dataset_empty"
    assert failed.problem["suggested_actions"]


async def test_a_speaker_of_several_with_too_little_sound_is_named(
    bus: Bus, events: Events, running: Service, tmp_path: Path
) -> None:
    recordings = [make_tone(2.0, tmp_path / f"{hz}.wav", hz=hz) for hz in (200, 300, 400)]
    inputs = await asyncio.to_thread(fill, running, "anna", recordings)
    spoken = tuple(
        item.model_copy(update={"speaker": speaker}) for item, speaker in zip(inputs, (0, 0, 7), strict=True)
    )

    await bus.send_command(command(spoken), Lane.normal)
    failed = await events.wait_for("step_failed")

    assert failed.problem["code"] == "dataset_too_short"
    assert (failed.problem["field"], failed.problem["speakers"]) == ("speaker_id", [7])
    assert (failed.problem["seconds"], failed.problem["min_seconds"]) == (2.0, 3.0)
    assert "speaker 7 2.0 s" in failed.problem["detail"]


@pytest.mark.parametrize("damage", ["missing", "changed", "unknown"])
async def test_a_recording_that_is_not_as_it_was_sent_is_named(
    bus: Bus, events: Events, running: Service, tmp_path: Path, paths: Paths, damage: str
) -> None:
    recordings = [make_tone(3.0, tmp_path / f"{hz}.wav", hz=hz) for hz in (200, 300)]
    inputs = await asyncio.to_thread(fill, running, "anna", recordings)
    original = paths.uploads("anna").original(inputs[1].sha256, inputs[1].extension)
    if damage == "missing":
        original.unlink()
    elif damage == "changed":
        original.write_bytes(original.read_bytes()[:-1] + b"x")
    else:
        inputs = (inputs[0], InputFile(sample_id="smp_1", sha256="0" * 64, extension="wav"))

    await bus.send_command(command(inputs), Lane.normal)
    failed = await events.wait_for("step_failed")

    assert failed.problem["code"] == "voice_sample_not_found"
    assert failed.problem["samples"] == ["smp_1"]
    assert "smp_1" in failed.problem["detail"]
    assert inputs[1].sha256[:12] in failed.problem["detail"]


async def test_a_lost_report_or_wav_is_made_again(
    bus: Bus, events: Events, running: Service, tmp_path: Path, paths: Paths
) -> None:
    recordings = [make_tone(2.0, tmp_path / f"{hz}.wav", hz=hz) for hz in (200, 300, 400)]
    inputs = await asyncio.to_thread(fill, running, "anna", recordings)
    dataset = paths.uploads("anna")
    dataset.report(inputs[0].sha256).unlink()
    dataset.wav(inputs[1].sha256).unlink()
    dataset.report(inputs[2].sha256).write_text("{half")

    await bus.send_command(command(inputs), Lane.normal)
    event = await events.wait_for("validated")

    assert event.seconds == pytest.approx(6.0, abs=0.01)
    assert all(dataset.wav(i.sha256).is_file() for i in inputs)
    assert all(json.loads(dataset.report(i.sha256).read_text())["duration_seconds"] == 2.0 for i in inputs)


async def test_copies_that_are_missing_are_made_when_a_dataset_is_validated(
    bus: Bus, events: Events, running: Service, tmp_path: Path, settings: CommonSettings
) -> None:
    inputs = await asyncio.to_thread(fill, running, "anna", [make_tone(4.0, tmp_path / "a.wav")])
    storage, bucket = open_storage(settings), settings.voice_samples_bucket
    (key,) = await until(lambda: storage.list(bucket))
    storage.delete(bucket, key)

    await bus.send_command(command(inputs), Lane.normal)
    await events.wait_for("validated")

    assert await until(lambda: storage.list(bucket)) == [key]


async def test_a_killed_ingest_validates_after_its_restart(
    bus: Bus, events: Events, start_ingest: StartIngest, tmp_path: Path
) -> None:
    running = start_ingest(ACK_WAIT="3", LEASE_TTL="2.25")  # the lease of the one that was killed has to run out
    recordings = [make_tone(2.0, tmp_path / f"{hz}.wav", hz=hz) for hz in range(200, 400, 20)]
    inputs = await asyncio.to_thread(fill, running, "anna", recordings)
    await bus.send_command(command(inputs), Lane.normal)
    await events.wait_for("step_started")
    running.kill()

    await asyncio.to_thread(running.start)
    event = await events.wait_for("validated")

    assert event.recordings == 10
    assert [e.fact for e in events.seen].count("validated") == 1


async def test_a_broker_that_comes_late_or_again_is_found(
    start_ingest: StartIngest, nats_server: NatsServer, tmp_path: Path
) -> None:
    nats_server.kill()
    ingest = start_ingest()
    file = await asyncio.to_thread(ingest.stage, make_tone(1.0, tmp_path / "a.wav"))
    assert "upload_id" in file

    nats_server.start()
    await asyncio.to_thread(ingest.wait_until_ready)
    nats_server.restart()
    await asyncio.to_thread(ingest.wait_until_ready)

    assert ingest.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
