"""What the `lite` voice hears of loudness: the same of every rate and level, and nothing of a silent recording."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from libs.audio.resample import resample
from libs.voice.conversion.loudness import frame_loudness, speech_loudness
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.lite_loudness import as_read, frame_decibels, in_a_room, over_speech
from libs.voice.synthesizer import Clip


def bursts(rate: int, seconds: float = 2.0) -> np.ndarray:
    """A tone of 440 Hz that is loud, quiet and silent in turn."""
    moment = np.arange(int(rate * seconds)) / rate
    level = np.array([0.3, 0.03, 0.0])[(moment / 0.25).astype(int) % 3]
    return np.asarray(level * np.sin(2 * np.pi * 440 * moment), dtype=np.float32)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_a_batch_at_any_rate_is_as_loud_as_the_source_that_a_conversion_measures(rate: int) -> None:
    wave = bursts(16_000)

    one = frame_decibels(torch.from_numpy(resample(wave, 16_000, rate))[None], rate)[0].numpy()
    other = frame_loudness(wave, 200)

    both_sound = (one > -60) & (other > -60)
    assert both_sound.sum() > 120
    np.testing.assert_allclose(one[both_sound], other[both_sound], atol=0.5)


def test_what_lies_above_the_sources_spectrum_is_not_heard() -> None:
    moment = torch.arange(24_000) / 24_000
    low, high = (0.1 * torch.sin(2 * torch.pi * hz * moment)[None] for hz in (1000, 10_000))

    both, alone = frame_decibels(low + high, 24_000), frame_decibels(low, 24_000)

    torch.testing.assert_close(both[:, 5:-5], alone[:, 5:-5], atol=0.1, rtol=0)
    assert float(frame_decibels(high, 24_000)[:, 5:-5].max()) < -60


def test_the_level_of_a_recording_does_not_matter_and_its_speech_is_at_zero() -> None:
    decibels = torch.from_numpy(frame_loudness(bursts(16_000), 200))[None]

    told, quieter = over_speech(decibels), over_speech(decibels - 12)

    torch.testing.assert_close(told, quieter, atol=0.01, rtol=0)
    assert -2 < float(told[decibels > -15].mean()) < 10
    assert float(told[decibels < -60].max()) < -20


def test_silence_is_not_raised_to_the_level_of_speech() -> None:
    assert float(over_speech(torch.full((1, 100), -90.0)).max()) <= -35


def test_a_room_raises_the_pauses_and_leaves_the_speech() -> None:
    decibels = torch.tensor([[0.0, 3.0, -5.0, -70.0, -100.0]])

    raised = in_a_room(decibels, torch.tensor([0.5]))

    torch.testing.assert_close(raised[0, :3], decibels[0, :3], atol=0.02, rtol=0)
    torch.testing.assert_close(raised[0, 3:], torch.tensor([-40.0, -40.0]), atol=0.02, rtol=0)


def listening() -> LiteSynthesizer:
    torch.manual_seed(0)
    voice = LiteSynthesizer(LiteConfig(content_width=8, width=16, hidden=32, blocks=1, loudness=1)).eval()
    torch.nn.init.normal_(voice.head.weight, std=0.3)
    return voice


def sung(voice: LiteSynthesizer, loudness: Tensor | None) -> Tensor:
    frames, chance = 50, torch.Generator().manual_seed(2)
    content = torch.rand(frames, 8, generator=torch.Generator().manual_seed(1))
    return voice.render(content, torch.full((frames,), 150.0), torch.ones(frames).long(), 0, chance, loudness)


def test_a_voice_that_reads_loudness_sounds_by_it_and_takes_none_for_that_of_speech() -> None:
    voice = listening()

    at_speech, without, quiet = (sung(voice, given) for given in (torch.zeros(50), None, torch.full((50,), -30.0)))

    torch.testing.assert_close(at_speech, without)
    assert float((at_speech - quiet).abs().max()) > 0.01


def test_clips_in_one_pass_hear_their_own_loudness() -> None:
    voice = listening()
    levels = [torch.linspace(-40, 5, 80), torch.linspace(5, -40, 80), None]

    def clip(loudness: Tensor | None) -> Clip:
        content = torch.rand(80, 8, generator=torch.Generator().manual_seed(1))
        return Clip(
            content,
            torch.full((80,), 150.0),
            torch.ones(80).long(),
            0,
            torch.Generator().manual_seed(3),
            5,
            60,
            loudness,
        )

    together = voice.render_clips([clip(level) for level in levels])

    for wave, level in zip(together, levels, strict=True):
        torch.testing.assert_close(wave, voice.render_clips([clip(level)])[0], atol=2e-5, rtol=0)
    assert float((together[0] - together[1]).abs().max()) > 0.01


def test_a_conversion_tells_a_frame_its_loudness_over_the_speech_around_it() -> None:
    told = speech_loudness(bursts(16_000), 203)

    assert told.shape == (203,)
    assert float(told.max()) < 12
    assert float(told.min()) < -30
    assert as_read(told).min() == -2.5
