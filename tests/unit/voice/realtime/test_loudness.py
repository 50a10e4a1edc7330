"""How loud does a live stream hear its source, and how loud is what comes out?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from tests.unit.voice.realtime.streams import Sines, run, stream, tone


class Listener(Sines):
    """One that also wants to know how loud each frame is."""

    wants_loudness = True

    def render(self, content: Tensor, f0: Tensor, *others: Any, loudness: Tensor | None = None) -> Tensor:
        self.heard = loudness
        self.frames = len(content)
        return super().render(content, f0, *others)


@pytest.mark.parametrize("formant_shift", [0.0, 1.5])
def test_a_voice_that_wants_loudness_hears_it_over_the_speech_of_the_whole_buffer(formant_shift: float) -> None:
    voice = Listener()
    converter = stream(voice, formant_shift=formant_shift)

    run(converter, np.concatenate((tone(0.6), 0.01 * tone(0.1))))

    assert voice.heard is not None
    assert len(voice.heard) == voice.frames
    assert abs(float(voice.heard[:10].mean())) < 3  # the speech before it, which sets the level
    assert float(voice.heard[-4:].mean()) < -25


def level(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave))))


@pytest.mark.parametrize(("voice", "usual"), [(Sines, 0.0), (Listener, 1.0)], ids=["rvc", "reads loudness"])
def test_the_loudness_of_a_stream_is_mixed_as_suits_the_voice_unless_somebody_says_how(
    voice: type[Sines], usual: float
) -> None:
    quiet = 0.1 * tone(1.5)

    silent, spoken, other = (run(stream(voice(), rms_mix_rate=mix), quiet) for mix in (None, usual, 1.0 - usual))

    np.testing.assert_array_equal(silent, spoken)
    assert level(other[16000:]) / level(silent[16000:]) == pytest.approx(10.0 ** (1.0 - 2.0 * usual), rel=0.1)


def test_a_mix_that_is_given_counts_while_the_stream_runs_and_none_goes_back_to_what_suits_the_voice() -> None:
    converter = stream(Listener(), rms_mix_rate=None)
    quiet = 0.1 * tone(1.5)
    own = level(run(converter, quiet)[16000:])

    converter.change(rms_mix_rate=0.0)
    followed = level(run(converter, quiet)[16000:])
    converter.change(rms_mix_rate=None)
    again = level(run(converter, quiet)[16000:])

    assert followed == pytest.approx(0.1 * own, rel=0.1)
    assert again == pytest.approx(own, rel=0.01)


def test_somebody_far_behind_the_speaker_stays_behind_when_the_speaker_is_silent_and_comes_forward_slowly() -> None:
    voice = Listener()
    converter = stream(voice)  # of 0.5 s of context
    far = 0.05 * tone(0.1)  # 26 dB quieter

    def heard_after(seconds: float) -> float:
        run(converter, np.tile(far, round(10 * seconds)))
        assert voice.heard is not None
        return float(voice.heard[-15:].mean())

    run(converter, tone(1.0))
    soon, later, late = heard_after(2.0), heard_after(5.0), heard_after(10.0)

    assert soon == pytest.approx(-26 + 2 * 2, abs=1.5)
    assert later == pytest.approx(-26 + 2 * 7, abs=1.5)
    assert late == pytest.approx(0.0, abs=0.5)


def test_who_becomes_louder_is_at_their_level_at_once_and_a_stream_that_begins_anew_remembers_nobody() -> None:
    voice = Listener()
    converter = stream(voice)
    run(converter, 0.05 * tone(2.0))

    run(converter, tone(1.0))
    assert voice.heard is not None
    louder = float(voice.heard[-15:].mean())
    converter.reset()
    run(converter, 0.05 * tone(1.0))

    assert louder == pytest.approx(0.0, abs=0.5)
    assert float(voice.heard[-15:].mean()) == pytest.approx(0.0, abs=0.5)
