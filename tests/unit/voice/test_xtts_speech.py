"""Which clips can XTTS learn from, and is every refusal one that helps? Without the library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import InvalidInput, ModelFileRefused, NotFound
from libs.voice.xtts.base import BaseModel
from libs.voice.xtts.config import FineTuning
from libs.voice.xtts.exporting import without_paths
from libs.voice.xtts.speech import LONGEST_SECONDS, MOST_TOKENS, Clip, look, split, written
from libs.voice.xtts.vocabulary import Vocabulary, read_vocabulary
from tests.xtts_tiny import LANGUAGES, write_vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
    write_vocabulary(path)
    return read_vocabulary(path)


def clip(text: str, seconds: float | None = 3.0, number: int = 1) -> Clip:
    return Clip(f"smp_{number}", f"{number:064x}", f"{number}.wav", text, seconds)


def codes(clips: list[Clip], vocabulary: Vocabulary | None, language: str = "en") -> list[str]:
    return [refusal.code for refusal in look(clips, language, vocabulary).refused]


def test_a_text_is_written_in_the_tokens_of_the_vocabulary(vocabulary: Vocabulary) -> None:
    assert vocabulary.tokens("the other, and in.") == [
        "the", "[SPACE]", "o", "the", "r", ",", "[SPACE]", "an" + "d", "[SPACE]", "in", ".",
    ]  # fmt: skip
    assert vocabulary.count("the") == 3
    assert vocabulary.languages == set(LANGUAGES)
    assert vocabulary.unknown("a ñ 愛 b 愛") == ["愛"]


@pytest.mark.parametrize(
    ("text", "seconds", "code"),
    [
        ("A usual sentence, and no more.", 2.5, None),
        ("It cost 12 €, or $3.", 2.5, None),
        ("“Quoted” – and dashed…", 2.5, None),
        ("A usual sentence.", None, "unreadable"),
        ("  \n ", 2.0, "no_transcript"),
        ("?! …", 2.0, "no_words"),
        ("Yes.", 0.4, "too_short"),
        ("A usual sentence. " * 9, LONGEST_SECONDS + 0.01, "too_long"),
        ("A usual sentence that is long enough.", 11.6, None),
        ("Far too much is said here for a second of sound.", 1.0, "pace"),
        ("Hm.", 9.0, "pace"),
        ("I love 愛 and 🎙.", 2.0, "unknown_characters"),
        ("w" * (MOST_TOKENS + 1), 9.0, "text_too_long"),
    ],
)
def test_what_the_library_would_drop_in_silence_is_refused_with_a_reason(
    vocabulary: Vocabulary, text: str, seconds: float | None, code: str | None
) -> None:
    looked = look([clip(text, seconds)], "en", vocabulary)

    assert [refusal.code for refusal in looked.refused] == ([code] if code else [])
    assert len(looked.usable) == (0 if code else 1)
    assert all(refusal.name == "1.wav" and len(refusal.reason) > 10 for refusal in looked.refused)


def test_one_bad_clip_of_many_is_left_out_and_the_others_stay(vocabulary: Vocabulary) -> None:
    clips = [clip(f"Sentence number, {'a' * (n % 7)} and so on.", 3.0, n) for n in range(100)]
    clips[41] = clip("", 3.0, 41)

    looked = look(clips, "en", vocabulary)

    assert [refusal.sample_id for refusal in looked.refused] == ["smp_41"]
    assert [c.sample_id for c, _ in looked.usable] == [c.sample_id for c in clips if c.sample_id != "smp_41"]
    assert looked.seconds == pytest.approx(99 * 3.0)


def test_languages_that_are_transliterated_are_left_to_the_library(vocabulary: Vocabulary) -> None:
    assert codes([clip("你好世界", 1.5)], vocabulary, "zh-cn") == []
    assert codes([clip("你好世界", 0.5)], vocabulary, "zh-cn") == []
    assert codes([clip("你好世界" * 9, 1.0)], vocabulary, "zh-cn") == ["pace"]


def test_without_a_vocabulary_length_and_pace_are_looked_at_all_the_same() -> None:
    assert codes([clip("I love 愛.", 2.0), clip("x", 20.0, 2)], None) == ["too_long"]


@given(st.text())
def test_writing_a_text_twice_is_writing_it_once(text: str) -> None:
    assert written(written(text)) == written(text)


@given(st.integers(2, 60), st.floats(0, 0.5), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_a_split_has_both_sides_and_does_not_depend_on_the_order(number: int, share: float, seed: int, random) -> None:
    clips = [clip("x", 1.0, n) for n in range(number)]
    learnt, held = split(clips, share, seed)
    mixed = random.sample(clips, number)

    assert learnt
    assert held
    assert {c.sha256 for c in learnt + held} == {c.sha256 for c in clips}
    assert len(learnt) + len(held) == number
    assert split(mixed, share, seed) == (learnt, held)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({"model": {"vocab": {"[STOP]": 0}, "merges": []}}).encode(),
        json.dumps({"model": {"vocab": {"[STOP]": 1, "[UNK]": 0, "[SPACE]": 2}, "merges": []}}).encode(),
        json.dumps({"model": {"vocab": {"[STOP]": 0, "[UNK]": 1, "[SPACE]": 2}, "merges": ["a"]}}).encode(),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocab.json"
    path.write_bytes(content)

    with pytest.raises(ModelFileRefused):
        read_vocabulary(path)


def test_what_is_missing_of_the_base_model_is_named(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocab.json")

    assert BaseModel(tmp_path).missing() == ["config.json", "model.pth", "dvae.pth", "mel_stats.pth"]
    with pytest.raises(NotFound, match="XTTS_PATH"):
        read_vocabulary(tmp_path / "nowhere" / "vocab.json")


def test_the_settings_of_a_voice_name_no_place_of_the_machine_that_trained() -> None:
    settings = {"path": "/srv/anna/x", "args": [{"url": "https://example.org/m.pth", "n": 3}], "home": "~/x", "a": "b"}

    assert without_paths(settings) == {"path": "", "args": [{"url": "", "n": 3}], "home": "", "a": "b"}


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_fine_tune_takes_the_documents_defaults_when_nothing_is_asked(device: str) -> None:
    config = FineTuning(language="en").on(device)

    assert config.epochs == 100
    assert (config.batch_size or 0) * (config.accumulation or 0) == 16
    assert (config.validation_split, config.early_stopping_patience) == (0.2, 10)
    assert config.time_limit_seconds == 7200
    assert FineTuning.from_dict(config.as_dict()) == config


@pytest.mark.parametrize("field", ["epochs", "batch_size", "validation_split", "learning_rate", "made_up"])
def test_a_value_that_no_fine_tune_can_have_is_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FineTuning.from_dict({"language": "en", field: 10_000})

    assert caught.value.field == field


def test_a_batch_that_was_asked_for_is_a_whole_step() -> None:
    config = FineTuning(language="en", batch_size=4).on("cpu")

    assert (config.batch_size, config.accumulation) == (4, 1)
