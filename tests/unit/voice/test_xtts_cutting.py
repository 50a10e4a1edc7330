"""Is a long recording cut where nothing is said, so that each part has exactly its words?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.audio.decode import decode
from libs.audio.resample import resample
from libs.common.providers import PROVIDERS
from libs.voice.phones import word_times
from libs.voice.xtts.cutting import (
    LANGUAGES,
    LONGEST,
    LONGEST_RECORDING,
    RATE,
    SHORTEST,
    CannotCut,
    Wave,
    cut,
    cut_file,
)
from scripts.processes import find_program
from scripts.speech import speak

SENTENCES = (
    "The old sailor watched the yellow bicycle before the thunder began.",
    "My younger sister painted a jar of cherries, and then laughed about it.",
    "A tired postman quietly followed the mayor of the town during the long journey home.",
    "Nobody in the village believed the forty-two biologists.",
    "Our new neighbour described the broken church bell just after sunrise.",
    "The woodcutter's daughter would gladly exchange six heavy boxes.",
)


def sentence_waves(texts: Sequence[str], folder: Path) -> list[Wave]:
    """Each sentence said by espeak-ng, 16 kHz."""
    if find_program("espeak-ng") is None:
        pytest.skip("espeak-ng is not here: run scripts/install")
    found = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.wav"
        speak(text, "en-us", path)
        sound = decode(path)
        found.append(resample(sound.wave, sound.sample_rate, RATE))
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Wave, str, list[float]]:
    """Half a minute of sentences with pauses, their text, and the middle of each pause in seconds."""
    waves = sentence_waves(SENTENCES, tmp_path_factory.mktemp("told"))
    pause = np.zeros(RATE // 2, np.float32)
    whole = np.concatenate([part for wave in waves for part in (wave, pause)][:-1])
    ends = np.cumsum([len(wave) + len(pause) for wave in waves])[:-1]
    return whole, " ".join(SENTENCES), [float(end / RATE - 0.25) for end in ends]


def test_a_recording_is_cut_between_sentences_and_each_part_has_its_words(told: tuple[Wave, str, list[float]]) -> None:
    wave, text, pauses = told

    parts = cut(wave, text, "en")

    assert " ".join(part.text for part in parts) == text
    assert all(SHORTEST <= part.end - part.begin <= LONGEST for part in parts)
    assert parts[0].begin == 0
    assert parts[-1].end == pytest.approx(len(wave) / RATE)
    assert all(first.end == second.begin for first, second in itertools.pairwise(parts))
    for part in parts[:-1]:
        sentence = next(number for number in range(len(SENTENCES)) if part.text.endswith(SENTENCES[number]))
        assert part.end == pytest.approx(pauses[sentence], abs=0.3)


def test_people_are_cut_where_they_pause(voice_corpus: Path) -> None:
    rows = [line.split("|") for line in (voice_corpus / "ljspeech/metadata.csv").read_text().splitlines()]
    sounds = [decode(voice_corpus / f"ljspeech/wavs/{row[0]}.flac") for row in rows]
    wave = np.concatenate([resample(sound.wave, sound.sample_rate, RATE) for sound in sounds])
    text = " ".join(row[-1] for row in rows)

    parts = cut(wave, text, "en")

    assert " ".join(part.text for part in parts) == " ".join(text.split())
    assert all(SHORTEST <= part.end - part.begin <= LONGEST for part in parts)
    speech = np.abs(wave).max()
    for part in parts[:-1]:
        place = round(part.end * RATE)
        assert np.abs(wave[place - 160 : place + 160]).max() < 0.03 * speech
    for (
        part
    ) in parts:  # what is said in a part is its text: it can be aligned by itself, each word where the whole had it
        alone = cut(wave[round(part.begin * RATE) : round(part.end * RATE)], part.text, "en")
        assert " ".join(each.text for each in alone) == part.text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: " ".join(text.split()[::-1]), "not what is said"),
        (lambda text: " ".join(text.split()[12:]), "something that its transcript lacks"),
        (lambda text: " ".join(text.split()[:-12]), "something that its transcript lacks"),
        (lambda text: text.replace("forty-two", "42"), "'42' in its transcript is not written as it is said"),
        (lambda text: text.replace("sailor", "Käpt’n"), "'Käpt’n' in its transcript is not written"),
        (lambda text: "– …", "no words"),
    ],
)
def test_a_text_that_is_not_what_is_said_is_refused_with_the_reason(
    told: tuple[Wave, str, list[float]], change, why: str
) -> None:
    with pytest.raises(CannotCut, match=why):
        cut(told[0], change(told[1]), "en")


def test_what_no_aligner_understands_and_what_is_endless_is_refused() -> None:
    with pytest.raises(CannotCut, match="only recordings in en"):
        cut(np.zeros(20 * RATE, np.float32), "Guten Tag.", "de")
    with pytest.raises(CannotCut, match="600 s at most"):
        cut(np.zeros(int(LONGEST_RECORDING + 1) * RATE, np.float32), "Good day.", "en")


def test_speech_without_a_pause_is_refused_with_the_place(tmp_path: Path) -> None:
    words = [f"{'ab'[n % 2]}{'cde'[n % 3]}" for n in range(60)]
    noise = (0.1 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32)

    def evenly(wave: Wave, heard: Sequence[str]) -> list[tuple[float, float]]:
        return [(n / 3, (n + 1) / 3) for n in range(len(heard))]

    with pytest.raises(CannotCut, match="no pause within 11 s"):
        cut(noise, " ".join(words), "en", evenly)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["one", "two,", "three.", "–", "e'er"]), st.floats(0, 0.6)), min_size=40, max_size=90
    )
)
def test_the_texts_of_the_parts_joined_are_the_text_whatever_the_pauses(said: list[tuple[str, float]]) -> None:
    """Each word is half a second of noise, and then it is silent."""
    random = np.random.default_rng(0)
    pieces, spans, at = [], [], 0.0
    for word, pause in said:
        if word != "–":
            pieces.append(0.1 * random.standard_normal(RATE // 2))
            spans.append((at, at + 0.5))
            at += 0.5
        silent = round(pause * RATE)
        pieces.append(np.zeros(silent))
        at += silent / RATE
    wave = np.concatenate(pieces).astype(np.float32)
    text = " ".join(word for word, _ in said)
    if not spans:
        return

    try:
        parts = cut(wave, text, "en", lambda wave, words: spans[: len(words)])
    except CannotCut:  # there need not be enough pauses
        return

    assert " ".join(part.text for part in parts) == text
    for part in parts[:-1]:
        assert not wave[round((part.end - 0.05) * RATE) : round((part.end + 0.05) * RATE)].any()


def test_the_parts_of_a_file_are_written_by_their_content(told: tuple[Wave, str, list[float]], tmp_path: Path) -> None:
    from libs.audio.encode import write_wav

    write_wav(tmp_path / "whole.wav", told[0], RATE)

    written = cut_file(tmp_path / "whole.wav", told[1], "en", tmp_path / "parts")
    again = cut_file(tmp_path / "whole.wav", told[1], "en", tmp_path / "parts")

    assert written == again
    assert {path.stem for path in (tmp_path / "parts").iterdir()} == {checksum for _, checksum, _ in written}
    assert sum(seconds for _, _, seconds in written) == pytest.approx(len(told[0]) / RATE, abs=0.01)


def test_a_word_without_letters_is_no_word_to_the_aligner() -> None:
    with pytest.raises(ValueError, match="no word in English letters"):
        word_times(np.zeros(RATE, np.float32), ["42"])


def test_what_people_are_told_of_cutting_is_what_is_cut() -> None:
    needs = PROVIDERS["xtts"].needs

    assert (needs.cut_languages, needs.cut_seconds) == (LANGUAGES, LONGEST_RECORDING)
