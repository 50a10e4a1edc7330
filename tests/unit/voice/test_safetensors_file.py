"""Our safetensors are what every other program calls safetensors, and the same voice has the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.artefact import load_synthesizer, read_voice, write_voice
from libs.voice.safetensors_file import SafetensorsVoice, read_safetensors, write_safetensors
from tests.unit.voice.voice_files import exported, lite_voice, rvc_voice, tiny_network

ENCODER = {"name": "hubert", "checksum": "ab" * 32, "width": 768}


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    voice = read_voice(rvc_voice(tmp_path / "a.pth"))
    write_voice(tmp_path / "a.safetensors", voice.weights, {"kind": "rvc", **voice.config}, content_encoder=ENCODER)
    return tmp_path / "a.safetensors"


def test_the_formats_own_library_reads_our_file(ours: Path, tmp_path: Path) -> None:
    weights = read_voice(tmp_path / "a.pth").weights

    with safe_open(ours, framework="pt") as file:
        about = file.metadata()
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # it is no dict

    assert held.keys() == weights.keys()
    assert all(torch.equal(held[name], weights[name]) for name in weights)
    assert (about["format"], about["format_version"], about["kind"]) == ("voicewright-voice", "1", "rvc")
    assert about["sample_rate"] == "16000"
    assert json.loads(about["config"])["info"] == "20epoch"
    assert json.loads(about["content_encoder"]) == ENCODER


def test_a_file_that_the_formats_own_library_wrote_is_read(ours: Path, tmp_path: Path) -> None:
    with safe_open(ours, framework="pt") as file:
        save_file(
            {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118 # it is no dict
            tmp_path / "theirs.safetensors",
            metadata=file.metadata(),
        )

    a, b = read_voice(ours), read_voice(tmp_path / "theirs.safetensors")
    assert list(a.weights) == list(b.weights)
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
    assert (a.config, a.content_encoder) == (b.config, b.content_encoder)


def test_a_voice_comes_back_with_its_order_its_keys_and_its_encoder(ours: Path, tmp_path: Path) -> None:
    before, after = read_voice(tmp_path / "a.pth"), read_voice(ours)

    assert list(after.weights) == list(before.weights)
    assert after.config == before.config
    assert (before.content_encoder, after.content_encoder) == (None, ENCODER)
    assert load_synthesizer(ours).content_width == 768


def test_lite_voices_and_every_precision_come_back(tmp_path: Path) -> None:
    lite = read_voice(lite_voice(tmp_path / "l.pth"))
    write_voice(tmp_path / "l.safetensors", lite.weights, {"kind": "lite", **lite.config})
    assert all(torch.equal(read_voice(tmp_path / "l.safetensors").weights[k], v) for k, v in lite.weights.items())
    assert load_synthesizer(tmp_path / "l.safetensors").sample_rate == 24_000

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        weights = {**exported(tiny_network(), dtype), "empty": torch.zeros(0, 3, dtype=dtype)}
        voice = SafetensorsVoice("rvc", weights, {"version": "v2"}, None)
        write_safetensors(tmp_path / "p.safetensors", voice, sample_rate=16_000)
        held = read_safetensors(tmp_path / "p.safetensors").weights
        assert all(torch.equal(held[k], v) and held[k].dtype == dtype for k, v in weights.items())


def test_the_same_voice_has_the_same_bytes_in_another_process(ours: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from libs.voice.artefact import read_voice, write_voice; "
        "v = read_voice(pathlib.Path(sys.argv[1])); "
        "write_voice(pathlib.Path(sys.argv[2]), v.weights, {'kind': v.kind, **v.config}, "
        "content_encoder=v.content_encoder)"
    )

    again = tmp_path / "again.safetensors"
    subprocess.run([sys.executable, "-c", program, str(ours), str(again)], check=True, capture_output=True)

    assert again.read_bytes() == ours.read_bytes()


def test_numbers_that_are_no_weights_are_not_written(tmp_path: Path) -> None:
    for voice in (
        SafetensorsVoice("rvc", {"a": torch.ones(1, dtype=torch.int64)}, {}, None),
        SafetensorsVoice("rvc", {"a": torch.ones(1)}, {"x": float("nan")}, None),
    ):
        with pytest.raises(ValueError, match=r"weights are|JSON"):
            write_safetensors(tmp_path / "x.safetensors", voice, sample_rate=16_000)

    assert list(tmp_path.iterdir()) == []


def test_a_file_over_the_limit_and_a_missing_file_are_told(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileRefused, match="the limit is 100"):
        read_safetensors(ours, max_bytes=100)
    with pytest.raises(NotFound):
        read_safetensors(tmp_path / "none.safetensors")
