"""Do recordings that are converted at once sound as they do alone, and is a broken one nobody else's loss?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from libs.common.errors import Cancelled, InvalidInput, RecordingTooShort
from libs.voice.chain import Conversion, Converter, Windows
from libs.voice.content_small import SmallContentEncoder
from libs.voice.conversion.together import Order, Outcome, convert_together
from libs.voice.lite import LiteSynthesizer
from libs.voice.pitch import Pitch
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.synthesizer import Clip
from tests.unit.voice.conversion_parts import speech

CLOSE = 2e-5
"""What a batch of contents may differ by (docs/rvc-compatibility.md); two steps of 16 bit are 6e-5."""

ORDERS = (
    Order(speech(2.3), 16000, Conversion(seed=1, rms_mix_rate=1.0)),
    Order(speech(1.1, 22050), 22050, Conversion(seed=2, pitch_shift=5, f0_method="harvest")),
    Order(speech(7.0)[16000:], 16000, Conversion(seed=1, split_silence=True), output_rate=44100),
    Order(speech(2.2), 16000, Conversion(seed=3, autotune=True, protect=0.5)),
)


def lite() -> LiteSynthesizer:
    torch.manual_seed(4)
    voice = LiteSynthesizer()
    torch.nn.init.normal_(voice.head.weight, std=0.05)
    return voice.eval().requires_grad_(False)


def rvc() -> RvcSynthesizer:
    torch.manual_seed(3)
    network = SynthesizerNetwork(CONFIGS["rvc-tiny"], with_posterior=False)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    return RvcSynthesizer(network, torch.device("cpu"))


class Watched:
    """A voice that notes how many frames each of its passes takes, and fails where it is told to."""

    wants_loudness = False

    def __init__(self, voice: LiteSynthesizer | RvcSynthesizer) -> None:
        self._voice = voice
        self.sample_rate, self.content_width, self.needs_f0 = voice.sample_rate, voice.content_width, voice.needs_f0
        self.passes: list[list[int]] = []
        self.fails_above = 1_000_000
        self.refused_speaker = -1

    def render(self, content: Tensor, f0: Tensor, coarse: Tensor, speaker: int, generator: torch.Generator) -> Tensor:
        return self._voice.render(content, f0, coarse, speaker, generator)

    def render_clips(self, clips: Sequence[Clip]) -> list[Tensor]:
        self.passes.append([len(clip.content) for clip in clips])
        made = self._voice.render_clips([replace(clip, speaker_id=0) for clip in clips])
        if len(clips) > self.fails_above:
            raise torch.OutOfMemoryError("no memory for so many")
        if any(clip.speaker_id == self.refused_speaker for clip in clips):
            raise InvalidInput("no such speaker", field="speaker_id")
        return made


def converter(voice: Watched) -> Converter:
    windows = Windows(pad=0.5, query=0.5, center=2.0, longest=2.5)
    return Converter(voice, SmallContentEncoder(), Pitch(), windows=windows, joining="smooth")


def together(ours: Converter, orders: Sequence[Order], most_seconds: float = 60.0) -> tuple[list[Outcome], list[str]]:
    """What each was told, and the passes that had to be repeated."""
    told: dict[int, Outcome] = {}
    repeated: list[str] = []

    def tell(place: int, outcome: Outcome) -> None:
        assert place not in told
        told[place] = outcome

    convert_together(
        ours, orders, tell, most_seconds=most_seconds, on_retry=lambda error: repeated.append(type(error).__name__)
    )
    return [told[place] for place in range(len(orders))], repeated


def alone(ours: Converter, order: Order) -> tuple[np.ndarray, int]:
    return ours.convert(order.wave, order.sample_rate, order.conversion, output_rate=order.output_rate)


def assert_same(outcome: Outcome, expected: tuple[np.ndarray, int]) -> None:
    assert not isinstance(outcome, Exception), outcome
    (wave, rate), (wanted, wanted_rate) = outcome, expected
    assert rate == wanted_rate
    np.testing.assert_allclose(wave, wanted, atol=CLOSE, rtol=0)
    assert wanted.std() > 1e-3


@pytest.mark.parametrize("voice", [lite, rvc])
def test_recordings_at_once_sound_as_they_do_alone_whoever_is_beside_them(voice) -> None:
    watched = Watched(voice())
    ours = converter(watched)
    expected = [alone(ours, order) for order in ORDERS]
    watched.passes.clear()

    outcomes, repeated = together(ours, ORDERS)
    pair, _ = together(ours, [ORDERS[3], ORDERS[0]])

    for outcome, wanted in zip(outcomes, expected, strict=True):
        assert_same(outcome, wanted)
    assert_same(pair[0], expected[3])
    assert_same(pair[1], expected[0])
    assert not repeated
    assert max(len(frames) for frames in watched.passes) > 1


def test_chance_comes_from_each_ones_own_seed() -> None:
    ours = converter(Watched(lite()))
    same = Order(ORDERS[0].wave, 16000, Conversion(seed=8, rms_mix_rate=1.0))
    other = replace(same, conversion=replace(same.conversion, seed=9))

    (first, second, third), _ = together(ours, [same, other, same])

    assert not isinstance(first, Exception)
    assert not isinstance(second, Exception)
    assert_same(third, first)
    assert np.abs(first[0] - second[0]).max() > 1e-3


def test_a_pass_takes_no_more_frames_than_it_may() -> None:
    watched = Watched(lite())
    orders = [replace(ORDERS[0], wave=speech(seconds)) for seconds in (2.0, 1.9, 1.8, 1.7, 0.4, 0.3, 2.1)]

    outcomes, _ = together(converter(watched), orders, most_seconds=7.0)

    assert not any(isinstance(outcome, Exception) for outcome in outcomes)
    assert any(len(frames) > 1 for frames in watched.passes)
    assert all(len(frames) == 1 or len(frames) * max(frames) <= 700 for frames in watched.passes)


def test_what_does_not_fit_into_memory_together_is_done_one_by_one_with_the_same_chance() -> None:
    watched = Watched(rvc())
    ours = converter(watched)
    expected = [alone(ours, order) for order in ORDERS[::3]]
    watched.fails_above = 1

    outcomes, repeated = together(ours, ORDERS[::3])

    for outcome, wanted in zip(outcomes, expected, strict=True):
        assert_same(outcome, wanted)
    assert set(repeated) == {"OutOfMemoryError"}


def test_who_fails_fails_alone() -> None:
    watched = Watched(lite())
    watched.refused_speaker = 7
    ours = converter(watched)
    good = ORDERS[0]
    broken = [
        replace(good, wave=good.wave[:800]),
        replace(good, conversion=Conversion(speaker_id=7)),
        replace(good, conversion=Conversion(f0_method="magic")),
        replace(good, should_stop=lambda: True),
        replace(good, output_rate=10),
    ]

    outcomes, _ = together(ours, [broken[0], good, *broken[1:], ORDERS[3]])

    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [
        RecordingTooShort,
        InvalidInput,
        InvalidInput,
        Cancelled,
        InvalidInput,
    ]
    assert_same(outcomes[1], alone(ours, good))
    assert_same(outcomes[-1], alone(ours, ORDERS[3]))


def test_who_is_cancelled_between_two_chunks_leaves_the_others() -> None:
    ours = converter(Watched(lite()))
    long = Order(speech(9.0), 16000, Conversion(seed=5))
    asked: list[bool] = []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) > 4

    outcomes, _ = together(ours, [replace(long, should_stop=should_stop), long])

    assert isinstance(outcomes[0], Cancelled)
    assert_same(outcomes[1], alone(ours, long))


def test_the_short_one_is_told_before_the_long_one_beside_it() -> None:
    ours = converter(Watched(lite()))
    told: list[int] = []

    orders = [replace(ORDERS[0], wave=speech(seconds)) for seconds in (9.0, 0.5)]
    convert_together(ours, orders, lambda place, _: told.append(place), most_seconds=60.0)

    assert told == [1, 0]


@pytest.mark.parametrize("make", [lite])
def test_lite_clips_in_one_pass_are_the_clips_one_by_one(make) -> None:
    voice, values = make(), torch.Generator().manual_seed(9)

    def clips() -> list[Clip]:
        chance = torch.Generator().manual_seed(1)
        shapes = ((240, 100, 140), (300, 60, 200), (90, 10, 85), (300, 0, 300))
        return [
            Clip(content, f0, torch.ones(len(f0), dtype=torch.int64), 0, chance, first, last)
            for (content, f0), (_, first, last) in zip(given, shapes, strict=True)
        ]

    given = [
        (
            torch.randn(frames, 768, generator=values),
            torch.where(torch.arange(frames) % 40 < 30, 150 + 100 * torch.rand(frames, generator=values), 0.0),
        )
        for frames in (240, 300, 90, 300)
    ]
    together = voice.render_clips(clips())
    alone = [voice.render(c.content, c.f0_hz, c.coarse, 0, c.generator)[c.first * 240 : c.last * 240] for c in clips()]

    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert expected.std() > 1e-3
