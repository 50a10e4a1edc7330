"""A voice is verified by letting it speak."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.tools import convert_file, verify_voice
from tests.unit.voice.rvc_fixtures import FIXTURES, needs_fixtures
from tests.unit.voice.voice_files import (
    applio_voice,
    discriminator,
    exported,
    index_file,
    lite_voice,
    rewritten,
    rvc_voice,
    tiny_network,
    training_file,
)


@pytest.mark.parametrize("make", [rvc_voice, applio_voice, lite_voice])
def test_a_sound_voice_speaks(tmp_path: Path, make: object) -> None:
    verified = verify_voice(make(tmp_path / "a.pth"))  # type: ignore[operator]

    assert 0.9 < verified.seconds <= 1.0
    assert 0 < verified.peak <= 1
    assert verified.index_rows is None


def test_our_safetensors_speak(tmp_path: Path) -> None:
    convert_file(rvc_voice(tmp_path / "a.pth"), tmp_path / "a.safetensors", "safetensors")

    assert verify_voice(tmp_path / "a.safetensors").info.kind == "safetensors"


def test_a_voice_speaks_with_its_index(tmp_path: Path) -> None:
    verified = verify_voice(rvc_voice(tmp_path / "a.pth"), index_file(tmp_path / "a.index", rows=60))

    assert verified.index_rows == 60


def test_an_index_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    voice = rvc_voice(tmp_path / "a.pth")
    broken = np.full((60, 768), np.nan, dtype=np.float32)
    flat = faiss.IndexFlatL2(768)
    flat.add(broken)
    faiss.write_index(flat, str(tmp_path / "nan.index"))
    faiss.write_index(faiss.index_factory(768, "Flat"), str(tmp_path / "none.index"))

    for index, reason in (
        (index_file(tmp_path / "v1.index", width=256), "have 256 values and this voice needs 768"),
        (tmp_path / "nan.index", "not finite"),
        (tmp_path / "none.index", "no vectors"),
    ):
        with pytest.raises(ModelFileRefused, match=reason):
            verify_voice(voice, index)
    with pytest.raises(NotFound):
        verify_voice(voice, tmp_path / "missing.index")


def test_a_voice_that_makes_silence_is_refused(tmp_path: Path) -> None:
    weights = exported(tiny_network())
    weights["dec.conv_post.weight"] = torch.zeros_like(weights["dec.conv_post.weight"])
    path = rewritten(rvc_voice(tmp_path / "a.pth"), tmp_path / "mute.pth", weight=weights)

    with pytest.raises(ModelFileRefused, match="silence"):
        verify_voice(path)


def test_a_voice_that_makes_no_numbers_is_refused(tmp_path: Path) -> None:
    weights = exported(tiny_network(), torch.float32)
    weights["enc_p.proj.bias"] = torch.full_like(weights["enc_p.proj.bias"], 3e38)
    path = rewritten(rvc_voice(tmp_path / "a.pth"), tmp_path / "wild.pth", weight=weights)

    with pytest.raises(ModelFileRefused, match="no numbers"):
        verify_voice(path)


def test_files_that_cannot_speak_are_refused_with_what_to_give(tmp_path: Path) -> None:
    training_file(tmp_path / "G_1.pth")
    training_file(tmp_path / "D_1.pth", discriminator())

    with pytest.raises(ModelFileRefused, match=r"training checkpoint.*Extract a voice"):
        verify_voice(tmp_path / "G_1.pth")
    with pytest.raises(ModelFileRefused, match=r"is a discriminator.*Give the G_ file"):
        verify_voice(tmp_path / "D_1.pth")
    with pytest.raises(NotFound):
        verify_voice(tmp_path / "nothing.pth")


@needs_fixtures
@pytest.mark.parametrize("group", ["rvc_v1_f0", "rvc_v2_f0", "rvc_v2_nof0"])
def test_the_references_voices_speak(group: str) -> None:
    assert verify_voice(FIXTURES / group / "model_half.pth").level_db > -40
