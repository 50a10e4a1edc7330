"""DNSMOS, on sounds whose order is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from libs.common.errors import InvalidInput, Unavailable
from libs.voice import opinion as door
from libs.voice.evaluation import measure
from libs.voice.likeness import StatisticalEmbedding
from libs.voice.opinion import opinion, opinions_are_available
from libs.voice.pitch import Pitch
from tests.absent import absent
from tests.factories_audio import speech

Wave = NDArray[np.float32]


@pytest.fixture(scope="module")
def spoken() -> Wave:
    return speech(9.1, "en-us+f3", rate=16_000)  # one window of the network


@pytest.fixture
def without_the_extra() -> Iterator[None]:
    """As if speechmos were not installed."""
    door._judge.cache_clear()
    with absent("speechmos", "speechmos.dnsmos"):
        yield
    door._judge.cache_clear()


def in_noise(wave: Wave, decibels: float) -> Wave:
    """White noise that is so much quieter than `wave`."""
    noise = np.random.default_rng(5).standard_normal(len(wave))
    level = float(np.sqrt(np.square(wave).mean())) / 10 ** (decibels / 20)
    return (wave + level * noise).astype(np.float32)


def test_the_more_noise_the_lower_the_opinion(spoken: Wave) -> None:
    clean, *noisy = [opinion(spoken), *(opinion(in_noise(spoken, decibels)) for decibels in (30, 15, 0))]

    assert clean.overall > noisy[0].overall > noisy[1].overall > noisy[2].overall
    assert clean.background > noisy[2].background + 1.0
    assert all(0.9 < each.overall < 5.0 for each in (clean, *noisy))


@pytest.mark.parametrize("length", [20_000, 160_159, 300_000])
def test_the_opinion_is_the_one_that_the_package_gives(spoken: Wave, length: int) -> None:
    from speechmos import dnsmos

    sound = in_noise(np.resize(spoken, length), 15)

    ours, theirs = opinion(sound), dnsmos.run(np.clip(sound, -1, 1), 16_000)

    assert ours.overall == pytest.approx(theirs["ovrl_mos"], abs=1e-4)
    assert ours.speech == pytest.approx(theirs["sig_mos"], abs=1e-4)
    assert ours.background == pytest.approx(theirs["bak_mos"], abs=1e-4)


def test_the_same_sound_gets_the_same_opinion_whatever_was_heard_before(spoken: Wave) -> None:
    first = opinion(spoken)
    opinion(in_noise(spoken, 5))

    assert opinion(spoken) == first


def test_a_sound_beyond_full_scale_is_judged_as_it_would_be_played(spoken: Wave) -> None:
    loud = (4 * spoken / np.abs(spoken).max()).astype(np.float32)

    assert opinion(loud) == opinion(np.clip(loud, -1, 1))
    assert opinion(loud).overall < opinion(spoken).overall


@pytest.mark.parametrize("length", [160, 16_000, 200_000])
def test_any_length_from_ten_milliseconds_on_has_an_opinion(spoken: Wave, length: int) -> None:
    assert 0.9 < opinion(np.resize(spoken, length)).overall < 5.0


@pytest.mark.parametrize("broken", [np.zeros(159, np.float32), np.full(16_000, np.nan, np.float32)])
def test_too_little_and_no_numbers_have_none(broken: Wave) -> None:
    with pytest.raises(InvalidInput, match="160 finite"):
        opinion(broken)


def test_without_the_extra_it_is_named(without_the_extra: None, spoken: Wave) -> None:
    assert not opinions_are_available()
    with pytest.raises(Unavailable, match="`quality`"):
        opinion(spoken)
    with pytest.raises(Unavailable, match="speechmos"):
        measure(spoken, spoken, spoken, Pitch().f0, embedding=StatisticalEmbedding(), with_opinion=True)


def test_a_measured_conversion_has_its_opinion_only_when_asked_for_it(spoken: Wave) -> None:
    silence = np.zeros_like(spoken)

    def found(result: Wave, with_opinion: bool) -> object:
        pitch, embedding = Pitch().f0, StatisticalEmbedding()
        return measure(
            spoken, result, spoken, pitch, embedding=embedding, with_phones=False, with_opinion=with_opinion
        )["dnsmos"]

    assert found(spoken, True) == opinion(spoken).overall
    assert found(spoken, False) is None
    assert found(silence, True) is None
