"""A voice file is what RVC writes, opens safely, sounds the same, and has the same bytes for the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from libs.common.errors import InvalidInput, ModelFileRefused, StorageFull
from libs.voice.artefact import load_synthesizer, read_voice, write_voice
from libs.voice.atomic import write_atomically
from libs.voice.plain import is_plain
from libs.voice.recipe import build_recipe
from libs.voice.rvc.checkpoints import read_training_checkpoint
from libs.voice.rvc.files import network_from_export
from libs.voice.rvc.layers import no_noise
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.safe_load import load_tensors
from libs.voice.training_config import TrainingConfig
from tests.unit.voice.rvc_fixtures import FIXTURES, assert_near, config_of, needs_fixtures, read_arrays, read_json

FRAMES = 30


SAME_SOUND = {"rtol": 0.0, "atol": 1e-6}
"""Convolutions may round the last bit otherwise in another thread or at another address."""


def rendered(path: Path, seed: int = 1) -> torch.Tensor:
    voice = load_synthesizer(path)
    draw = torch.Generator().manual_seed(5)
    content = torch.randn(FRAMES, voice.content_width, generator=draw)
    f0 = torch.full((FRAMES,), 200.0)
    coarse = torch.full((FRAMES,), 60)
    return voice.render(content, f0, coarse, 0, torch.Generator().manual_seed(seed))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    weights, config = build_recipe("rvc-tiny", TrainingConfig(preset="rvc-tiny")).export()
    write_voice(tmp_path / "tiny.pth", weights, config)
    return tmp_path / "tiny.pth"


@needs_fixtures
@pytest.mark.parametrize("group", ["rvc_v2_f0", "rvc_v2_nof0", "rvc_v1_f0"])
@pytest.mark.parametrize("name", ["model_fp32", "model_half", "model_applio_half"])
def test_files_that_rvc_and_applio_wrote_give_the_reference_sound(group: str, name: str) -> None:
    path = FIXTURES / group / f"{name}.pth"
    if not path.exists():
        pytest.skip("this set has no such file")
    a = read_arrays(f"{group}/stages.npz")
    network = network_from_export(load_tensors(path), path.name)

    audio, _, _ = network.infer(
        a["phone"].float(),
        a["phone_lengths"],
        a.get("pitch"),
        a.get("pitchf"),
        a["sid"],
        latent_noise=no_noise,
        source_noise=no_noise,
    )

    assert_near(audio, a["infer_audio"], *((2e-5, 1e-3) if name == "model_fp32" else (0.01, 0.0)))


@needs_fixtures
def test_a_training_checkpoint_of_rvc_fits_our_network_in_its_own_order() -> None:
    facts = read_json("rvc_v2_f0/rvc_v2_f0.json")
    network = SynthesizerNetwork(config_of(facts["config"], "v2", True))

    state = read_training_checkpoint(FIXTURES / "rvc_v2_f0" / "G_70.pth").model
    network.load_state_dict(state)

    assert list(state) == list(network.state_dict())


def test_our_file_has_rvcs_keys_and_half_precision(tiny: Path) -> None:
    file = load_tensors(tiny)

    assert list(file) == ["weight", "config", "info", "sr", "f0", "version"]
    assert len(file["config"]) == 18
    assert file["config"][17] == 16_000
    assert file["version"] == "v2"
    assert file["f0"] == 1
    assert all(value.dtype == torch.float16 for value in file["weight"].values())
    assert not any(name.startswith("enc_q") for name in file["weight"])


def test_the_same_weights_make_the_same_bytes_in_another_process(tmp_path: Path, tiny: Path) -> None:
    again = tmp_path / "again.pth"
    program = (
        "import torch, sys, pathlib; from libs.voice.artefact import write_voice; "
        "from libs.voice.safe_load import load_tensors; f = load_tensors(pathlib.Path(sys.argv[1])); "
        "w = f.pop('weight'); print(write_voice(pathlib.Path(sys.argv[2]), w, {'kind': 'rvc', **f}))"
    )

    subprocess.run([sys.executable, "-c", program, str(tiny), str(again)], check=True, capture_output=True)

    assert again.read_bytes() == tiny.read_bytes()


def test_a_voice_renders_ten_milliseconds_per_frame_and_repeats_with_its_generator(tiny: Path) -> None:
    first, again, other = rendered(tiny), rendered(tiny), rendered(tiny, seed=2)

    assert first.shape == (FRAMES * 160,)
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, again, **SAME_SOUND)
    assert float((first - other).abs().max()) > 100 * SAME_SOUND["atol"]


def test_the_newer_weight_norm_names_are_read(tmp_path: Path, tiny: Path) -> None:
    file = load_tensors(tiny)
    renamed = {
        k.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): v
        for k, v in file.pop("weight").items()
    }
    torch.save({"weight": renamed, **file}, tmp_path / "new.pth")

    torch.testing.assert_close(rendered(tmp_path / "new.pth"), rendered(tiny), **SAME_SOUND)


def test_a_file_that_names_no_vocoder_is_of_hifi_gan(tmp_path: Path, tiny: Path) -> None:
    torch.testing.assert_close(
        rendered(change(tiny, tmp_path / "none.pth", vocoder=None)), rendered(tiny), **SAME_SOUND
    )


def change(tiny: Path, path: Path, **changes: object) -> Path:
    file = load_tensors(tiny)
    file.update(changes)
    torch.save(file, path)
    return path


def test_a_file_whose_numbers_do_not_fit_is_refused(tmp_path: Path, tiny: Path) -> None:
    file = load_tensors(tiny)
    lacking = {k: v for k, v in file["weight"].items() if k != "dec.conv_pre.bias"}
    broken = {**file["weight"], "dec.conv_pre.bias": torch.full((32,), float("nan"))}
    huge = [*file["config"][:2], 4096, 4096, *file["config"][4:]]

    for changes, message in [
        ({"weight": lacking}, "it lacks dec.conv_pre.bias"),
        ({"weight": broken}, "not finite"),
        ({"config": huge}, "shape"),
        ({"config": file["config"][:9]}, "list of 18"),
        ({"version": "v9"}, "v1 and v2"),
        ({"vocoder": "RefineGAN"}, "RefineGAN"),
        ({"weight": 3}, "no `weight`"),
    ]:
        with pytest.raises(ModelFileRefused, match=message):
            load_synthesizer(change(tiny, tmp_path / "bad.pth", **changes))


def test_a_speaker_that_the_voice_does_not_have_is_refused(tiny: Path) -> None:
    voice = load_synthesizer(tiny)

    with pytest.raises(InvalidInput, match="0 to 3"):
        voice.render(torch.zeros(4, 768), torch.zeros(4), torch.ones(4).long(), 4, torch.Generator())


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new_one(tmp_path: Path, tiny: Path) -> None:
    program = (
        "import resource, sys, pathlib, torch; from libs.voice.artefact import write_voice; "
        "from libs.common.errors import StorageFull; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try: write_voice(pathlib.Path(sys.argv[1]), {'a': torch.zeros(100_000)}, {'kind': 'lite'})\n"
        "except StorageFull: sys.exit(17)"
    )
    before = tiny.read_bytes()

    done = subprocess.run([sys.executable, "-c", program, str(tiny)], capture_output=True, check=False)

    assert done.returncode == 17, done.stderr
    assert tiny.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.pth"]


def test_any_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fail(stream: object) -> None:
        raise StorageFull("full")

    with pytest.raises(StorageFull):
        write_atomically(tmp_path / "x", fail)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{"], ids=["pth", "safetensors"])
def test_a_voice_of_more_than_a_gigabyte_is_not_read(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "voice.pth"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(2**30 + 1)

    with pytest.raises(ModelFileRefused, match="the limit is 1073741824"):
        read_voice(path)


def test_values_are_plain_within_their_budgets_and_not_beyond() -> None:
    deep: list[Any] = []
    for _ in range(9):
        deep = [deep]

    assert is_plain({"config": [1, 2.5, "a", None, True, (3, [4])]})
    assert is_plain([0] * 9_999)
    assert not is_plain([0] * 10_000)
    assert not is_plain(["x" * 2**10] * 1025)
    assert not is_plain(deep)
    assert not is_plain([float("nan")])
    assert not is_plain({1: 2})
    assert not is_plain(object())
