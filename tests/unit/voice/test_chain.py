"""Does a conversion follow RVC's chain, keep its parameters' meaning, and refuse what is out of range?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from libs.common.errors import Cancelled, InvalidInput, RecordingTooShort
from libs.voice import chain, retrieval
from libs.voice.pitch import Pitch
from tests.comparing import SAME
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder, fixture_json


class StubEncoder:
    """The fixtures' encoder: content frame t is the samples at 320 t, four times over."""

    name, checksum = "stub", "0" * 64

    def __init__(self, width: int = 768) -> None:
        self.width = width

    def encode(self, wave16k: np.ndarray) -> np.ndarray:
        frames = (len(wave16k) - 400) // 320 + 1
        at = 320 * np.arange(frames)[:, None] + np.arange(self.width)[None, :] % 400
        return 4 * wave16k[at]


class StubPitch:
    """The fixtures' pitch: a function of the frame number alone."""

    def resolve(self, method: str) -> str:
        return method

    def f0(self, wave16k: np.ndarray, method: str = "auto") -> np.ndarray:
        i = np.arange(len(wave16k) // 160 + 1)
        return np.where(i % 50 < 9, 0.0, 150 + 50 * np.sin(i / 17) + 20 * np.sin(i / 5)).astype(np.float32)


class Buzz:
    """A synthesizer that sounds like its pitch, with noise from its generator; records what it was given."""

    sample_rate, content_width, needs_f0 = 32000, 8, True

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor, int]] = []

    def render(self, content: Tensor, f0: Tensor, coarse: Tensor, speaker: int, generator: torch.Generator) -> Tensor:
        self.calls.append((content, f0, coarse, speaker))
        phase = 2 * np.pi * torch.cumsum(f0.double().repeat_interleave(320), 0) / 32000
        noise = torch.randn(len(f0) * 320, generator=generator)
        return (0.2 * torch.sin(phase) + 0.01 * noise).float()


class LoudBuzz(Buzz):
    """One that also wants the source's loudness."""

    wants_loudness = True

    def render(self, *given: Any, loudness: Tensor | None = None) -> Tensor:
        self.loudness = loudness
        return super().render(*given)


def swelling() -> np.ndarray:
    """Four seconds that grow louder, `[64000]` at 16 kHz."""
    moments = np.arange(64000) / 16000
    return 0.1 * moments * np.sin(2 * np.pi * 180 * moments)


class Silent(Buzz):
    """A voice without pitch."""

    needs_f0 = False


def speech(seconds: float = 2.0, rate: int = 16000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(180 + 40 * np.sin(2 * np.pi * 0.8 * time)) / rate
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * 0.5 * time)
    return (0.1 * envelope * sum(np.sin(k * phase) / k for k in range(1, 9))).astype(np.float32)


def converter(synthesizer: Any = None, index: retrieval.RetrievalIndex | None = None, **more: Any) -> chain.Converter:
    synthesizer = synthesizer or Buzz()
    return chain.Converter(synthesizer, StubEncoder(synthesizer.content_width), Pitch(), index, **more)


def target_index(width: int = 8) -> retrieval.RetrievalIndex:
    return retrieval.index_of(
        retrieval.build_index([np.random.default_rng(0).standard_normal((200, width)).astype(np.float32)])
    )


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_content_retrieval_and_protection_are_the_references(number: int) -> None:
    arrays = fixture_arrays("pipeline")
    case = fixture_json("pipeline")["retrieval"]["cases"][number]
    prefix = case["prefix"]
    features = arrays[prefix + "feats"][0]

    class Stored(StubEncoder):
        def encode(self, wave16k: np.ndarray) -> np.ndarray:
            return features

    class Wide(Buzz):
        content_width = features.shape[1]

    index = retrieval.read_index(fixture_folder("pipeline") / case["index"]) if case["index"] else None
    ours = chain.Converter(Wide(), Stored(features.shape[1]), StubPitch(), index)
    wanted = chain.Conversion(index_rate=case["index_rate"], protect=case["protect"])

    audio = np.zeros(case["audio_samples"], dtype=np.float32)
    content, f0 = ours.content_frames(audio, arrays[prefix + "pitchf_in"][0].astype(np.float64), wanted)

    np.testing.assert_allclose(content, arrays[prefix + "net_feats"][0], atol=1e-4)
    np.testing.assert_allclose(f0, arrays[prefix + "net_pitchf"][0], rtol=1e-6)
    assert len(f0) == arrays[prefix + "net_len"][0]


def test_mixing_loudness_is_the_references() -> None:
    arrays = fixture_arrays("pipeline")
    result = (arrays["rms_out_32k_int16"] / 32768).astype(np.float32)

    for rate in (0.0, 0.25, 0.8):
        mixed = chain.mix_loudness(arrays["rms_in_16k"], 16000, result, 32000, rate)
        np.testing.assert_allclose(mixed[::8], arrays[f"rms_mixed_rate{rate}_every_8"], atol=2e-5)


class Reference:
    """The fixtures' RVC network with all chance at zero."""

    sample_rate, content_width, needs_f0 = 40000, 768, True

    def __init__(self) -> None:
        from libs.voice.rvc.config import config_from_export
        from libs.voice.rvc.synthesizer import SynthesizerNetwork
        from libs.voice.safe_load import load_tensors

        document = load_tensors(fixture_folder("rvc_v2_f0") / "model_fp32.pth")
        weights = {key: value.float() for key, value in document["weight"].items()}
        speakers = weights["emb_g.weight"].shape[0]
        config = config_from_export(document["config"], version="v2", f0=True, speakers=speakers)
        self.network = SynthesizerNetwork(config, with_posterior=False).eval()
        self.network.load_state_dict(weights)

    def render(self, content: Tensor, f0: Tensor, coarse: Tensor, speaker: int, generator: torch.Generator) -> Tensor:
        wave, _, _ = self.network.infer(
            content[None],
            torch.tensor([len(content)]),
            coarse[None],
            f0[None],
            torch.tensor([speaker]),
            latent_noise=torch.zeros_like,
            source_noise=torch.zeros_like,
        )
        return wave[0, 0]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_whole_conversion_is_the_references(number: int) -> None:
    e2e = fixture_json("pipeline")["e2e"]
    case = e2e["cases"][number]
    arrays = fixture_arrays("pipeline")
    is_newest = case["implementation"].startswith("newest")
    index = retrieval.read_index(fixture_folder("pipeline") / case["file_index"]) if case["file_index"] else None
    seconds = e2e["windows_seconds"]
    windows = chain.Windows(seconds["x_pad"], seconds["x_query"], seconds["x_center"], seconds["x_max"])
    ours = chain.Converter(Reference(), StubEncoder(), StubPitch(), index, windows, cut_by_signed_sum=not is_newest)

    wave, rate = ours.convert(
        (arrays["e2e_wav16k_int16"] / 32768).astype(np.float32),
        16000,
        pitch_shift=case.get("f0_up_key", case.get("pitch")),
        index_rate=case["index_rate"],
        protect=case["protect"],
        rms_mix_rate=case.get("rms_mix_rate", case.get("volume_envelope")),
        speaker_id=e2e["speaker"],
        fill_unvoiced=is_newest,
        output_rate=case.get("resample_sr") or None,
    )

    step = int(case["array"].rsplit("_", 1)[1])
    expected = arrays[case["array"]]
    assert rate == case["output_rate"]
    assert len(wave) == case["total_samples"]
    if case["dtype"] == "int16":
        difference = np.abs(np.trunc(wave[::step] * 32768) - expected)
        assert difference.max() <= 4
        assert difference.mean() < 1
    else:
        np.testing.assert_allclose(wave[::step], expected, atol=1e-4)


def test_a_conversion_has_the_length_and_pitch_of_its_source() -> None:
    source = speech(3.0, 44100)

    wave, rate = converter().convert(source, 44100, pitch_shift=12)

    assert rate == 32000
    assert abs(len(wave) / rate - 3.0) < 0.05
    before = Pitch().f0(speech(3.0))
    after = Pitch().f0(chain.resample(wave, rate, 16000))
    n = min(len(before), len(after))
    both = (before[:n] > 0) & (after[:n] > 0)
    assert abs(np.median(12 * np.log2(after[:n][both] / before[:n][both])) - 12) < 0.3


def test_the_same_seed_gives_the_same_sound_and_another_gives_another() -> None:
    ours = converter()

    first, again, other = (ours.convert(speech(), 16000, seed=seed)[0] for seed in (4, 4, 5))

    np.testing.assert_allclose(first, again, rtol=0, atol=SAME / 2**15)
    assert np.abs(first - other).max() > 10 * SAME / 2**15


def test_a_long_source_is_cut_in_quiet_places_and_joined_without_loss() -> None:
    source = speech(9.0)
    source[64000:68000] = 0
    windows = chain.Windows(pad=0.5, query=1.0, center=4.0, longest=5.0)
    synthesizer = Buzz()
    shares: list[float] = []

    cuts = chain.cut_points(chain.prepare_source(source, 16000), windows)
    wave, rate = converter(synthesizer, windows=windows).convert(source, 16000, report=shares.append)

    assert 63800 <= cuts[0] <= 68000
    assert len(synthesizer.calls) == len(cuts) + 1 == 3
    assert abs(len(wave) / rate - 9.0) < 0.07
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_conversion_stops_between_chunks() -> None:
    synthesizer = Buzz()
    windows = chain.Windows(pad=0.5, query=0.5, center=2.0, longest=3.0)

    with pytest.raises(Cancelled):
        converter(synthesizer, windows=windows).convert(
            speech(8.0), 16000, should_stop=lambda: len(synthesizer.calls) >= 2
        )

    assert len(synthesizer.calls) == 2


def test_index_rate_zero_is_no_index_and_one_is_only_the_target() -> None:
    index = target_index()
    audio = chain.prepare_source(speech(), 16000).astype(np.float32)
    f0 = np.full(len(audio) // 160, 200.0)
    ours = converter(index=index)
    own = StubEncoder(8).encode(audio)

    untouched, _ = ours.content_frames(audio, f0, chain.Conversion(index_rate=0.0))
    replaced, _ = ours.content_frames(audio, f0, chain.Conversion(index_rate=1.0))

    np.testing.assert_array_equal(untouched[::2], own[: len(untouched[::2])])
    inside = (index.vectors.min(), index.vectors.max())
    assert inside[0] <= replaced.min() <= replaced.max() <= inside[1]
    assert not np.allclose(untouched, replaced)


@settings(max_examples=40, deadline=None)
@given(protect=st.floats(0.0, 0.5), voiced=st.lists(st.booleans(), min_size=1, max_size=20))
def test_protection_touches_only_unvoiced_frames(protect: float, voiced: list[bool]) -> None:
    f0 = np.where(voiced, 200.0, 0.0)
    mixed, own = np.ones((len(f0), 3), np.float32), np.zeros((len(f0), 3), np.float32)

    out = chain.protect_unvoiced(mixed, own, f0, protect)

    np.testing.assert_allclose(out[:, 0], np.where(voiced, 1.0, protect), atol=1e-6)


def test_mixing_no_loudness_leaves_the_result_and_mixing_all_follows_the_source() -> None:
    source, flat = speech(4.0), np.full(64000, 0.1, dtype=np.float32)

    left = chain.mix_loudness(source, 16000, flat, 16000, 1.0)
    followed = chain.mix_loudness(source, 16000, flat, 16000, 0.0)

    np.testing.assert_allclose(left, flat, rtol=1e-6)
    ours, theirs = (chain.frame_rms(w, 16000, 8000)[1:-1] for w in (followed, source))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.85


def test_a_voice_without_pitch_is_given_none() -> None:
    synthesizer = Silent()

    converter(synthesizer).convert(speech(), 16000)

    _, f0, coarse, _ = synthesizer.calls[0]
    assert not f0.any()
    assert (coarse == 1).all()


@pytest.mark.parametrize(("voice", "usual"), [(Buzz, 0.25), (LoudBuzz, 1.0)], ids=["rvc", "reads loudness"])
def test_the_loudness_is_mixed_as_suits_the_voice_unless_somebody_says_how(voice: type[Buzz], usual: float) -> None:
    def converted(**given: float) -> np.ndarray:
        ours = chain.Converter(voice(), StubEncoder(8), StubPitch())
        return ours.convert(swelling(), 16000, index_rate=0.0, **given)[0]

    silent, spoken = converted(), converted(rms_mix_rate=usual)
    other = converted(rms_mix_rate=1.25 - usual)

    np.testing.assert_array_equal(silent, spoken)
    assert np.abs(silent - other).max() > 0.01


def test_a_voice_that_wants_loudness_gets_one_value_per_frame() -> None:
    synthesizer = LoudBuzz()

    converter(synthesizer).convert(speech(), 16000)

    assert synthesizer.loudness is not None
    assert synthesizer.loudness.shape == synthesizer.calls[0][1].shape
    assert -3 < float(synthesizer.loudness.median()) < 3  # over the level of its own speech
    assert float(synthesizer.loudness.min()) < -5


def test_the_result_never_exceeds_full_scale() -> None:
    loud = np.array([0.1, -2.0, 1.5], dtype=np.float32)

    assert np.abs(chain.below_full_scale(loud)).max() == pytest.approx(0.99)
    np.testing.assert_array_equal(chain.below_full_scale(loud / 4), loud / 4)


@pytest.mark.parametrize(
    ("field", "value", "limits"),
    [
        ("pitch_shift", 25.0, "-24…24"),
        ("pitch_shift", float("nan"), "-24…24"),
        ("index_rate", -0.1, "0…1"),
        ("index_rate", 1.5, "0…1"),
        ("protect", 0.6, "0…0.5"),
        ("rms_mix_rate", 2.0, "0…1"),
        ("speaker_id", -1, "0…2333"),
        ("output_rate", 100, "8000…192000"),
    ],
)
def test_parameters_out_of_range_are_refused_with_name_and_limits(field: str, value: float, limits: str) -> None:
    with pytest.raises(InvalidInput, match=limits) as refusal:
        converter().convert(speech(), 16000, **{field: value})  # type: ignore[arg-type]

    assert refusal.value.field == field


def test_recordings_that_cannot_be_converted_are_refused() -> None:
    with pytest.raises(RecordingTooShort, match=r"0\.05 s given, 0\.1 s needed"):
        converter().convert(speech(0.05), 16000)
    with pytest.raises(InvalidInput, match="One channel"):
        converter().convert(np.zeros((2, 16000)), 16000)


def test_the_shortest_recording_a_silent_one_and_one_with_nan_are_converted() -> None:
    broken = speech(1.0)
    broken[100] = np.nan

    for source in (speech(0.1), np.zeros(16000), broken):
        wave, _ = converter().convert(source, 16000)
        assert np.isfinite(wave).all()
        assert len(wave) > 0


def test_parts_of_different_widths_are_refused() -> None:
    with pytest.raises(InvalidInput, match="content of 8 values"):
        chain.Converter(Buzz(), StubEncoder(16), Pitch())
    with pytest.raises(InvalidInput, match="vectors of 16 values"):
        chain.Converter(Buzz(), StubEncoder(8), Pitch(), target_index(16))
