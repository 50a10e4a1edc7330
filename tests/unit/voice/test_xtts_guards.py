"""Are the known failures of XTTS heard, and is nothing else taken for one?"""

from __future__ import annotations

import numpy as np
import pytest

from libs.voice.xtts import guards
from libs.voice.xtts.guards import RATE, Wave

TEXT = "The quick brown fox jumps over the lazy dog, and it does so every day."  # about 4.7 s at the usual pace


def noise(seconds: float, level: float = 0.1) -> Wave:
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def silence(seconds: float) -> Wave:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def fault(wave: Wave, text: str = TEXT, speed: float = 1.0, has_ended: bool = True) -> str | None:
    return guards.fault(wave, text, "en", speed, has_ended=has_ended)


def test_speech_of_a_usual_length_passes_also_when_it_is_slow_or_fast() -> None:
    assert fault(noise(4.7)) is None
    assert fault(noise(10.0)) is None
    assert fault(noise(2.0)) is None
    assert fault(noise(9.4), speed=0.5) is None
    assert fault(noise(2.35), speed=2.0) is None
    assert fault(noise(0.4), "Yes.") is None


@pytest.mark.parametrize(
    ("wave", "why"),
    [
        (silence(0), "no sound"),
        (silence(4.7), "silence"),
        (noise(4.7, 1e-5), "silence"),
        (noise(30.0), "did not end"),
        (noise(0.8), "missing"),
        (np.full(100_000, np.nan, dtype=np.float32), "no numbers"),
    ],
    ids=["empty", "silent", "very soft", "endless", "cut short", "no numbers"],
)
def test_each_failure_is_named(wave: Wave, why: str) -> None:
    assert why in (fault(wave) or "")


def test_a_sound_that_reached_its_limit_did_not_end_however_long_it_is() -> None:
    assert "did not end" in (fault(noise(4.7), has_ended=False) or "")


def test_numbers_may_take_longer_than_their_digits() -> None:
    assert fault(noise(5.0), "1998347") is None
    assert "did not end" in (fault(noise(5.0), "abcdefg") or "")


def test_what_follows_a_long_pause_after_the_text_is_cut_off() -> None:
    spoken = noise(8.0)  # slow, and already half as long again as usual
    babbling = np.concatenate([spoken, silence(0.7), noise(2.0)])

    assert len(guards.without_babble(babbling, TEXT, "en", 1.0)) == len(spoken)


def test_pauses_within_the_text_are_the_speakers_own() -> None:
    slow = np.concatenate([noise(3.0), silence(0.9), noise(3.0)])
    short = np.concatenate([noise(8.0), silence(0.4), noise(0.5)])

    assert len(guards.without_babble(slow, TEXT, "en", 1.0)) == len(slow)
    assert len(guards.without_babble(short, TEXT, "en", 1.0)) == len(short)


def test_silence_at_the_ends_is_cut_and_a_whole_of_it_is_nothing() -> None:
    trimmed = guards.without_edges(np.concatenate([silence(1.0), noise(1.0), silence(2.0)]))

    assert len(trimmed) / RATE == pytest.approx(1.0 + 2 * guards.EDGE_SECONDS, abs=0.011)
    assert len(guards.without_edges(silence(1.0))) == 0


def test_pauses_between_pieces_follow_how_they_end() -> None:
    lengths = [guards.pause_after(text) for text in ("End.\n", 'He said "no." ', "first, ", "cut")]

    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 0
    assert guards.pause_after("你好。") == guards.pause_after("Hello. ")
