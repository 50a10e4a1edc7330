"""The main job, end to end: recordings go in, a voice comes out, and it speaks."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import soundfile

from libs.client.models import Job
from libs.common.manifests import sha256_of
from tests.factories_audio import make_speech
from tests.flows.conftest import Platform

LAYOUT = ("0_gt_wavs", "1_16k_wavs", "2a_f0", "2b_f0nsf", "3_feature768")


def trained(platform: Platform, recordings: list[Path], name: str, **options: object) -> Job:
    dataset = platform.client.ensure_dataset(name)
    upload = platform.client.upload(recordings, dataset.id)
    assert upload.rejected == []
    job = platform.client.add_training_job(dataset.id, name=name, **options)  # type: ignore[arg-type]
    return platform.finished(job.id)


def test_recordings_become_a_voice_that_converts(platform: Platform, recordings: list[Path], tmp_path: Path) -> None:
    job = trained(platform, recordings, "Anna", preset="lite", total_steps=25)
    assert job.status == "completed", job.error
    source = make_speech(3.0, "en-us+m3", tmp_path / "source.mp3", seed=4)

    conversion = platform.client.convert(source, "Anna", tmp_path / "converted.wav", pitch_shift=2)

    wave, rate = soundfile.read(tmp_path / "converted.wav")
    assert rate >= 16000
    assert abs(len(wave) / rate - 3.0) < 0.2
    assert np.isfinite(wave).all()
    assert np.sqrt(np.mean(wave**2)) > 0.003
    assert conversion.voice_version == job.id


def test_the_training_folders_are_those_of_rvc(platform: Platform) -> None:
    folder = platform.stack.root / "data" / "anna"

    counts = {name: len(list((folder / name).glob("[0-9]*"))) for name in LAYOUT}

    assert len(set(counts.values())) == 1
    assert counts["0_gt_wavs"] >= 6
    lines = (folder / "filelist.txt").read_text().splitlines()
    assert len(lines) == counts["0_gt_wavs"] + 2
    assert all(Path(field).is_file() for line in lines for field in line.split("|")[:-1])
    assert (folder / "train.log").is_file()
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def test_a_published_voice_is_whole_and_has_a_copy_in_the_object_store(platform: Platform) -> None:
    voice = platform.stack.root / "models" / "anna"
    card = json.loads((voice / "voice.json").read_text())

    version = voice / "versions" / card["version"]

    assert sha256_of(version / "anna.pth") == card["weights"]["sha256"]
    assert sha256_of(version / "anna.index") == card["index"]["sha256"]
    assert [(file["file"], file["sha256"]) for file in card["files"]] == [
        ("anna.safetensors", sha256_of(version / "anna.safetensors"))
    ]
    assert (voice / "anna.pth").resolve() == (version / "anna.pth").resolve()
    assert card["content_encoder"]["checksum"]
    assert card["training"]["bases"]["generator"]["file"] == "voicewright-lite.safetensors"
    assert card["lineage"]["recordings"]
    stored = platform.stack.root / "objects" / "voice-models" / "anna" / card["version"]
    assert sorted(p.name for p in stored.iterdir()) == ["anna.index", "anna.pth", "anna.safetensors", "voice.json"]
    assert sha256_of(stored / "anna.pth") == card["weights"]["sha256"]


def test_a_voice_is_exported_as_one_archive(platform: Platform) -> None:
    answer = platform.api("GET", "/models/anna/export?format=zip")

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = {Path(name).name for name in archive.namelist()}
        assert names == {"anna.pth", "anna.index", "voice.json"}
        assert archive.testzip() is None


def test_the_same_recordings_are_not_prepared_twice(platform: Platform, recordings: list[Path]) -> None:
    before = (platform.stack.root / "data" / "anna" / "0_gt_wavs").resolve()

    job = trained(platform, recordings, "Anna", preset="lite", total_steps=10, seed=7)

    assert job.status == "completed", job.error
    assert (platform.stack.root / "data" / "anna" / "0_gt_wavs").resolve() == before
    card = json.loads((platform.stack.root / "models" / "anna" / "voice.json").read_text())
    assert card["version"] == job.id


def test_the_feed_of_a_job_tells_it_whole_and_in_order(platform: Platform, recordings: list[Path]) -> None:
    dataset = platform.client.ensure_dataset("Feed")
    platform.client.upload(recordings, dataset.id)
    job = platform.client.add_training_job(dataset.id, preset="rvc-tiny", total_steps=20)

    events = list(platform.client.follow(job))

    ids = [event.id for event in events if event.id is not None]
    assert ids == sorted(ids)
    assert events[0].kind == "snapshot"
    phases = [p for e in events if e.kind == "progress" and (p := e.data.get("step"))]
    order = list(dict.fromkeys(phases))
    assert order.index("train") > order.index("preprocess")
    assert events[-1].kind == "state"
    assert events[-1].data["state"] == "completed"


def test_a_preprocess_job_prepares_and_no_more(platform: Platform, recordings: list[Path]) -> None:
    dataset = platform.client.ensure_dataset("Prepared only")
    platform.client.upload(recordings[:2], dataset.id)

    job = platform.finished(platform.client.add_preprocess_job(dataset.id).id)

    assert job.status == "completed", job.error
    assert (platform.stack.root / "data" / "prepared-only" / "filelist.txt").is_file()
    artifacts = platform.api("GET", f"/datasets/{dataset.id}/artifacts")
    assert artifacts.status_code == 200
    assert not (platform.stack.root / "models" / "prepared-only").exists()
