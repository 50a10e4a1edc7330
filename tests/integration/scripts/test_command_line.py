"""Can a person make a voice from a terminal? The real command against the whole platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import speech
from scripts.stack import Stack


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_person_makes_a_voice_from_a_terminal(tmp_path: Path):
    with Stack(tmp_path / "stack", environment={"TRAINING_CONCURRENCY": "1"}) as stack:
        recordings = tmp_path / "recordings"
        recordings.mkdir()
        for number, text in enumerate(speech.sentences(3, 10)):
            speech.speak(text, speech.TARGET_VOICE, recordings / f"{number}.wav")
        (recordings / "notes.mp3").write_text("this is no sound")
        speech.speak(speech.sentences(4, 1)[0], speech.SOURCE_VOICE, tmp_path / "in.wav")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "VOICEWRIGHT_EMAIL": stack.secrets["ADMIN_EMAIL"],
            "VOICEWRIGHT_PASSWORD": stack.secrets["ADMIN_PASSWORD"],
            "COLUMNS": "200",
        }

        def voicewright(*arguments: str, expect: int = 0) -> str:
            command = [sys.executable, "-c", "from libs.client.cli import main; main()", *arguments]
            result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
            assert result.returncode == expect, f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
            return " ".join((result.stdout + result.stderr).split())

        assert "Signed in" in voicewright("login", "--url", stack.url("gateway"))
        assert "ben@example.com" in voicewright(
            "users", "add", "ben@example.com", "--password", "a long pass phrase", "--role", "viewer"
        )
        said = voicewright("upload", str(recordings), "--dataset", "Anna, warm", expect=7)
        assert "notes.mp3:" in said
        assert "10 of 11 files are in dataset anna-warm" in said
        assert "10 recordings" in voicewright("upload", str(recordings), "--dataset", "Anna, warm", expect=7)

        said = voicewright("train", "--dataset", "Anna, warm", "--preset", "lite", "--minutes", "0.1", "--follow")
        assert "loss" in said
        assert "completed in" in said
        job = json.loads(voicewright("jobs", "list", "--json"))[0]
        assert job["status"] == "completed"
        assert "completed" in voicewright("jobs", "show", job["id"])
        assert "train finished" in voicewright("jobs", "logs", job["id"])

        assert job["voice"] in voicewright("voices", "list")
        said = voicewright(
            "convert", str(tmp_path / "in.wav"), "--voice", job["voice"], "-o", str(tmp_path / "out.flac")
        )
        assert "× real time" in said
        assert (tmp_path / "out.flac").read_bytes()[:4] == b"fLaC"
        voicewright("voices", "export", job["voice"], "-o", str(tmp_path / "voice.zip"))
        assert (tmp_path / "voice.zip").read_bytes()[:2] == b"PK"

        said = voicewright("convert", str(recordings / "notes.mp3"), "--voice", job["voice"], "-o", "out.wav", expect=1)
        assert "(request req_" in said
        voicewright("voices", "delete", job["voice"], "--yes")
        assert job["voice"] not in voicewright("voices", "list")
    assert stack.leftovers() == []
