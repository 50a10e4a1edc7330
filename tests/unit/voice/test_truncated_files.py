"""A file that ends too early is refused wherever it ends, whatever its sort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import ModelFileRefused
from libs.voice.array_file import read_array, write_features
from libs.voice.artefact import read_voice
from libs.voice.retrieval import read_index
from libs.voice.rvc.checkpoints import read_training_checkpoint
from libs.voice.tools import convert_file, open_archive, write_archive
from tests.unit.voice.test_array_file import features
from tests.unit.voice.voice_files import applio_voice, discriminator, index_file, rvc_voice, training_file

Reader = Callable[[Path], object]


def legacy_voice(path: Path) -> Path:
    file = torch.load(rvc_voice(path), weights_only=True)
    torch.save(file, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Reader]]:
    """One sound file of every sort, and its reader."""
    folder = tmp_path_factory.mktemp("whole")
    voice = rvc_voice(folder / "rvc.pth")
    convert_file(voice, folder / "ours.safetensors", "safetensors")
    write_archive("rvc", voice, None, None, folder / "archive.zip")
    write_features(folder / "total_fea.npy", features())
    return {
        "rvc": (voice, read_voice),
        "applio": (applio_voice(folder / "applio.pth"), read_voice),
        "legacy": (legacy_voice(folder / "legacy.pth"), read_voice),
        "generator": (training_file(folder / "G_1.pth"), read_training_checkpoint),
        "discriminator": (training_file(folder / "D_1.pth", discriminator()), read_training_checkpoint),
        "safetensors": (folder / "ours.safetensors", read_voice),
        "index": (index_file(folder / "a.index", width=16), read_index),
        "array": (folder / "total_fea.npy", read_array),
        "archive": (folder / "archive.zip", lambda path: open_archive(path, folder / "out")),
    }


SORTS = ["rvc", "applio", "legacy", "generator", "discriminator", "safetensors", "index", "array", "archive"]


@pytest.mark.parametrize("sort", SORTS)
def test_the_whole_file_is_read(whole: dict[str, tuple[Path, Reader]], sort: str) -> None:
    path, read = whole[sort]

    assert read(path) is not None


@pytest.mark.parametrize("sort", SORTS)
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), near_the_end=st.integers(0, 200))
def test_a_file_is_refused_wherever_it_ends(
    whole: dict[str, tuple[Path, Reader]], sort: str, share: float, near_the_end: int
) -> None:
    path, read = whole[sort]
    content = path.read_bytes()
    cut = path.with_name(f"cut-{sort}{path.suffix}")

    for length in (int(share * len(content)), len(content) - 1 - near_the_end):
        cut.write_bytes(content[:length])
        with pytest.raises(ModelFileRefused):
            read(cut)


def refusal_of(read: Reader, path: Path) -> str | None:
    """Why a file is refused; None when it is read."""
    try:
        return None if read(path) is not None else "it was read as nothing"
    except ModelFileRefused as refusal:
        return refusal.detail


@pytest.mark.parametrize("sort", SORTS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_harmless(
    whole: dict[str, tuple[Path, Reader]], sort: str, data: st.DataObject
) -> None:
    path, read = whole[sort]
    content = bytearray(path.read_bytes())
    # the structure stands at both ends; in between are weights, where a flipped bit is another weight
    edge = min(2000, len(content) // 2)
    place = data.draw(st.one_of(st.integers(0, edge - 1), st.integers(len(content) - edge, len(content) - 1)))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = path.with_name(f"flipped-{sort}{path.suffix}")
    damaged.write_bytes(content)

    said = refusal_of(read, damaged)

    assert said is None or len(said) > len(damaged.name)  # any other error than a refusal fails the test
