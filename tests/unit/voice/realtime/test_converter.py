"""Does a live stream come out in whole blocks, in time, by its settings, and without a trace of other streams?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from libs.common.errors import InvalidInput
from libs.voice import retrieval
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.realtime import RealtimeConverter, RealtimeSettings
from libs.voice.realtime.inference import BlockInference
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.rvc.voice import RvcSynthesizer
from tests.unit.voice.realtime.streams import Encoder, Sines, Whistle, run, stream, tone


def loudest_hz(wave: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * len(wave)))
    return float(np.argmax(spectrum) * rate / (8 * len(wave)))


def tiny() -> RvcSynthesizer:
    torch.manual_seed(0)
    return RvcSynthesizer(SynthesizerNetwork(CONFIGS["rvc-tiny"], with_posterior=False), torch.device("cpu"))


def small_lite() -> LiteSynthesizer:
    torch.manual_seed(0)
    voice = LiteSynthesizer(LiteConfig(sample_rate=24000, content_width=8, fft=512, width=16, hidden=32, blocks=2))
    torch.nn.init.normal_(voice.head.weight, std=0.5)
    return voice.eval()


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("voice", [Sines, tiny, small_lite])
def test_every_block_has_its_exact_length_at_every_input_rate(rate: int, voice: Any) -> None:
    converter = stream(voice(), input_rate=rate, threshold_db=-50.0)

    rng = np.random.default_rng(0)
    for _ in range(12):
        out = converter.process(rng.uniform(-0.3, 0.3, converter.block_samples))
        assert out.shape == (converter.output_rate // 10,)
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert np.abs(out).max() <= 1.0

    assert converter.block_samples == rate // 10


def test_lengths_stay_exact_over_many_blocks_of_odd_settings() -> None:
    converter = stream(block_seconds=0.033, crossfade_seconds=0.017, extra_seconds=0.123, input_rate=44100)

    lengths = {len(converter.process(np.zeros(converter.block_samples))) for _ in range(200)}

    assert (converter.block_samples, lengths) == (3 * 441, {3 * 320})
    assert converter.latency_seconds == pytest.approx(0.03 + 0.02 + 0.01)


class Beacon(Sines):
    """A tone wherever the content is not silent."""

    def render(self, content: Tensor, f0: Tensor, coarse: Tensor, speaker: int, generator: torch.Generator) -> Tensor:
        sounding = (content.abs().amax(1) > 0.01).float().repeat_interleave(320)
        return 0.3 * torch.sin(2 * np.pi * 500 * torch.arange(len(sounding)) / 32000) * sounding


@pytest.mark.parametrize(("block", "crossfade"), [(0.1, 0.05), (0.25, 0.05), (0.05, 0.15)])
def test_what_goes_in_comes_out_within_the_latency(block: float, crossfade: float) -> None:
    converter = stream(Beacon(), block_seconds=block, crossfade_seconds=crossfade)
    wave = np.concatenate([np.zeros(16000), tone(1.0)])

    out = run(converter, wave)

    # A block is played while the next comes in: its first sample sounds one block after its own time.
    heard = np.flatnonzero(np.abs(out) > 0.05)[0] / 32000 + block
    assert heard - 1.0 == pytest.approx(converter.latency_seconds, abs=0.035)
    assert heard - 1.0 <= converter.latency_seconds + 0.005


def test_a_held_tone_comes_out_as_one_tone_of_its_pitch_moved_by_the_shift() -> None:
    converter = stream(pitch_shift=7.0)

    out = run(converter, tone(3.0))[16000:]

    assert loudest_hz(out, 32000) == pytest.approx(200 * 2 ** (7 / 12), rel=0.01)
    power = np.convolve(out**2, np.ones(320) / 320, mode="valid")
    assert power.min() > 0.6 * power.mean()


@pytest.mark.parametrize("formant", [-2.0, 1.3])
def test_a_formant_shift_leaves_the_pitch_and_the_length(formant: float) -> None:
    converter = stream(formant_shift=formant)

    out = run(converter, tone(3.0))

    assert len(out) == 3 * 32000
    assert loudest_hz(out[16000:], 32000) == pytest.approx(200.0, rel=0.02)


def test_an_rvc_network_keeps_its_pitch_under_a_formant_shift() -> None:
    plain, moved = (run(stream(tiny(), formant_shift=shift), tone(1.5)) for shift in (0.0, 1.0))

    assert plain.shape == moved.shape
    assert not np.allclose(plain, moved, atol=1e-3)


@pytest.mark.parametrize("voice", [Sines, tiny, small_lite])
def test_silence_below_the_gate_comes_out_as_silence_and_costs_no_network(voice: Any) -> None:
    converter = stream(voice(), threshold_db=-40.0)
    hum = np.random.default_rng(1).uniform(-1e-3, 1e-3, 16000)

    run(converter, tone(0.5))
    out = run(converter, hum)
    calls = converter.encoder.calls  # type: ignore[attr-defined]
    run(converter, hum)

    assert not out[-converter.output_rate // 2 :].any()
    assert converter.encoder.calls == calls  # type: ignore[attr-defined]


def test_without_a_gate_the_same_hum_is_given_to_the_voice() -> None:
    converter = stream(tiny())

    out = run(converter, np.random.default_rng(1).uniform(-1e-3, 1e-3, 16000))

    assert out.any()


def test_streams_of_one_voice_know_nothing_of_each_other() -> None:
    voice = tiny()
    alone = run(stream(voice), tone(1.0))
    first, second = stream(voice), stream(voice)
    mine, other = np.split(tone(1.0), 10), np.split(tone(1.0, 333.0), 10)

    both = []
    for a, b in zip(mine, other, strict=True):
        both.append(first.process(a))
        second.process(b)

    np.testing.assert_allclose(np.concatenate(both), alone, atol=1e-5)


def test_a_reset_stream_begins_anew_and_warming_up_leaves_no_trace() -> None:
    converter = stream(tiny())
    fresh = run(converter, tone(0.5))

    converter.reset()
    again = run(converter, tone(0.5))
    converter.warm_up()
    warmed = run(converter, tone(0.5))

    np.testing.assert_allclose(again, fresh, atol=1e-5)
    np.testing.assert_allclose(warmed, fresh, atol=1e-5)


def test_settings_change_from_the_next_block_on() -> None:
    converter = stream()
    run(converter, tone(1.5))

    converter.change(pitch_shift=12.0)
    out = run(converter, tone(1.5))

    assert loudest_hz(out[16000:], 32000) == pytest.approx(400.0, rel=0.01)
    assert converter.settings.pitch_shift == 12.0


def test_what_is_fixed_unknown_or_out_of_range_changes_nothing() -> None:
    converter = stream()
    before = converter.settings

    for name, value, reason in (
        ("block_seconds", 0.2, "fixed while a stream runs"),
        ("input_rate", 48000, "fixed while a stream runs"),
        ("pitch", 3, "no setting of a stream"),
        ("pitch_shift", 99.0, "-24…24"),
        ("f0_method", "magic", "magic"),
    ):
        with pytest.raises(InvalidInput, match=reason) as refusal:
            converter.change(**{"formant_shift": 1.0, name: value})
        assert refusal.value.field == name

    converter.change(block_seconds=before.block_seconds)
    assert converter.settings == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("block_seconds", 0.01),
        ("block_seconds", 1.6),
        ("crossfade_seconds", 0.2),
        ("extra_seconds", 0.0),
        ("extra_seconds", 5.1),
        ("pitch_shift", -25.0),
        ("formant_shift", 2.1),
        ("index_rate", 1.1),
        ("rms_mix_rate", -0.1),
        ("rms_mix_rate", 1.1),
        ("rms_mix_rate", float("nan")),
        ("rms_mix_rate", "1"),
        ("rms_mix_rate", True),
        ("index_rate", None),
        ("threshold_db", -61.0),
        ("threshold_db", 1.0),
        ("speaker_id", -1),
        ("speaker_id", 1.5),
        ("input_rate", 22050),
        ("input_rate", 4000),
        ("pitch_shift", float("nan")),
        ("pitch_shift", "3"),
        ("fill_unvoiced", 1),
        ("f0_method", 5),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refusal:
        RealtimeSettings(**{field: value})

    assert refusal.value.field == field


def test_defaults_are_those_of_rvc() -> None:
    given = RealtimeSettings()

    assert (given.block_seconds, given.crossfade_seconds, given.extra_seconds) == (0.25, 0.05, 2.5)
    assert (given.threshold_db, given.index_rate, given.formant_shift, given.mix_of(Sines())) == (-60.0, 0.0, 0.0, 0.0)
    assert not given.gate_is_on


def test_parts_that_do_not_fit_are_refused_before_the_stream_begins() -> None:
    voice = tiny()
    other = retrieval.index_of(retrieval.build_index([np.eye(60, 16, dtype=np.float32)]))

    with pytest.raises(InvalidInput, match="content of 768 values"):
        RealtimeConverter(voice, Encoder(256), Whistle())
    with pytest.raises(InvalidInput, match="vectors of 16 values"):
        RealtimeConverter(voice, Encoder(768), Whistle(), other)
    with pytest.raises(InvalidInput, match="this voice has 0 to 3"):
        stream(voice, speaker_id=4)
    with pytest.raises(InvalidInput, match="magic"):
        stream(voice, f0_method="magic")


def test_a_block_of_another_shape_is_refused_and_broken_samples_are_silence() -> None:
    converter = stream()

    for shape in ((1599,), (1600, 1), (0,)):
        with pytest.raises(InvalidInput, match="1600 samples") as refusal:
            converter.process(np.zeros(shape, dtype=np.float32))
        assert refusal.value.field == "block"

    broken = tone(0.1)
    broken[5:9] = (np.nan, np.inf, -np.inf, 0.1)
    assert np.isfinite(converter.process(broken)).all()


def test_an_index_pulls_only_the_frames_after_the_context() -> None:
    target = np.random.default_rng(2).standard_normal((400, 8)).astype(np.float32) + 5
    index = retrieval.index_of(retrieval.build_index([target]))
    voice = Sines()
    seen: list[Tensor] = []
    voice.render = lambda content, *rest: (seen.append(content), Sines.render(voice, content, *rest))[1]  # type: ignore[method-assign]

    converter = stream(voice, index, index_rate=1.0)
    converter.process(tone(0.1))

    content = seen[0]
    context = 24
    assert float(content[:context].abs().max()) < 1.0
    assert float(content[context:].mean()) > 3.0


def test_the_pitch_window_of_rmvpe_has_frames_in_multiples_of_32() -> None:
    for method, samples in (("rmvpe", 5120 - 160), ("dio", 4000 + 800)):
        converter = stream(block_seconds=0.25, f0_method=method)
        converter.process(np.zeros(converter.block_samples))

        assert converter.pitch.lengths == [samples]  # type: ignore[attr-defined]


def test_pitch_of_a_rested_block_is_unvoiced_and_moves_on() -> None:
    inference = BlockInference(Sines(), Encoder(8), Whistle(), None, block_frames=10, skip_head=20, return_length=15)
    inference.infer(np.concatenate([tone(0.5)]), RealtimeSettings(), torch.Generator())
    before = inference.f0_cache.copy()

    inference.rest()

    np.testing.assert_array_equal(inference.f0_cache[:-10], before[10:])
    assert not inference.f0_cache[-10:].any()
    assert (inference.coarse_cache[-10:] == 1).all()
