"""Do clips that go through an encoder together get the features that they get alone?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from libs.common.errors import RecordingTooShort
from libs.voice import content, content_batches, packed_linear
from libs.voice.content import HubertEncoder
from libs.voice.content_small import SmallContentEncoder
from libs.voice.hubert import Hubert, load_hubert
from libs.voice.hubert_packed import pack
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder
from tests.unit.voice.hubert_models import small_hubert

Float32 = NDArray[np.float32]
lengths_of_clips = st.lists(st.integers(400, 9000), min_size=1, max_size=7)


def clips(lengths: list[int], seed: int) -> list[Float32]:
    """Noise of different loudness and offset, so that a statistic over the wrong samples shows."""
    draw = np.random.default_rng(seed)
    return [
        (draw.uniform(0.01, 0.5) * draw.standard_normal(n) + draw.uniform(-0.2, 0.2)).astype(np.float32)
        for n in lengths
    ]


@lru_cache(maxsize=8)
def plain(normalise: bool) -> Hubert:
    return small_hubert(3, normalise_input=normalise)


@lru_cache(maxsize=8)
def encoder(version: content.Version, normalise: bool) -> HubertEncoder:
    return HubertEncoder(small_hubert(3, normalise_input=normalise), "0" * 64, version)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of_clips, seed=st.integers(0, 1000), normalise=st.booleans())
def test_hubert_gives_padded_clips_what_it_gives_them_alone(lengths: list[int], seed: int, normalise: bool) -> None:
    waves = clips(lengths, seed)
    network = plain(normalise)

    together = network.features(content_batches.padded(waves), 3, lengths=lengths)

    for row, wave in zip(together, waves, strict=True):
        alone = network.features(torch.from_numpy(wave)[None], 3)[0]
        np.testing.assert_allclose(row[: len(alone)], alone, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths_of_clips,
    seed=st.integers(0, 1000),
    normalise=st.booleans(),
    version=st.sampled_from(["v1", "v2"]),
    most=st.sampled_from([1, 9000, 20_000, 1_000_000]),
)
def test_a_batch_of_any_lengths_has_the_features_of_each_clip(
    lengths: list[int], seed: int, normalise: bool, version: content.Version, most: int
) -> None:
    waves = clips(lengths, seed)
    hubert = encoder(version, normalise)
    hubert.batch_samples = most

    together = hubert.encode_batch(waves)

    assert [features.shape for features in together] == [
        (content.frame_count(n), 8 if version == "v1" else 32) for n in lengths
    ]
    for features, wave in zip(together, waves, strict=True):
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, hubert.encode(wave), atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(lengths=lengths_of_clips, seed=st.integers(0, 1000))
def test_the_built_in_encoder_gives_a_batch_the_features_of_each_clip(lengths: list[int], seed: int) -> None:
    waves = clips(lengths, seed)
    small = small_encoder()

    together = small.encode_batch(waves)

    for features, wave in zip(together, waves, strict=True):
        np.testing.assert_allclose(features, small.encode(wave), atol=2e-5)


@lru_cache(maxsize=1)
def small_encoder() -> SmallContentEncoder:
    return SmallContentEncoder()


@pytest.mark.parametrize("name", ["tiny", "hubert_base_like"])
def test_packing_and_batching_keep_fairseqs_numbers(name: str) -> None:
    arrays = fixture_arrays("hubert_fairseq", name)
    network = pack(load_hubert(fixture_folder("hubert_fairseq") / f"{name}.pt"))
    last = network.config.layers
    waves = [arrays["n8000.wav"], arrays["n5123.wav"]]

    both = network.features(content_batches.padded(waves), last, lengths=[8000, 5123])

    for row, length in zip(both, ("n8000", "n5123"), strict=True):
        expected = arrays[f"{length}.layer{last:02d}"][0]
        np.testing.assert_allclose(row[: len(expected)], expected, atol=2e-5, rtol=1e-4)


@given(lengths=st.lists(st.integers(1, 100_000), max_size=30), most=st.integers(1, 300_000))
def test_batches_hold_every_clip_once_and_stay_within_their_bound(lengths: list[int], most: int) -> None:
    batches = content_batches.plan_batches(lengths, most)

    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= most
        assert min(lengths[place] for place in batch) >= content_batches.LEAST_SHARE * longest


def test_a_batch_with_a_clip_below_one_frame_is_refused() -> None:
    waves = [np.zeros(4000, np.float32), np.zeros(399, np.float32)]

    for refusing in (encoder("v2", False), small_encoder()):
        with pytest.raises(RecordingTooShort, match="399 samples"):
            refusing.encode_batch(waves)


def test_no_clips_have_no_features() -> None:
    assert encoder("v2", False).encode_batch([]) == []
    assert small_encoder().encode_batch([]) == []


def test_an_encoder_without_batches_is_asked_clip_by_clip() -> None:
    class OneByOne:
        name, checksum, width = "one", "0" * 64, 1

        def encode(self, wave16k: Float32) -> Float32:
            return np.full((content.frame_count(len(wave16k)), 1), wave16k[0], np.float32)

    found = content.encode_batch(OneByOne(), [np.full(720, 3.0, np.float32), np.full(400, 4.0, np.float32)])

    assert [features.tolist() for features in found] == [[[3.0], [3.0]], [[4.0]]]


def test_bfloat16_keeps_three_digits_and_is_never_the_default() -> None:
    wave = clips([16_000], 1)[0]
    exact = encoder("v2", False).encode(wave)

    rough = HubertEncoder(small_hubert(3), "0" * 64, dtype=torch.bfloat16).encode(wave)

    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.05


@pytest.mark.parametrize("gelu", [False, True])
def test_a_packed_product_is_the_ordinary_one_with_and_without_its_operators(
    gelu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(96, 160), torch.randn(2, 7, 96)
    expected = linear(x).detach()
    expected = torch.nn.functional.gelu(expected) if gelu else expected

    packed = packed_linear.PackedLinear.of(linear, gelu=gelu)
    monkeypatch.setattr(packed_linear, "can_pack", lambda dtype: False)
    ordinary = packed_linear.PackedLinear.of(linear, gelu=gelu)

    assert not ordinary.packed
    torch.testing.assert_close(packed(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ordinary(x), expected, atol=1e-5, rtol=0)
