"""Does our HuBERT give fairseq's numbers from fairseq's files, and run nothing that they carry?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libs.common.errors import InvalidInput, ModelFileRefused, RecordingTooShort
from libs.voice import content, hubert
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder, fixture_json
from tests.unit.voice.hostile.parts import Payload

MODELS = ["tiny", "hubert_base_like"]


def loaded(name: str) -> hubert.Hubert:
    return hubert.load_hubert(fixture_folder("hubert_fairseq") / f"{name}.pt")


def altered(tmp_path: Path, **changes: Any) -> Path:
    """The small fixture checkpoint with some of its contents replaced."""
    document = hubert.read_fairseq_checkpoint(fixture_folder("hubert_fairseq") / "tiny.pt")
    document.pop("task_state")
    torch.save(document | changes, tmp_path / "altered.pt")
    return tmp_path / "altered.pt"


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_fairseqs(name: str) -> None:
    arrays = fixture_arrays("hubert_fairseq", name)
    model = loaded(name)

    for length in ("n8000", "n5123"):
        wave = torch.from_numpy(arrays[f"{length}.wav"])[None]
        states = model.hidden_states(wave)
        conv = model.conv_features(wave)

        np.testing.assert_allclose(conv.numpy(), arrays[f"{length}.conv_features"], atol=2e-5)
        for number, state in enumerate(states, start=1):
            np.testing.assert_allclose(state.numpy(), arrays[f"{length}.layer{number:02d}"], atol=2e-5, rtol=1e-4)
            projected = arrays.get(f"{length}.final_proj_of_layer{number:02d}")
            if projected is not None:
                ours = model.features(wave, number, project=True)
                np.testing.assert_allclose(ours.numpy(), projected, atol=2e-5, rtol=1e-4)
        expected = arrays[f"{length}.last_without_padding_mask"]
        np.testing.assert_allclose(states[-1].numpy(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_that_asks_for_it_has_its_input_normalised(name: str, tmp_path: Path) -> None:
    arrays = fixture_arrays("hubert_fairseq", name)
    document = hubert.read_fairseq_checkpoint(fixture_folder("hubert_fairseq") / f"{name}.pt")
    cfg = document["cfg"] | {"task": document["cfg"]["task"] | {"normalize": True}}
    torch.save({"model": document["model"], "cfg": cfg}, tmp_path / "normalised.pt")

    model = hubert.load_hubert(tmp_path / "normalised.pt")

    last = model.hidden_states(torch.from_numpy(arrays["n8000.wav"])[None])[-1]
    np.testing.assert_allclose(last.numpy(), arrays["n8000.last_with_normalized_input"], atol=2e-5, rtol=1e-4)


def test_the_shape_is_read_from_the_tensors_when_the_settings_are_gone(tmp_path: Path) -> None:
    document = hubert.read_fairseq_checkpoint(fixture_folder("hubert_fairseq") / "hubert_base_like.pt")
    torch.save({"model": document["model"]}, tmp_path / "bare.pt")
    arrays = fixture_arrays("hubert_fairseq", "hubert_base_like")

    bare = hubert.load_hubert(tmp_path / "bare.pt")

    last = bare.hidden_states(torch.from_numpy(arrays["n5123.wav"])[None])[-1]
    np.testing.assert_allclose(last.numpy(), arrays["n5123.layer12"], atol=2e-5, rtol=1e-4)


def test_the_encoder_takes_layer_nine_projected_for_v1_and_twelve_for_v2() -> None:
    arrays = fixture_arrays("hubert_fairseq", "hubert_base_like")
    wave = arrays["n8000.wav"]

    v1 = content.HubertEncoder(loaded("hubert_base_like"), "0" * 64, "v1")
    v2 = content.HubertEncoder(loaded("hubert_base_like"), "0" * 64, "v2")

    np.testing.assert_allclose(v1.encode(wave), arrays["n8000.final_proj_of_layer09"][0], atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(v2.encode(wave), arrays["n8000.layer12"][0], atol=2e-5, rtol=1e-4)
    assert (v1.width, v2.width) == (16, 48)
    assert len(v2.encode(wave)) == content.frame_count(len(wave)) == 24


def test_a_clip_below_one_frame_is_refused() -> None:
    encoder = content.HubertEncoder(loaded("tiny"), "0" * 64)

    with pytest.raises(RecordingTooShort, match="399 samples"):
        encoder.encode(np.zeros(399, dtype=np.float32))

    assert encoder.encode(np.zeros(400, dtype=np.float32)).shape == (1, 32)


def test_layers_that_do_not_exist_are_refused() -> None:
    model = loaded("tiny")

    with pytest.raises(InvalidInput, match=r"1…4"):
        model.features(torch.zeros(1, 800), 5)


def test_the_list_of_convolutions_is_read_and_not_evaluated() -> None:
    base = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"

    assert hubert.parse_conv_layers(base) == hubert.HubertConfig().conv_layers
    for text in ("__import__('os').getcwd()", "[(1,2)]", "[(1,2,3)] * 99999999", "", "[(1,2,3)] * 99"):
        with pytest.raises(ModelFileRefused):
            hubert.parse_conv_layers(text)


def test_a_checkpoint_that_carries_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    path = altered(tmp_path, task_state={"dictionaries": [Payload(tmp_path / "ran")]})

    with pytest.raises(ModelFileRefused, match=r"altered\.pt"):
        hubert.load_hubert(path)

    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_hubert_are_refused(tmp_path: Path) -> None:
    state = hubert.read_fairseq_checkpoint(fixture_folder("hubert_fairseq") / "tiny.pt")["model"]
    (tmp_path / "text.pt").write_text("no model")

    with pytest.raises(ModelFileRefused):
        hubert.load_hubert(tmp_path / "text.pt")
    with pytest.raises(ModelFileRefused):
        hubert.load_hubert(altered(tmp_path, model=[1]))
    with pytest.raises(ModelFileRefused):
        hubert.load_hubert(altered(tmp_path, model={"a": torch.zeros(1)}))
    with pytest.raises(ModelFileRefused, match=r"fc2\.bias"):
        hubert.load_hubert(altered(tmp_path, model=dict(state) | {"encoder.layers.0.fc2.bias": torch.zeros(7)}))


def test_a_hubert_of_the_wrong_width_is_refused_for_v2() -> None:
    with pytest.raises(InvalidInput, match="768"):
        content.load_content_encoder(fixture_folder("hubert_fairseq") / "hubert_base_like.pt", version="v2")


def test_v1_without_hubert_says_what_is_missing() -> None:
    with pytest.raises(InvalidInput, match="HUBERT_PATH"):
        content.load_content_encoder(None, version="v1")


def test_features_of_two_encoders_never_mix() -> None:
    mine = content.HubertEncoder(loaded("tiny"), "a" * 64)
    other = content.HubertEncoder(loaded("tiny"), "b" * 64)
    small = content.HubertEncoder(loaded("tiny"), "a" * 64, name="voicewright-content")

    content.check_same_encoder(content.card_of(mine), mine)
    content.check_same_encoder(None, mine)

    for card, encoder in ((content.card_of(mine), other), (content.card_of(mine), small), (None, small)):
        with pytest.raises(InvalidInput) as refusal:
            content.check_same_encoder(card, encoder)
        assert refusal.value.field == "content_encoder"


def test_frame_count_follows_the_fixtures() -> None:
    for model in fixture_json("hubert_fairseq")["models"]:
        for length in (8000, 5123):
            assert content.frame_count(length) == model["arrays"][f"n{length}.layer01"][1]
    assert content.frame_count(399) == 0


def test_without_hubert_the_built_in_encoder_is_used_on_the_same_grid(tmp_path: Path) -> None:
    encoder = content.load_content_encoder(tmp_path / "hubert_base.pt", version="v2")
    wave = (0.1 * np.sin(np.arange(16000) / 12)).astype(np.float32)

    features = encoder.encode(wave)

    assert encoder.name != "hubert"
    assert encoder.width == 768
    assert len(encoder.checksum) == 64
    assert features.shape == (content.frame_count(16000), 768)
    content.check_same_encoder(content.card_of(encoder), encoder)


def test_a_broken_hubert_file_is_refused_and_not_silently_replaced(tmp_path: Path) -> None:
    (tmp_path / "hubert_base.pt").write_bytes(b"half a download")

    with pytest.raises(ModelFileRefused):
        content.load_content_encoder(tmp_path / "hubert_base.pt", version="v2")
