"""The first customer's journey through the gateway: MP3 with texts in, a fine-tune, a voice that says a sentence."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from scripts.stack import Stack
from tests.flows.conftest import QUICK, Platform, signed_in
from tests.integration.xtts.conftest import ROOT
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.xtts, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def platform(xtts_python: str, xtts_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A stack whose trainer and inference have XTTS, with a base whose voices end their sentences."""
    base = tmp_path_factory.mktemp("ending") / "base"
    subprocess.run(
        [xtts_python, "-m", "tests.xtts_voice", "base", str(xtts_base), str(base)], cwd=ROOT, check=True, timeout=300
    )
    more = {"XTTS_PYTHON": xtts_python, "XTTS_PATH": str(base), "XTTS_LICENCE_ACCEPTED": "CPML-1.0"}
    more |= {"SPEECH_ATTEMPTS": "10"}
    stack = Stack(tmp_path_factory.mktemp("platform"), environment=QUICK | more, ready_timeout=3 * PATIENCE)
    with stack:
        client = signed_in(stack)
        yield Platform(stack, client)
        client.close()
    assert stack.leftovers() == []


@pytest.fixture
def recordings(voice_corpus: Path, tmp_path: Path) -> tuple[list[Path], str]:
    """MP3 files of LJSpeech, a minute and more, and their `metadata.csv`."""
    made, lines = [], []
    rows = (voice_corpus / "ljspeech/metadata.csv").read_text().splitlines()
    for copy, level in (("a", 1.0), ("b", 0.6)):
        for row in rows:
            name, *_, text = row.split("|")
            wave, rate = soundfile.read(voice_corpus / f"ljspeech/wavs/{name}.flac")
            target = tmp_path / f"{name}{copy}.mp3"
            soundfile.write(target, level * wave, rate, format="MP3")
            made.append(target)
            lines.append(f"{name}{copy}|{text}|{text}\n")
    return made, "".join(lines)


def test_mp3_with_texts_become_a_voice_that_speaks(
    platform: Platform, recordings: tuple[list[Path], str], tmp_path: Path
) -> None:
    files, metadata = recordings
    client = platform.client
    dataset = client.ensure_dataset("Linda")
    assert client.upload(files, dataset.id).rejected == []

    xtts = next(each for each in client.providers() if each["name"] == "xtts")
    written = client.write_transcripts(dataset.id, metadata.encode())
    asked = {"dataset_id": dataset.id, "provider": "xtts", "options": {"language": "en", "total_steps": 4}}
    estimate = platform.api("POST", "/training/estimate", json=asked).json()
    job = client.add_training_job(dataset.id, name="Linda", provider="xtts", language="en", total_steps=4, batch_size=2)
    done = platform.finished(job.id)

    assert (xtts["available"], xtts["missing"]) == (True, [])
    assert (written["changed"], written["without_transcript"], written["by_machine"]) == (len(files), 0, 0)
    assert (estimate["provider"], estimate["problems"]) == ("xtts", [])
    assert done.status == "completed", done.error
    assert (done.preset, done.current_step, done.progress) == ("xtts-v2", 4, 100)
    assert "loss" in done.losses
    voice = platform.api("GET", f"/models/{done.voice}").json()
    assert (voice["status"], voice["base_model"], voice["sample_rate"]) == ("ready", "xtts-v2", 24_000)
    assert voice["card"]["kind"] == "xtts"
    assert len(voice["card"]["lineage"]["recordings"]) == len(files)
    archive = zipfile.ZipFile(io.BytesIO(platform.api("GET", f"/models/{done.voice}/export").content))
    held = {Path(name).name for name in archive.namelist()}
    assert {"linda.pth", "config.json", "vocab.json", "speaker.safetensors", "voice.json", "reference-1.wav"} <= held
    sound = tmp_path / "said.wav"
    said = client.synthesize("Hello there.", "Linda", sound)
    assert (said.voice_version, said.media_type) == (job.id, "audio/wav")
    assert 0.2 < soundfile.info(sound).duration < 4.0
    facts = client.inspect_voice("Linda")
    assert (facts.network, facts.version, facts.sample_rate, facts.precision) == ("xtts", "xtts-v2", 24_000, "fp32")
    assert facts.parameters > 20_000_000
    assert (facts.training, facts.language, facts.licence) == ("epoch 1, step 4", "en", "CPML-1.0")
    tried = client.verify_voice("Linda")
    assert (tried.valid, tried.usable, tried.problems) == (True, True, [])
    assert tried.peak
    refused = platform.api("POST", "/models/merge", json={"first": "linda", "second": "linda", "name": "Both"})
    assert refused.status_code == 422
    assert "speaks text" in refused.json()["detail"]
    metrics = platform.api("GET", f"/training/jobs/{job.id}/metrics").json()
    assert json.dumps(metrics).count('"loss"') >= 4
