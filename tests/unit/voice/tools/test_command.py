"""What does `python -m libs.voice.tools` answer to people, and to scripts?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from libs.voice.artefact import read_voice
from libs.voice.tools.__main__ import app
from tests.integration.voice_services import foreign
from tests.integration.voice_services.parts import write_random_index, write_untrained


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    write_untrained(tmp_path / "anna.pth")
    write_random_index(tmp_path / "anna.index")
    return tmp_path / "anna.pth"


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_a_voice_is_looked_into_and_tried(voice: Path) -> None:
    facts = json.loads(run("inspect", voice))
    heard = json.loads(run("verify", voice, "--index", voice.with_suffix(".index")))

    assert (facts["network"], facts["version"], facts["sample_rate"]) == ("rvc", "v2", 16_000)
    assert heard["index_rows"] == 400
    assert heard["peak"] > 0


def test_voices_are_converted_merged_packed_and_unpacked(voice: Path, tmp_path: Path) -> None:
    write_untrained(tmp_path / "ben.pth", seed=1)

    run("convert", voice, "--form", "safetensors", "-o", tmp_path / "anna.safetensors")
    run("merge", voice, tmp_path / "ben.pth", "--share", 1, "-o", tmp_path / "both.pth")
    run("pack", voice, "--form", "rvc", "--index", voice.with_suffix(".index"), "-o", tmp_path / "anna.zip")
    held = json.loads(run("unpack", tmp_path / "anna.zip", "--into", tmp_path / "out"))

    given = read_voice(voice).weights
    for path in (tmp_path / "anna.safetensors", tmp_path / "both.pth", Path(held["model"])):
        taken = read_voice(path).weights
        assert all(torch.equal(taken[name], value) for name, value in given.items()), path
    assert Path(held["index"]).is_file()


def test_a_voice_is_extracted_from_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = foreign.training_checkpoint(tmp_path / "G_7.pth")

    said = json.loads(run("extract", checkpoint, "-o", tmp_path / "voice.pth"))

    assert Path(said["voice"]) == tmp_path / "voice.pth"
    assert json.loads(run("inspect", said["voice"]))["kind"] == "voice"


def test_a_refusal_is_one_sentence_and_runs_nothing(tmp_path: Path) -> None:
    hostile = foreign.hostile_voice(tmp_path / "hostile.pth", tmp_path / "ran")

    said = run("inspect", hostile, code=1)

    assert said.startswith("This model file is refused: hostile.pth")
    assert not (tmp_path / "ran").exists()
