"""Is the demo's speech what it says, and is its report honest?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from libs.audio.encode import write_wav
from libs.voice.evaluation import compare_pitch, phone_agreement, sound_of
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.pitch import Pitch
from scripts import report, speech


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    speech.speak(" ".join(speech.sentences(5, 2)), "en-us+f3", folder / "high.wav", pitch=60)
    speech.speak(" ".join(speech.sentences(5, 2)), "en-us+m3", folder / "low.wav", pitch=30)
    return folder


def test_sentences_are_varied_and_the_same_for_the_same_seed():
    assert speech.sentences(1, 64) == speech.sentences(1, 64)
    assert len(set(speech.sentences(1, 64))) == 64
    assert set(speech.sentences(1, 64)) & set(speech.sentences(2, 3)) == set()


def test_a_folder_of_yours_is_used_and_one_clip_is_kept_apart(tmp_path):
    for number in range(4):
        write_wav(tmp_path / f"{number}.wav", np.zeros(1600 * (number + 1), np.float32), 16000)

    chosen = speech.choose(tmp_path / "root", tmp_path, environment={})

    assert len(chosen.recordings) == 3
    assert chosen.control not in chosen.recordings
    assert chosen.source.parent == tmp_path / "root" / "speech"
    assert str(tmp_path) in chosen.described


def test_a_corpus_gives_the_voice_when_no_folder_is_named_and_the_source_in_any_case(tmp_path):
    corpus, mine = tmp_path / "corpus", tmp_path / "mine"
    for folder in (corpus / "ljspeech", corpus / "librispeech" / "84", mine):
        folder.mkdir(parents=True)
        for number in range(3):
            write_wav(folder / f"{number}.wav", np.zeros(1600 * (number + 1), np.float32), 16000)
    environment = {"VOICE_CORPUS": str(corpus)}

    of_corpus = speech.choose(tmp_path / "root", environment=environment)
    of_mine = speech.choose(tmp_path / "root", mine, environment=environment)

    assert {path.parent for path in of_corpus.recordings} == {corpus / "ljspeech"}
    assert {path.parent for path in of_mine.recordings} == {mine}
    assert of_corpus.source == of_mine.source == corpus / "librispeech" / "84" / "1.wav"


def test_a_folder_with_too_little_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="holds 0 sound files; 2 are needed"):
        speech.choose(tmp_path / "root", tmp_path, environment={})


def test_the_fingerprint_follows_the_content(tmp_path):
    def of(content: bytes) -> str:
        (tmp_path / "a.wav").write_bytes(content)
        return speech.Speech("", (tmp_path / "a.wav",), tmp_path, tmp_path, "x").fingerprint

    assert of(b"one") == of(b"one")
    assert of(b"one") != of(b"two")


def test_the_shift_brings_one_voice_to_the_height_of_another(spoken):
    up = report.best_shift(spoken / "low.wav", [spoken / "high.wav"])

    assert up > 3
    assert report.best_shift(spoken / "high.wav", [spoken / "low.wav"]) == pytest.approx(-up, abs=1)
    assert report.best_shift(spoken / "low.wav", [spoken / "low.wav"]) == 0


def test_copy_synthesis_keeps_pitch_and_phones(spoken):
    wave = report.read(spoken / "low.wav")
    pitch = Pitch()
    f0 = pitch.f0(wave)

    made = report.copy_synthesis(wave, f0, LiteSynthesizer(LiteConfig()))

    agreement = compare_pitch(f0, pitch.f0(made))
    assert agreement.correlation is not None
    assert agreement.correlation > 0.9
    assert (phone_agreement(wave, made) or 0) > 0.4
    assert sound_of(made).level_db == pytest.approx(sound_of(wave).level_db, abs=6)


@pytest.mark.parametrize("who", ["low", "high"])
def test_copy_synthesis_is_as_loud_as_its_source_and_below_full_scale(spoken, who):
    wave = report.read(spoken / f"{who}.wav")
    wave = (0.99 * wave / np.abs(wave).max()).astype(np.float32)

    made = report.copy_synthesis(wave, Pitch().f0(wave), LiteSynthesizer(LiteConfig()))

    assert np.abs(made).max() <= 1.0
    assert sound_of(made).level_db < sound_of(wave).level_db + 1

    quieter = report.copy_synthesis(wave / 8, Pitch().f0(wave / 8), LiteSynthesizer(LiteConfig()))

    assert sound_of(quieter).level_db == pytest.approx(sound_of(wave / 8).level_db, abs=3)


def test_silence_through_copy_synthesis_stays_silent():
    silence = np.zeros(16000, np.float32)

    made = report.copy_synthesis(silence, np.zeros(101, np.float32), LiteSynthesizer(LiteConfig()))

    assert np.abs(made).max() < 1e-3


def test_the_picture_and_the_numbers_are_written_whole(tmp_path, spoken):
    wave = report.read(spoken / "low.wav")
    found = report.Measured(waves={"source": wave, "converted": wave}, f0={"source": np.full(100, 120.0)})

    report.draw(tmp_path / "report.png", found, [(1, 5.0), (2, 4.0)], "a title")
    report.draw(tmp_path / "empty.png", found, [], "no losses")
    report.write_json(tmp_path / "report.json", {"ü": 1})

    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "report.json").read_text()) == {"ü": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.png", "report.json", "report.png"]
