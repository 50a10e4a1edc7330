"""The `lite` decoder: pitch put in by construction, silence silent, no clicks, the same sound for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.voice.lite import QUIETEST, LiteConfig, LiteSynthesizer, glide, pulses
from libs.voice.pitch import Pitch

RATE = 24_000
HOP = 240


def small(rate: int = RATE) -> LiteSynthesizer:
    torch.manual_seed(0)
    return LiteSynthesizer(LiteConfig(sample_rate=rate, width=16, hidden=32, blocks=1)).eval()


def render(synthesizer: LiteSynthesizer, f0: torch.Tensor, seed: int = 0) -> torch.Tensor:
    content = torch.rand(len(f0), 768, generator=torch.Generator().manual_seed(1))
    coarse = torch.ones(len(f0), dtype=torch.int64)
    return synthesizer.render(content, f0, coarse, 0, torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(3, 200), rate=st.sampled_from([16_000, 24_000, 32_000]), f0=st.floats(50, 1100))
def test_each_frame_of_ten_milliseconds_gives_one_hop_of_finite_samples(frames: int, rate: int, f0: float) -> None:
    wave = render(small(rate), torch.full((frames,), f0))

    assert wave.shape == (frames * rate // 100,)
    assert torch.isfinite(wave).all()


@pytest.mark.parametrize("f0", [80.0, 150.0, 400.0])
def test_the_sound_has_the_pitch_that_was_asked_for(f0: float) -> None:
    wave = pulses(*glide(torch.full((1, 100), f0), 160), 16_000)[0].numpy() * 0.1

    heard = Pitch().f0(wave.astype(np.float32), "dio")[10:90]

    assert np.median(heard) == pytest.approx(f0, rel=0.01)


@settings(max_examples=25, deadline=None)
@given(f0=st.floats(40, 1200), start=st.floats(0, 1))
def test_the_closed_form_of_the_pulses_is_the_sum_of_its_harmonics(f0: float, start: float) -> None:
    n = 500
    train = pulses(torch.full((1, n), f0), torch.ones(1, n), RATE, start)[0].double()

    phase = 2 * np.pi * (np.arange(1, n + 1) * np.float64(np.float32(f0)) / RATE + start)
    limit = max(RATE / 2 / f0 - 1, 1.0)
    whole = int(limit)
    expected = sum(np.cos(k * phase) for k in range(1, whole + 1)) + (limit - whole) * np.cos((whole + 1) * phase)
    # Within 2e-4 of a peak the peak itself is taken: less than a thousandth too high.
    np.testing.assert_allclose(train.numpy() * np.sqrt(limit + 1), expected, atol=0.05, rtol=1e-3)


def test_a_harmonic_that_passes_nyquist_goes_without_a_step() -> None:
    below, above = (torch.full((1, 200), f0) for f0 in (149.999, 150.001))  # 80 harmonics fit, then 79

    one, other = (pulses(f0, torch.ones_like(f0), RATE)[0] for f0 in (below, above))

    assert (one - other).abs().max() < 0.02  # a harmonic that is switched off would leave 0.11


def test_pitch_is_held_into_unvoiced_frames_and_the_gate_closes_over_one_frame() -> None:
    f0 = torch.tensor([[0.0, 0.0, 200.0, 220.0, 0.0, 0.0, 0.0, 100.0]])

    held, gate = glide(f0, 10)

    assert held.min() >= 100.0
    assert held[0, 0] == 200.0
    assert gate[0, :10].max() == 0.0
    assert gate[0, 20:30].min() == 1.0
    assert gate.diff(dim=1).abs().max() <= 0.1 + 1e-6


def test_an_unvoiced_recording_has_no_pulses() -> None:
    assert not pulses(*glide(torch.zeros(1, 50), HOP), RATE).any()


def test_the_same_seed_gives_the_same_sound_and_another_seed_other_noise() -> None:
    synthesizer, f0 = small(), torch.zeros(50)

    first, again, other = (render(synthesizer, f0, seed) for seed in (0, 0, 1))

    torch.testing.assert_close(first, again, rtol=0, atol=1e-6)  # convolutions may round the last bit otherwise
    assert float((first - other).abs().max()) > 1e-4


def test_closed_filters_are_silent() -> None:
    synthesizer = small()
    torch.nn.init.constant_(synthesizer.head.bias, QUIETEST)

    wave = render(synthesizer, torch.full((100,), 200.0))

    assert wave.abs().max() < 1e-4


def test_voicing_that_comes_and_goes_makes_no_click() -> None:
    f0 = torch.full((200,), 150.0)
    f0[50:60] = 0
    f0[120:150] = 0
    synthesizer = small()
    with torch.no_grad():
        synthesizer.head.bias[synthesizer.config.fft // 2 + 1 :] = QUIETEST

    wave = render(synthesizer, f0)

    steps = wave.diff().abs()
    steady = steps[: 40 * HOP].max()
    assert steps.max() < 1.5 * steady


def test_length_of_content_vectors_does_not_matter() -> None:
    synthesizer = small()
    torch.nn.init.normal_(synthesizer.head.weight, std=0.1)
    content, f0 = torch.rand(1, 20, 768), torch.full((1, 20), 200.0)

    one, ten = synthesizer.filters(content, f0)[0], synthesizer.filters(content * 10, f0)[0]

    torch.testing.assert_close(one, ten, rtol=1e-4, atol=1e-4)


def test_the_harmonic_filter_reaches_the_sound_through_training() -> None:
    synthesizer = small().train()
    wave = synthesizer(torch.rand(1, 30, 768), torch.full((1, 30), 200.0), torch.randn(1, 30 * HOP))

    wave.square().mean().backward()

    assert synthesizer.head.bias.grad is not None
    assert synthesizer.head.bias.grad.abs().max() > 0
