"""Where XTTS is tried for real: an interpreter that has coqui-tts, and a base model in its true format, very small.

`scripts/install-xtts` makes the interpreter; XTTS_PYTHON names another. Without one all tests here are skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from libs.audio.decode import decode
from libs.audio.encode import write_wav
from libs.audio.resample import resample
from libs.common.settings import CommonSettings
from libs.voice.xtts.speech import Clip, look
from libs.voice.xtts.vocabulary import read_vocabulary
from tests.conftest import NatsServer
from tests.integration.voice_services.platform import Platform, platform

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def xtts_python() -> str:
    """An interpreter with coqui-tts."""
    named = os.environ.get("XTTS_PYTHON") or str(ROOT / ".venv-xtts/bin/python")
    program = "from libs.voice.xtts.base import missing_packages; print(missing_packages())"
    if not Path(named).exists():
        pytest.skip("coqui-tts is not here: run scripts/install-xtts, or set XTTS_PYTHON")
    said = subprocess.run([named, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    if said.stdout.strip() != "[]":
        pytest.skip(f"the interpreter of XTTS_PYTHON lacks {said.stdout.strip() or said.stderr[-200:]}")
    return named


@pytest.fixture(scope="session")
def xtts_base(xtts_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The five files of XTTS_PATH, random and small."""
    folder = tmp_path_factory.mktemp("xtts") / "base"
    subprocess.run([xtts_python, "-m", "tests.xtts_tiny", str(folder)], cwd=ROOT, check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def spoken(xtts_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Clip, str]]]:
    """A folder of WAV files as ingest leaves them, and the clips with their texts; read from LJSpeech."""
    corpus = os.environ.get("VOICE_CORPUS")
    if not corpus or not (Path(corpus) / "ljspeech").is_dir():
        pytest.skip("VOICE_CORPUS does not name a folder with ljspeech")
    wavs = tmp_path_factory.mktemp("spoken")
    lines = (Path(corpus) / "ljspeech/metadata.csv").read_text().splitlines()
    clips = []
    for number, line in enumerate(lines * 2):  # the second time softer, so that a minute of speech comes together
        name, *_, text = line.split("|")
        sound = decode(Path(corpus) / f"ljspeech/wavs/{name}.flac")
        wave = resample(sound.wave, sound.sample_rate, 22_050) * (1.0 if number < len(lines) else 0.5)
        sha256 = f"{number:064x}"
        write_wav(wavs / f"{sha256}.wav", wave, 22_050)
        clips.append(Clip(f"smp_{number}", sha256, name, text, len(wave) / 22_050))
    looked = look(clips, "en", read_vocabulary(xtts_base / "vocab.json"))
    assert not looked.refused, looked.refused
    return wavs, looked.usable


@pytest.fixture
async def here(
    nats_server: NatsServer, make_settings: Callable[..., CommonSettings], tmp_path: Path
) -> AsyncIterator[Platform]:
    async with platform(make_settings(nats_url=nats_server.url), nats_server, tmp_path / "said") as made:
        yield made
