"""Do folders become sounds, and does a file become live speech, from a terminal?"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from libs.client.terminal import Exit
from tests.integration.conversions.conftest import Person, Studio

pytestmark = pytest.mark.timeout(300)


async def _voicewright(studio: Studio, person: Person, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "VOICEWRIGHT_URL": studio.running["gateway"].url,
        "VOICEWRIGHT_TOKEN": person.token,
        "NO_COLOR": "1",
    }
    command = [sys.executable, "-c", "from libs.client.cli import main; main()", *words]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        cwd=Path(__file__).parents[3],
    )


async def test_a_folder_is_converted_as_one_job_and_bad_files_are_named(
    studio: Studio, recordings: Callable[..., Path], tmp_path: Path
) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    folder = recordings("a.wav").parent
    recordings("b.mp3", seed=1)
    (folder / "c.mp3").write_text("words\n" * 100)

    result = await _voicewright(
        studio,
        anna,
        *("convert", "--job", str(folder), "--voice", "anna", "-o", str(tmp_path / "out")),
        *("--format", "flac", "--f0-method", "praat"),
    )

    assert result.returncode == Exit.partly, result.stdout + result.stderr
    there = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert there == ["a.flac", "b.flac"], result.stdout + result.stderr
    assert soundfile.info(tmp_path / "out" / "a.flac").frames > 0
    assert "c.mp3: " in result.stderr
    assert "2 of 3 recordings" in result.stdout


async def test_a_file_is_streamed_live_and_what_comes_back_is_kept(
    studio: Studio, recordings: Callable[..., Path], tmp_path: Path
) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    spoken_at, _ = soundfile.read(recordings("speech.wav", 2.0))
    source = tmp_path / "speech.wav"
    soundfile.write(source, spoken_at, 16_000, subtype="PCM_16")  # slower speech: live rates are multiples of 100

    result = await _voicewright(
        studio,
        anna,
        *("live", "--voice", "anna", "--input", str(source), "-o", str(tmp_path / "live.wav")),
        *("--f0-method", "praat", "--block", "0.2", "--pitch-shift", "3", "--crossfade", "0.08", "--past", "1.5"),
        *("--rms-mix-rate", "0.5", "--index-rate", "0.1", "--threshold-db", "-55", "--speaker-id", "0"),
    )
    refused = await _voicewright(studio, anna, "live", "--voice", "nobody", "--input", str(source))

    assert result.returncode == 0, result.stdout + result.stderr
    spoken, heard = soundfile.info(source).duration, soundfile.info(tmp_path / "live.wav").duration
    assert spoken <= heard < spoken + 0.21
    assert "290 ms of latency" in result.stdout
    assert "0 dropped" in result.stdout
    assert refused.returncode == Exit.refused
    assert "nobody" in refused.stderr
