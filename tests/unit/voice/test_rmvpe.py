"""Does our RMVPE give the reference's numbers, and refuse what is not RMVPE?"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import ModelFileRefused
from libs.voice import rmvpe
from libs.voice.rmvpe_network import fold_norms
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder, fixture_json, recipe_state
from tests.unit.voice.hostile.parts import Payload


def small_state() -> dict[str, torch.Tensor]:
    document = fixture_json("rmvpe")["small"]
    return recipe_state(document["keys"], document["weight_seed"])


def untrained(packed: bool = False) -> rmvpe.Rmvpe:
    torch.manual_seed(5)
    return rmvpe.Rmvpe(rmvpe.RmvpeNetwork(1, 2, 1, 4), packed=packed)


@pytest.fixture(scope="module")
def full() -> rmvpe.Rmvpe:
    shapes = fixture_json("inventory", "rmvpe")["keys"]
    seed = fixture_json("rmvpe")["full"]["weight_seed"]
    return rmvpe.Rmvpe(rmvpe.network_of(recipe_state(shapes, seed)), padding="zeros")


def test_the_mel_is_the_references() -> None:
    arrays = fixture_arrays("rmvpe")

    mel = rmvpe.log_mel(torch.from_numpy(arrays["wav"]))

    np.testing.assert_allclose(mel.numpy(), arrays["mel"], atol=1e-3)


def test_the_public_networks_tensors_are_all_there_by_name_and_shape() -> None:
    inventory = fixture_json("inventory", "rmvpe")["keys"]

    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in rmvpe.RmvpeNetwork().state_dict().items()}

    assert ours == inventory


def test_the_reduced_network_gives_the_references_salience() -> None:
    arrays = fixture_arrays("rmvpe")
    model = rmvpe.Rmvpe(rmvpe.network_of(small_state()))

    salience = model.salience(torch.from_numpy(arrays["small_mel"]))

    np.testing.assert_allclose(salience.numpy(), arrays["small_salience"], atol=2e-4)


def test_the_full_network_gives_the_references_salience_and_pitch(full: rmvpe.Rmvpe) -> None:
    arrays = fixture_arrays("rmvpe")
    mel = torch.from_numpy(arrays["mel"])

    zeros = full.salience(mel).numpy()
    from_audio = full.f0(arrays["wav"])
    reflected = rmvpe.Rmvpe(full.network, padding="reflect").salience(mel).numpy()

    np.testing.assert_allclose(zeros, arrays["full_salience"], atol=2e-4)
    np.testing.assert_allclose(reflected, arrays["full_salience_reflect_pad"], atol=2e-4)
    sure = arrays["full_top2_margin"] > 1e-3
    np.testing.assert_allclose(rmvpe.decode(zeros)[sure], arrays["full_f0_thr0.03"][sure], rtol=1e-3)
    np.testing.assert_allclose(from_audio[sure], arrays["full_f0_from_audio"][sure], rtol=1e-3)


def test_decoding_handles_edges_ties_and_silence_as_the_reference() -> None:
    arrays = fixture_arrays("rmvpe")

    for threshold in (0.03, 0.05):
        f0 = rmvpe.decode(arrays["decode_salience"], threshold)
        np.testing.assert_allclose(f0, arrays[f"decode_f0_thr{threshold}"], rtol=1e-5)


def test_a_recording_of_any_length_has_one_frame_per_hop_and_one_more() -> None:
    model = untrained()

    for length in (1, 100, 160, 600, 1024, 16001):
        f0 = model.f0(np.zeros(length, dtype=np.float32))
        assert f0.shape == (length // 160 + 1,)
        assert f0.dtype == np.float32


def test_the_mel_of_a_stretch_is_the_stretch_of_the_mel() -> None:
    wave = np.random.default_rng(1).standard_normal(48123).astype(np.float32) * 0.1
    whole = rmvpe.log_mel(torch.from_numpy(wave))
    model = untrained()

    for begin, end in ((0, 100), (3, 90), (100, 200), (200, 301)):
        np.testing.assert_allclose(model._mel_of_frames(wave, begin, end).numpy(), whole[:, begin:end], atol=1e-5)


def test_a_long_recording_in_chunks_has_the_pitch_of_the_whole() -> None:
    model = untrained()
    rng = np.random.default_rng(2)
    time = np.arange(16000 * 30) / 16000
    wave = (0.2 * np.sin(2 * np.pi * (150 + 40 * np.sin(time)) * time) + 0.01 * rng.standard_normal(len(time))).astype(
        np.float32
    )
    whole = rmvpe.decode(model.salience(rmvpe.log_mel(torch.from_numpy(wave))).numpy(), 0.0)

    chunked = model.f0(wave, threshold=0.0)

    assert len(chunked) == len(whole) == 3001 > rmvpe.CHUNK_FRAMES
    np.testing.assert_allclose(chunked, whole, rtol=1e-3)


def test_the_full_network_in_chunks_has_the_pitch_of_the_whole(full: rmvpe.Rmvpe) -> None:
    rng = np.random.default_rng(4)
    time = np.arange(16000 * 23) / 16000
    tone = np.sin(2 * np.pi * (200 + 60 * np.sin(2 * time)) * time) * (np.sin(5 * time) > -0.5)
    wave = (0.2 * tone + 0.01 * rng.standard_normal(len(time))).astype(np.float32)
    whole = full.salience(rmvpe.log_mel(torch.from_numpy(wave)))
    sure = (lambda top: (top[:, 0] - top[:, 1]).numpy() > 1e-3)(whole.topk(2, dim=1).values)

    chunked = full.f0(wave, threshold=0.0)

    # the seam lies at frame 2048; what the two halves of the recurrent layer remember is cut there
    np.testing.assert_allclose(chunked[sure], rmvpe.decode(whole.numpy(), 0.0)[sure], rtol=1e-4)
    assert sure[2048 - 50 : 2048 + 50].sum() > 40


def test_a_long_recording_never_goes_through_the_network_as_a_whole() -> None:
    seen = []

    class Watching(rmvpe.Rmvpe):
        def salience(self, mel: torch.Tensor) -> torch.Tensor:
            seen.append(mel.shape[-1])
            return super().salience(mel)

    torch.manual_seed(5)
    Watching(rmvpe.RmvpeNetwork(1, 2, 1, 4)).f0(np.zeros(16000 * 90, dtype=np.float32))

    assert sum(seen) >= 9001
    assert max(seen) <= rmvpe.CHUNK_FRAMES + 2 * rmvpe.CHUNK_MARGIN_FRAMES


def test_folding_the_norms_changes_no_number() -> None:
    network = rmvpe.network_of(small_state()).eval()
    mel = torch.from_numpy(fixture_arrays("rmvpe")["small_mel"])
    before = rmvpe.Rmvpe(network).salience(mel)

    folded = fold_norms(network)

    norms = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 1  # the one at the entrance has no convolution before it
    torch.testing.assert_close(rmvpe.Rmvpe(folded).salience(mel), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [64, 96])
def test_packing_changes_no_number_and_half_precision_keeps_three_digits(frames: int) -> None:
    network = rmvpe.network_of(small_state()).eval()
    mels = torch.from_numpy(fixture_arrays("rmvpe")["small_mel"])[:, :frames].expand(3, -1, -1).clone()
    mels[1] *= 0.5
    plain = rmvpe.Rmvpe(network).salience(mels)

    packed = rmvpe.Rmvpe(copy.deepcopy(network), packed=True).salience(mels)
    half = rmvpe.Rmvpe(copy.deepcopy(network), packed=True, dtype=torch.bfloat16).salience(mels)
    mixed = rmvpe.Rmvpe(network, dtype=torch.bfloat16).salience(mels)

    torch.testing.assert_close(packed, plain, atol=2e-6, rtol=0)
    for rounded in (half, mixed):
        error = (rounded.float() - plain).abs().max()
        assert 0 < error < 0.03  # of 0…1


@pytest.mark.parametrize("packed", [False, True])
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([200, 4800, 4810, 5600, 5700, 5900, 9000]), max_size=9), seed=st.integers(0, 99)
)
def test_clips_together_have_the_pitch_that_they_have_alone(packed: bool, lengths: list[int], seed: int) -> None:
    model, draw = untrained(packed), np.random.default_rng(seed)
    waves = [0.1 * draw.standard_normal(length).astype(np.float32) for length in lengths]

    together = list(model.f0_batch(waves, threshold=0.0))

    assert len(together) == len(waves)
    for found, wave in zip(together, waves, strict=True):
        salience = model.salience(rmvpe.log_mel(torch.from_numpy(wave))) if len(wave) > 512 else None
        alone = model.f0(wave, threshold=0.0)
        assert found.shape == alone.shape
        if salience is not None:
            top = salience.topk(2, dim=1).values
            sure = (top[:, 0] - top[:, 1] > 1e-4).numpy()
            np.testing.assert_allclose(found[sure], alone[sure], rtol=1e-4)


def test_a_file_is_loaded_in_float_or_half(tmp_path: Path) -> None:
    state = small_state()
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "half.pt")
    torch.save(state, tmp_path / "float.pt")
    mel = torch.from_numpy(fixture_arrays("rmvpe")["small_mel"])

    half = rmvpe.load_rmvpe(tmp_path / "half.pt").salience(mel)
    full_precision = rmvpe.load_rmvpe(tmp_path / "float.pt").salience(mel)

    assert torch.allclose(half, full_precision, atol=0.02)


def test_a_file_that_carries_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    torch.save({"unet": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")

    with pytest.raises(ModelFileRefused, match=r"evil\.pt"):
        rmvpe.load_rmvpe(tmp_path / "evil.pt")

    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_rmvpe_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a model")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    state = untrained().network.state_dict()
    torch.save(dict(state) | {"fc.1.weight": torch.zeros(2, 2)}, tmp_path / "shape.pt")

    for name in ("text.pt", "list.pt", "other.pt"):
        with pytest.raises(ModelFileRefused):
            rmvpe.load_rmvpe(tmp_path / name)
    with pytest.raises(ModelFileRefused, match=r"fc\.1\.weight"):
        rmvpe.load_rmvpe(tmp_path / "shape.pt")


def test_the_fixture_folder_is_found() -> None:
    assert (fixture_folder("rmvpe") / "rmvpe.npz").is_file()
