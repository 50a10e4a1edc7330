"""The measures, on sounds whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from libs.common.errors import InvalidInput, Unavailable
from libs.voice import likeness, phones
from libs.voice.evaluation import compare_pitch, measure, phone_agreement, sound_of
from libs.voice.likeness import NeuralEmbedding, StatisticalEmbedding, best_embedding, similarity
from libs.voice.phones import PHONES, frame_phones
from libs.voice.pitch import Pitch
from tests.absent import absent
from tests.factories_audio import speech

Wave = NDArray[np.float32]


@pytest.fixture(scope="module")
def woman() -> Wave:
    return speech(5.0, "en-us+f3", rate=16_000)


@pytest.fixture(scope="module")
def man() -> Wave:
    return speech(5.0, "en-us+m3", rate=16_000)


@pytest.fixture
def without_the_extra() -> Iterator[None]:
    """As if Resemblyzer and PocketSphinx were not installed."""
    likeness._resemblyzer.cache_clear()
    phones._decoder.cache_clear()
    with absent("resemblyzer", "pocketsphinx"):
        yield
    likeness._resemblyzer.cache_clear()
    phones._decoder.cache_clear()


@pytest.mark.parametrize("embedding", [NeuralEmbedding(), StatisticalEmbedding()], ids=lambda e: e.name)
def test_one_voice_is_more_like_itself_than_like_another(embedding: likeness.SpeakerEmbedding, man: Wave) -> None:
    again, other = speech(5.0, "en-us+m3", seed=4, rate=16_000), speech(5.0, "en-us+f3", seed=4, rate=16_000)

    assert similarity(man, again, embedding) > similarity(man, other, embedding) + 0.02


def test_the_embeddings_are_told_apart_by_name() -> None:
    assert NeuralEmbedding().name != StatisticalEmbedding().name


def test_without_the_extra_the_neural_embedding_names_it_and_the_statistical_one_serves(
    without_the_extra: None, man: Wave
) -> None:
    with pytest.raises(Unavailable, match="`quality`"):
        NeuralEmbedding().embed(man)

    assert best_embedding().name == StatisticalEmbedding.name
    assert np.linalg.norm(best_embedding().embed(man)) == pytest.approx(1.0, abs=1e-5)


def test_without_the_extra_phones_name_it(without_the_extra: None, man: Wave) -> None:
    with pytest.raises(Unavailable, match="`quality`"):
        frame_phones(man)


def test_pitch_that_is_shifted_as_asked_agrees_fully() -> None:
    f0 = 200 * 2 ** (np.sin(np.arange(300) / 20) / 3)
    f0[100:150] = 0

    agreement = compare_pitch(f0, f0 * 2 ** (5 / 12), shift=5)

    assert agreement.correlation == pytest.approx(1.0)
    assert agreement.rmse_cents == pytest.approx(0.0, abs=1e-6)
    assert agreement.offset_cents == pytest.approx(500.0)
    assert agreement.voicing_error == 0.0
    assert agreement.voiced_ratio == pytest.approx(250 / 300)


def test_a_pitch_that_is_a_semitone_off_has_an_error_of_a_hundred_cents() -> None:
    f0 = np.linspace(100, 200, 100)

    assert compare_pitch(f0, f0 * 2 ** (1 / 12)).rmse_cents == pytest.approx(100.0)


def test_unrelated_pitch_does_not_correlate() -> None:
    rng = np.random.default_rng(0)

    agreement = compare_pitch(rng.uniform(100, 200, 2000), rng.uniform(100, 200, 2000))

    assert agreement.correlation is not None
    assert abs(agreement.correlation) < 0.1


def test_where_nothing_is_voiced_there_is_no_correlation() -> None:
    agreement = compare_pitch(np.full(100, 150.0), np.zeros(100))

    assert (agreement.correlation, agreement.rmse_cents) == (None, None)
    assert agreement.voicing_error == 1.0


def test_no_frames_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="10 ms"):
        compare_pitch(np.zeros(0), np.zeros(5))


def test_the_judge_names_a_phone_for_every_frame_and_answers_the_same_whatever_it_heard_before(
    man: Wave, woman: Wave
) -> None:
    first = frame_phones(man)
    frame_phones(woman)
    again = frame_phones(man)

    assert first.shape == (len(man) // 160,)
    assert int(first.max()) < len(PHONES) == 42
    np.testing.assert_array_equal(first, again)


def test_speech_agrees_with_itself_and_not_with_other_words(man: Wave) -> None:
    other = speech(5.0, "en-us+m3", seed=4, rate=16_000)

    itself, words = phone_agreement(man, man), phone_agreement(man, other)

    assert itself == 1.0
    assert words is not None
    assert words < 0.3


def test_silence_has_no_phones_to_agree_on(man: Wave) -> None:
    assert phone_agreement(np.zeros(16_000, np.float32), man[:16_000]) is None


def test_silence_and_broken_samples_are_seen() -> None:
    silence, broken = sound_of(np.zeros(1600, np.float32)), sound_of(np.array([0.5, np.nan, -0.5], np.float32))

    assert silence.is_silent
    assert silence.is_finite
    assert not broken.is_finite
    assert broken.peak == 0.5
    assert sound_of(np.zeros(0, np.float32)).is_silent


def test_the_level_of_speech_does_not_count_pauses() -> None:
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)).astype(np.float32)

    with_pause = np.concatenate((tone, np.zeros(32_000, np.float32)))

    assert sound_of(tone).level_db == pytest.approx(-23.0, abs=0.1)
    assert sound_of(with_pause).level_db == pytest.approx(sound_of(tone).level_db, abs=0.1)


def test_a_source_measured_against_itself_is_its_own_best_result(man: Wave, woman: Wave) -> None:
    row = measure(man, man, woman, Pitch().f0)

    assert row["similarity_source"] == pytest.approx(1.0, abs=1e-3)
    assert isinstance(row["similarity_target"], float)
    assert row["similarity_target"] < 0.95
    assert row["f0_correlation"] == pytest.approx(1.0)
    assert row["phone_agreement"] == 1.0
    assert row == measure(man, man, woman, Pitch().f0)


def test_a_silent_result_gets_no_flattering_number(man: Wave, woman: Wave) -> None:
    row = measure(man, np.zeros_like(man), woman, Pitch().f0)

    assert row["is_silent"] is True
    assert row["similarity_target"] is None
    assert row["f0_correlation"] is None
