"""Is every word of a text said, in pieces that the network takes?"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidInput
from libs.voice.xtts.text import LIMITS, SHORT, pieces, sayable
from libs.voice.xtts.vocabulary import Vocabulary, read_vocabulary
from tests.xtts_tiny import write_vocabulary

STORY = (
    "Printing, in the only sense with which we are at present concerned, differs from most arts. Yes. "
    "Mr. Smith paid 3.50 for it, and Dr. J. Brown did not! Why?\n\nNobody knows; it was long ago, and far away, "
    "and those who might have told us are dead. The end."
)
WORDS = st.lists(
    st.sampled_from(["Hello", "world.", "3.5", "Mr.", "yes,", "no;", "ہیلو", "你好。", "e\u0301", "!", "\n", "🙂"])
)
TEXTS = st.one_of(st.text(max_size=700), WORDS.map(" ".join))


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
    write_vocabulary(path)
    return read_vocabulary(path)


@settings(deadline=None, max_examples=100)
@given(text=TEXTS, limit=st.sampled_from([1, 2, 7, SHORT, 71, 250]))
def test_the_pieces_joined_are_the_text_and_none_is_longer_than_its_limit(text: str, limit: int) -> None:
    found = pieces(text, limit)

    assert "".join(found) == text
    assert all(0 < len(piece) <= limit for piece in found)


@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_what_can_be_said_holds_every_letter_of_the_text_in_its_order(text: str) -> None:
    try:
        said = sayable(text, "ja", None, longest=1000)
    except InvalidInput:
        return

    letters = iter(said.text)
    kept = [letter for letter in unicodedata.normalize("NFC", text) if letter.isalpha()]
    assert all(letter in letters for letter in kept)  # one after the other
    assert len(said.text) <= len(unicodedata.normalize("NFC", text)) + 2 * text.count("…")


def test_sentences_stay_whole_and_short_ones_go_with_a_neighbour() -> None:
    found = pieces(sayable(STORY, "en", None, longest=5000).text, LIMITS["en"])

    assert [piece.strip() for piece in found] == [
        "Printing, in the only sense with which we are at present concerned, differs from most arts.",
        "Yes. Mr. Smith paid 3.50 for it, and Dr. J. Brown did not!",
        "Why?\nNobody knows; it was long ago, and far away, and those who might have told us are dead. The end.",
    ]


def test_a_sentence_that_is_too_long_is_cut_at_clauses_then_at_words_then_anywhere() -> None:
    assert pieces("one two three four, five six seven eight nine ten", 30) == [
        "one two three four, ",
        "five six seven eight nine ten",
    ]
    assert pieces("one two three four five six seven", 20) == ["one two three four ", "five six seven"]
    assert pieces("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    marked = "e\u0323" * 20  # letters with marks below that have no composed form of two
    assert all(not unicodedata.combining(piece[0]) for piece in pieces(marked, 9))


def test_chinese_japanese_and_arabic_sentences_end_with_their_own_signs() -> None:
    chinese = "今天天气很好我们一起去公园散步吧听说那里的花都开了。明天可能会下雨所以今天就去吧不要再等了。"
    arabic = "هل تعرف أين يقع هذا المكان القديم؟ نعم، إنه يقع في وسط المدينة القديمة قرب السوق الكبير."

    assert len(pieces(chinese, LIMITS["zh-cn"])) == 2
    assert pieces(arabic, LIMITS["ar"])[0].strip().endswith("؟")


def test_emoji_and_invisible_signs_are_left_out_and_counted(vocabulary: Vocabulary) -> None:
    said = sayable("Good\u200b morning 🙂\u2764\ufe0f, \u202eall\u202c of “you”!", "en", vocabulary, longest=100)

    assert said.text == "Good morning , all of you!"
    assert said.left_out == 6


def test_styled_and_wide_letters_and_foreign_digits_are_said_as_the_plain_ones(vocabulary: Vocabulary) -> None:
    assert sayable("Ｈｉ ﬁve ٣ 50%", "en", vocabulary, longest=100).text == "Hi five 3 50%"


def test_letters_that_the_voice_does_not_have_are_refused_by_name(vocabulary: Vocabulary) -> None:
    with pytest.raises(InvalidInput) as hebrew:
        sayable("Hello שלום", "en", vocabulary, longest=100)
    with pytest.raises(InvalidInput):
        sayable("half is ½ or ¥5", "en", vocabulary, longest=100)

    assert hebrew.value.field == "text"
    assert "U+05E9" in hebrew.value.detail
    assert (
        sayable("你好", "zh-cn", vocabulary, longest=100).text == "你好"
    )  # written in other letters before it is said


@pytest.mark.parametrize("text", ["", "  \n\t ", "🙂🙂", "... !", "\u200b\u202e"])
def test_a_text_without_a_word_is_refused(text: str, vocabulary: Vocabulary) -> None:
    with pytest.raises(InvalidInput) as refused:
        sayable(text, "en", vocabulary, longest=100)

    assert refused.value.field == "text"


def test_a_hundred_thousand_characters_are_refused_with_the_limit() -> None:
    with pytest.raises(InvalidInput) as refused:
        sayable("word " * 20_000, "en", None, longest=5000)

    assert "100000 characters; 5000" in refused.value.detail
    assert refused.value.extra == {"limit": 5000}


def test_every_language_of_xtts_has_a_limit() -> None:
    from libs.common.providers import XTTS_LANGUAGES

    assert set(LIMITS) == set(XTTS_LANGUAGES)
    assert all(70 <= limit <= 300 for limit in LIMITS.values())


def test_text_that_runs_from_right_to_left_keeps_its_order_and_loses_only_what_steers_the_drawing() -> None:
    arabic = "مرحبا بكم، كيف حالكم اليوم؟ أنا بخير، شكرا."
    known = Vocabulary({letter: number for number, letter in enumerate(dict.fromkeys(arabic))}, {})
    drawn = "\u202b" + arabic.replace(" ", " \u200f") + "\u202c"

    said = sayable(drawn + " 🙂", "ar", known, longest=1000)

    assert said.text == arabic
    assert said.left_out == 3 + arabic.count(" ")
    assert "".join(pieces(said.text, LIMITS["ar"])) == arabic
    assert len(pieces(said.text * 10, 40)) > 5
