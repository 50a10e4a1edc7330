"""From clips with texts to a published voice that speaks, through a real trainer."""

from __future__ import annotations

import json
import shutil
import subprocess
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from libs.audio.decode import decode
from libs.audio.encode import write_wav
from libs.common.events import CheckSpeech, ManifestRef, PublishVoice, SpokenClip, TrainingOptions, TrainVoice
from libs.common.jobs import Step
from libs.common.manifests import sha256_of
from libs.voice.safe_load import load_tensors
from libs.voice.xtts.speech import Clip, written
from libs.voice.xtts.vocabulary import read_vocabulary
from tests.integration.voice_services.platform import Platform
from tests.integration.xtts.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xtts, pytest.mark.timeout(400)]
Spoken = tuple[Path, list[tuple[Clip, str]]]
OPTIONS = TrainingOptions(preset="xtts-v2", language="en", total_steps=3, batch_size=2)


def place(here: Platform, spoken: Spoken, **texts: str) -> tuple[SpokenClip, ...]:
    """The clips where ingest leaves them; `texts` are other transcripts, by sample."""
    wavs, clips = spoken
    uploads = here.paths.uploads("anna")
    uploads.wavs.mkdir(parents=True, exist_ok=True)
    made = []
    for clip, _ in clips:
        shutil.copyfile(wavs / f"{clip.sha256}.wav", uploads.wav(clip.sha256))
        text = texts.get(clip.sample_id, clip.transcript)
        made.append(
            SpokenClip(sample_id=clip.sample_id, sha256=clip.sha256, extension="flac", name=clip.name, transcript=text)
        )
    return tuple(made)


def check(job: str, clips: tuple[SpokenClip, ...], **changed: Any) -> CheckSpeech:
    options = OPTIONS.model_copy(update=changed)
    return CheckSpeech(
        job_id=job, step=Step.preprocess, experiment="anna", dataset="anna", clips=clips, options=options
    )


def train(job: str, prepared: ManifestRef) -> TrainVoice:
    return TrainVoice(job_id=job, step=Step.train, experiment="anna", voice="anna", prepared=prepared, options=OPTIONS)


def publish(job: str, prepared: ManifestRef, trained: ManifestRef) -> PublishVoice:
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
        preset="xtts-v2",
    )


async def test_clips_and_texts_become_a_published_voice_that_makes_a_sound(
    here: Platform, xtts_python: str, xtts_base: Path, spoken: Spoken
) -> None:
    await here.started("trainer", XTTS_PYTHON=xtts_python, XTTS_PATH=xtts_base, XTTS_LICENCE_ACCEPTED="CPML-1.0")
    clips = place(here, spoken, smp_1="", smp_2="I love 愛.")

    checked = await here.send(check("job_1", clips), "checked")
    trained = await here.send(train("job_1", checked.manifest), "trained", seconds=300)
    published = await here.send(publish("job_1", checked.manifest, trained.manifest), "published", seconds=300)

    run = here.paths.in_data(here.manifest(trained).folder)
    assert {path.name for path in run.iterdir()} >= {"result.json", "metrics.jsonl", "train.log", "voice.pth"}
    assert not [path for path in run.iterdir() if path.name.startswith(("checkpoints", "best-", "run.json"))]
    version = here.paths.voice("anna").version("job_1")
    card = json.loads(here.paths.voice("anna").card.read_text())
    assert (checked.clips, checked.refused, checked.language) == (14, 2, "en")
    assert trained.steps == 3
    assert (card["kind"], card["preset"], card["version"]) == ("xtts", "xtts-v2", "job_1")
    assert card["licence"] == {
        "name": "CPML-1.0",
        "accepted": True,
        "by": "XTTS_LICENCE_ACCEPTED",
        "use": "non-commercial",
    }
    assert [refusal["code"] for refusal in card["training"]["refused"]] == ["no_transcript", "pace"]
    assert card["weights"]["sha256"] == sha256_of(version.weights) == published.weights_sha256
    assert {facts["file"] for facts in card["files"]} >= {"config.json", "vocab.json", "speaker.safetensors"}
    assert all(facts["sha256"] == sha256_of(version.file(facts["file"])) for facts in card["files"])
    state = load_tensors(version.weights)["model"]
    assert not any(name.startswith("xtts.") for name in state)
    assert "/" not in version.file("config.json").read_text()
    with safe_open(version.file("speaker.safetensors"), "np") as speaker:
        assert speaker.get_slice("gpt_cond_latent").get_shape() == [1, 32, 64]
        assert speaker.get_slice("speaker_embedding").get_shape() == [1, 512, 1]
    with wave.open(str(version.file("reference-1.wav"))) as reference:
        assert (reference.getframerate(), reference.getnchannels()) == (24_000, 1)


async def test_a_dataset_of_bad_clips_is_refused_with_the_reason_for_each(
    here: Platform, xtts_python: str, xtts_base: Path, spoken: Spoken
) -> None:
    await here.started("trainer", XTTS_PYTHON=xtts_python, XTTS_PATH=xtts_base, XTTS_LICENCE_ACCEPTED="CPML-1.0")
    bad = {clip.sample_id: "Hm." for clip, _ in spoken[1]}
    few = {clip.sample_id: "" for clip, _ in spoken[1][:9]}

    none = await here.send(check("job_1", place(here, spoken, **bad)), "step_failed")
    short = await here.send(check("job_2", place(here, spoken, **few)), "step_failed")
    language = await here.send(check("job_3", place(here, spoken), language="it"), "step_failed")

    assert none.problem["code"] == "dataset_empty"
    assert {refusal["code"] for refusal in none.problem["refused"]} == {"pace"}
    assert len(none.problem["refused"]) == 16
    assert short.problem["code"] == "dataset_too_short"
    assert "LJ001-0001: it has no transcript" in short.problem["detail"]
    assert language.problem["field"] == "options.language"
    assert "en" in language.problem["detail"]


async def test_one_clip_of_a_hundred_that_cannot_be_read_is_named_and_the_others_are_learnt_from(
    here: Platform, xtts_python: str, xtts_base: Path, spoken: Spoken
) -> None:
    await here.started("trainer", XTTS_PYTHON=xtts_python, XTTS_PATH=xtts_base, XTTS_LICENCE_ACCEPTED="CPML-1.0")
    wavs, given = spoken
    uploads = here.paths.uploads("anna")
    uploads.wavs.mkdir(parents=True)
    clips = []
    for number in range(100):
        clip, _ = given[number % len(given)]
        sha256 = f"{number:064x}"
        uploads.wav(sha256).hardlink_to(wavs / f"{clip.sha256}.wav")
        clips.append(
            SpokenClip(
                sample_id=f"smp_{number}",
                sha256=sha256,
                extension="flac",
                name=f"{number}.flac",
                transcript=clip.transcript,
            )
        )
    uploads.wav(clips[41].sha256).unlink()
    uploads.wav(clips[41].sha256).write_bytes(b"RIFF and no more")

    checked = await here.send(check("job_1", tuple(clips), total_steps=1), "checked")
    trained = await here.send(train("job_1", checked.manifest), "trained", seconds=300)

    assert (checked.clips, checked.refused) == (99, 1)
    refused = here.manifest(checked).data["refused"]
    assert [(each["sample_id"], each["name"], each["code"]) for each in refused] == [
        ("smp_41", "41.flac", "unreadable")
    ]
    result = here.manifest(trained).data["result"]
    assert sum(result["clips"].values()) == 99
    assert result["refused"] == []


async def test_a_recording_that_is_too_long_is_cut_at_its_pauses_and_learnt_from_where_an_aligner_knows_the_language(
    here: Platform, xtts_python: str, xtts_base: Path, spoken: Spoken
) -> None:
    await here.started("trainer", XTTS_PYTHON=xtts_python, XTTS_PATH=xtts_base, XTTS_LICENCE_ACCEPTED="CPML-1.0")
    wavs, clips = spoken
    waves = [decode(wavs / f"{clip.sha256}.wav").wave for clip, _ in clips[:8]]
    pause = np.zeros(22_050 // 3, np.float32)
    whole = np.concatenate([part for wave in waves for part in (wave, pause)][:-1])
    told = " ".join(clip.transcript for clip, _ in clips[:8])
    uploads = here.paths.uploads("anna")
    uploads.wavs.mkdir(parents=True)
    made = []
    for number, (level, text) in enumerate(((1.0, told), (0.6, told), (0.5, told.replace("fourteen", "14")))):
        sha256 = f"{number:064x}"
        write_wav(uploads.wav(sha256), level * whole, 22_050)
        made.append(
            SpokenClip(sample_id=f"smp_{number}", sha256=sha256, extension="flac", name=f"{number}", transcript=text)
        )

    checked = await here.send(check("job_1", tuple(made)), "checked")
    trained = await here.send(train("job_1", checked.manifest), "trained", seconds=300)
    german = await here.send(check("job_2", tuple(made), language="de"), "step_failed")

    data = here.manifest(checked).data
    content = json.loads(here.paths.in_data(f"{here.manifest(checked).folder}/checked.json").read_text())
    assert (checked.clips, checked.refused) == (data["parts"], 1)
    assert all(clip["part"] and 1 <= clip["seconds"] <= 11 for clip in content["clips"])
    assert " ".join(clip["text"] for clip in content["clips"] if clip["sample_id"] == "smp_0") == written(told)
    assert "'14' in its transcript is not written as it is said" in data["refused"][0]["reason"]
    assert sum(here.manifest(trained).data["result"]["clips"].values()) == checked.clips
    assert all("cut it at a pause" in each["reason"] for each in german.problem["refused"])
    assert "only recordings in en are cut here" in german.problem["refused"][0]["reason"]


def test_our_tokens_and_our_loss_are_the_librarys(xtts_python: str, xtts_base: Path, spoken: Spoken) -> None:
    wavs, clips = spoken
    job = {
        "base": str(xtts_base),
        "clips": [{"wav": str(wavs / f"{clip.sha256}.wav"), "text": text} for clip, text in clips[:3]],
    }

    said = subprocess.run(
        [xtts_python, "-m", "tests.integration.xtts.library_beside"],
        input=json.dumps(job),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert said.returncode == 0, said.stderr[-3000:]
    found = json.loads(said.stdout.splitlines()[-1])
    vocabulary = read_vocabulary(xtts_base / "vocab.json")
    assert found["tokens"] == [vocabulary.count(text) - 1 for _, text in clips[:3]]  # without the end
    assert found["ours"] == pytest.approx(found["theirs"], rel=1e-6)
