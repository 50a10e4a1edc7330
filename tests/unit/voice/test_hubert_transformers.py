"""Does a transformers folder give the numbers of its network, and is what does not fit refused?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libs.common.errors import InvalidInput, ModelFileRefused, NotFound
from libs.voice import content, hubert
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder
from tests.unit.voice.hostile.parts import Payload
from tests.unit.voice.hubert_models import small_hubert, write_folder

WAVE = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 6000)).astype(np.float32) * 0.1)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize(("newer", "prefix"), [(True, ""), (False, ""), (True, "hubert.")])
def test_a_folder_has_the_numbers_of_its_network(form: str, newer: bool, prefix: str, tmp_path: Path) -> None:
    network = small_hubert(1)
    folder = write_folder(tmp_path / "contentvec", network, form=form, newer=newer, prefix=prefix)

    loaded = hubert.load_hubert(folder)

    assert loaded.config == network.config
    torch.testing.assert_close(loaded.features(WAVE, 3), network.features(WAVE, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(loaded.features(WAVE, 2, True), network.features(WAVE, 2, True), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["tiny", "hubert_base_like"])
def test_fairseqs_checkpoint_as_a_folder_still_gives_fairseqs_numbers(name: str, tmp_path: Path) -> None:
    arrays = fixture_arrays("hubert_fairseq", name)
    checkpoint = hubert.load_hubert(fixture_folder("hubert_fairseq") / f"{name}.pt")

    loaded = hubert.load_hubert(write_folder(tmp_path / name, checkpoint))

    last = f"n8000.layer{checkpoint.config.layers:02d}"
    found = loaded.features(torch.from_numpy(arrays["n8000.wav"])[None], checkpoint.config.layers)
    np.testing.assert_allclose(found.numpy(), arrays[last], atol=2e-5, rtol=1e-4)


def test_the_input_is_normalised_when_the_folder_says_so(tmp_path: Path) -> None:
    plain = write_folder(tmp_path / "plain", small_hubert(1), do_normalize=False)
    asking = write_folder(tmp_path / "asking", small_hubert(1), do_normalize=True)

    without, with_it = hubert.load_hubert(plain), hubert.load_hubert(asking)

    normalised = torch.nn.functional.layer_norm(WAVE, WAVE.shape[-1:])
    torch.testing.assert_close(with_it.features(WAVE, 3), without.features(normalised, 3), atol=1e-6, rtol=0)
    assert content.weights_checksum(plain) != content.weights_checksum(asking)


def test_a_folder_or_a_file_is_taken_by_what_hubert_path_points_to(tmp_path: Path) -> None:
    network = small_hubert(1, width=768, position_groups=16, layers=1, projected_width=256)
    folder = write_folder(tmp_path / "contentvec", network)
    torch.save({"model": network.state_dict()}, tmp_path / "hubert_base.pt")
    wave = WAVE[0].numpy()

    from_folder = content.load_content_encoder(folder)
    from_file = content.load_content_encoder(tmp_path / "hubert_base.pt")
    v1 = content.load_content_encoder(folder, version="v1")

    assert from_folder.name == from_file.name == "hubert"
    assert from_folder.checksum == content.file_checksum(folder / "model.safetensors")
    assert from_folder.encode(wave).shape == from_file.encode(wave).shape == (content.frame_count(6000), 768)
    assert v1.encode(wave).shape == (content.frame_count(6000), 256)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feat_extract_norm": "layer"}, "feat_extract_norm"),
        ({"do_stable_layer_norm": True}, "do_stable_layer_norm"),
        ({"conv_bias": True}, "conv_bias"),
        ({"num_attention_heads": 5}, "5 heads"),
        ({"num_attention_heads": 0}, "whole number"),
        ({"hidden_size": "768"}, "whole number"),
        ({"conv_stride": [5]}, "same layers"),
        ({"num_hidden_layers": 2}, "missing, unknown or of another shape"),
        ({"hidden_size": 64}, "missing, unknown or of another shape"),
        ({"num_hidden_layers": 60000}, "too many"),
    ],
)
def test_settings_of_another_network_are_refused(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "other", small_hubert(1), **changes)

    with pytest.raises(ModelFileRefused, match=reason):
        hubert.load_hubert(folder)


def test_folders_that_are_incomplete_or_broken_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    no_weights = write_folder(tmp_path / "no_weights", small_hubert(1))
    (no_weights / "model.safetensors").unlink()
    cut = write_folder(tmp_path / "cut", small_hubert(1))
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:900])
    no_json = write_folder(tmp_path / "no_json", small_hubert(1))
    (no_json / "config.json").write_text("{")
    listing = write_folder(tmp_path / "listing", small_hubert(1))
    (listing / "config.json").write_text(json.dumps([1]))

    with pytest.raises(NotFound, match=r"config\.json"):
        hubert.load_hubert(tmp_path / "empty")
    with pytest.raises(NotFound, match=r"pytorch_model\.bin"):
        content.load_content_encoder(no_weights)
    for folder in (cut, no_json, listing):
        with pytest.raises(ModelFileRefused):
            content.load_content_encoder(folder)


def test_v1_from_a_folder_without_a_projection_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bare", small_hubert(1, width=768, layers=1, projected_width=None))

    with pytest.raises(InvalidInput, match="no final projection"):
        content.load_content_encoder(folder, version="v1")


def test_a_folder_whose_weights_carry_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "evil", small_hubert(1), form="bin")
    torch.save({"encoder.layer_norm.weight": Payload(tmp_path / "ran")}, folder / "pytorch_model.bin")

    with pytest.raises(ModelFileRefused, match=r"pytorch_model\.bin"):
        hubert.load_hubert(folder)

    assert not (tmp_path / "ran").exists()
