"""Does a voice that speaks come out of containers, as docs/xtts.md says? Needs a Docker engine, and coqui-tts here.

The base model is the small one of tests/xtts_tiny.py, in its true format. With nothing in the builder's cache the image
takes many minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from libs.client.api import Client
from scripts.containers import has_engine, wait_for
from scripts.secret_file import read_secrets
from tests.deploy.engine import running
from tests.deploy.files import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.xtts, pytest.mark.timeout(3600)]


def base_model(folder: Path) -> Path:
    """What scripts/fetch-assets brings, random and small, of a voice that ends its sentences."""
    python = os.environ.get("XTTS_PYTHON") or str(PROJECT / ".venv-xtts/bin/python")
    if not Path(python).exists():
        pytest.skip("coqui-tts is not here: run scripts/install-xtts, or set XTTS_PYTHON")
    small, ending = folder / "small", folder / "ending"
    for words in (["tests.xtts_tiny", small], ["tests.xtts_voice", "base", small, ending]):
        subprocess.run([python, "-m", *map(str, words)], cwd=PROJECT, check=True, timeout=600)
    return ending


def of_the_document(target: Path) -> Path:
    """The compose file of docs/xtts.md, for the images that tests build."""
    text = (PROJECT / "docs" / "xtts.md").read_text(encoding="utf-8").split("### In containers\n")[1]
    [content] = re.findall(r"```yaml\n(.*?)```", text.split("\n## ")[0], re.S)
    assert "voicewright-voice:0.1.0-xtts" in content
    # Random weights often need another try to end a sentence.
    content = content.replace("voicewright-voice:0.1.0-xtts", "voicewright-voice:test-xtts")
    target.write_text(content.replace("CPML-1.0\n", 'CPML-1.0\n      SPEECH_ATTEMPTS: "10"\n'))
    return target


def test_clips_with_texts_become_a_voice_that_speaks_in_containers(voice_corpus: Path, tmp_path: Path) -> None:
    if not has_engine():
        pytest.skip("no Docker engine answers here")
    base, (run, clips) = base_model(tmp_path), (tmp_path / "run", tmp_path / "clips")
    run.mkdir()
    clips.mkdir()
    files, lines = [], []
    for row in (voice_corpus / "ljspeech/metadata.csv").read_text(encoding="utf-8").splitlines():
        name, *_, text = row.split("|")
        wave, rate = soundfile.read(voice_corpus / f"ljspeech/wavs/{name}.flac")
        for copy, level in (("a", 1.0), ("b", 0.6)):
            files.append(clips / f"{name}{copy}.wav")
            soundfile.write(files[-1], level * wave, rate)
            lines.append(f"{name}{copy}|{text}|{text}\n")

    options = ("--with", str(of_the_document(tmp_path / "xtts.yaml")))
    with running(run, "voicewright-xtts", options=options) as stack:
        shutil.copytree(base, run / "assets" / "xtts_v2")
        (run / "assets" / "xtts_v2").chmod(0o755)
        secrets = read_secrets(stack.env_file)
        client = Client(f"http://127.0.0.1:{stack.port}")
        client.login(secrets["ADMIN_EMAIL"], secrets["ADMIN_PASSWORD"])

        def missing() -> list[str]:
            return list(next(each for each in client.providers() if each["name"] == "xtts")["missing"])

        wait_for(lambda: missing() == [], 120, "xtts lacks something")
        dataset = client.ensure_dataset("Linda")
        assert client.upload(files, dataset.id).rejected == []
        client.write_transcripts(dataset.id, "".join(lines).encode())
        job = client.add_training_job(
            dataset.id, name="Linda", provider="xtts", language="en", total_steps=4, batch_size=2
        )
        wait_for(lambda: client.job(job.id).is_over, 1800, "the training is not over")
        done = client.job(job.id)
        sound = tmp_path / "said.wav"
        said = client.synthesize("Hello there.", "Linda", sound) if done.status == "completed" else None
        client.close()

    assert done.status == "completed", done.error
    assert said is not None
    assert said.voice_version == job.id
    assert 0.2 < soundfile.info(sound).duration < 4.0
