"""What of a text is said, and in which pieces? Nothing that could be said is lost; the rest is refused or counted.

A piece is a sentence, or several short ones: long enough not to babble, short enough for the network. The limits are
those that XTTS's tokenizer gives for each language.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from libs.common.errors import InvalidInput
from libs.voice.xtts.speech import TRANSLITERATED, plain
from libs.voice.xtts.vocabulary import Vocabulary

# fmt: off
LIMITS = {
    "en": 250, "de": 253, "fr": 273, "es": 239, "it": 213, "pt": 203, "pl": 224, "zh-cn": 82, "ar": 166, "cs": 186,
    "ru": 182, "nl": 251, "tr": 226, "ja": 71, "hu": 224, "ko": 95, "hi": 150,
}
# fmt: on
SHORT = 24
"""Characters below which a sentence goes with its neighbour, because alone the network often goes on babbling."""
WRITTEN_OUT = frozenset("&@%#$£€°")
"""Signs that the library turns into words before it makes tokens."""
_FULL_STOP = r"[.!?…]+[\"'”’»)\]]*\s"
_WIDE_STOP = r"[。！？।؟]+[」』”’»)\]]*\s?"
_SENTENCE = re.compile(rf"{_FULL_STOP}|{_WIDE_STOP}|\n")
_CLAUSE = re.compile(r"[,;:—–،、，；：]+\s?")
_SPACE = re.compile(r"\s")
_ABBREVIATED = re.compile(r"(?:^|\W)(?:[A-ZÀ-Þ]\w{0,2}|\w)\.\s$")


@dataclass(frozen=True)
class Sayable:
    """A text that can be said whole: NFC, single spaces and line breaks. `left_out`: signs that were dropped."""

    text: str
    left_out: int = 0


def sayable(text: str, language: str, vocabulary: Vocabulary | None, *, longest: int) -> Sayable:
    """`text` as the voice says it. Emoji, format controls and other signs without a token are left out and counted.

    A letter or number without a token is refused: words would be missing. Languages that are written in other letters
    before they are said, and voices whose vocabulary is not known, keep all letters. Raises InvalidInput for
    a text that is empty, longer than `longest` characters, or without a word.
    """
    if not text.strip():
        raise InvalidInput("the text is empty", field="text", actions=("Send the words to say.",))
    if len(text) > longest:
        raise InvalidInput(
            f"the text has {len(text)} characters; {longest} are possible in one request",
            field="text",
            actions=("Send it in several requests, or as the texts of a job: POST /api/v1/synthesize/jobs.",),
            limit=longest,
        )
    known = None if vocabulary is None or language in TRANSLITERATED else vocabulary
    kept: list[str] = []
    left_out, unknown = 0, dict[str, None]()
    for letter in plain(text):
        said = _said(letter, known)
        if said is None:
            unknown[letter] = None
        elif said:
            kept.append(said)
        else:
            left_out += 1
    if unknown:
        named = " ".join(f"{letter} (U+{ord(letter):04X})" for letter in list(unknown)[:5])
        raise InvalidInput(
            f"the voice cannot say {named} in {language}",
            field="text",
            actions=("Write these in letters of the language, or choose the language of the text.",),
        )
    whole = _single_spaces("".join(kept))
    if not any(letter.isalnum() for letter in whole):
        raise InvalidInput("the text has no word that could be said", field="text", actions=("Send words.",))
    return Sayable(whole, left_out)


def _said(letter: str, vocabulary: Vocabulary | None) -> str | None:
    """How a character is said; "" when it is left out, None when something would be missing."""
    if letter.isspace():
        return letter
    kind = unicodedata.category(letter)
    if "\ufe00" <= letter <= "\ufe0f":  # they choose how the sign before them is drawn
        return ""
    if kind == "Nd":
        return str(unicodedata.digit(letter))
    is_drawn = kind[0] == "C" or (kind == "So" and vocabulary is None)
    if letter in WRITTEN_OUT or (not is_drawn and _has_token(letter, vocabulary)):
        return letter
    usual = unicodedata.normalize("NFKC", letter)
    if usual != letter and all(each.isdigit() or _has_token(each, vocabulary) for each in usual):
        return usual
    return "" if kind[0] in "CMPSZ" and kind != "Sc" else None


def _has_token(letter: str, vocabulary: Vocabulary | None) -> bool:
    return vocabulary is None or letter == "İ" or all(each in vocabulary.numbers for each in letter.lower())


def _single_spaces(text: str) -> str:
    return re.sub(r"\s+", lambda run: "\n" if "\n" in run.group() else " ", text.strip())


def pieces(text: str, limit: int) -> list[str]:
    """`text` in pieces of at most `limit` characters which, joined, are `text`.

    A piece ends with a sentence where it can, otherwise with a clause, otherwise with a word; a run of `limit`
    characters without any of these is cut between characters, never before a combining mark.
    """
    found: list[str] = []
    begin = 0
    while begin < len(text):
        end = begin + _cut(text[begin : begin + limit + SHORT], len(text) - begin, limit)
        found.append(text[begin:end])
        begin = end
    return found


def _cut(ahead: str, left: int, limit: int) -> int:
    """Where the next piece ends. `ahead`: the next characters of `left`, `limit` and some more of them."""
    window, short = ahead[:limit], min(SHORT, limit // 4)
    for match in _SENTENCE.finditer(window):
        end = match.end()
        if end < short or _ABBREVIATED.search(window[:end]):
            continue
        # a short rest goes along
        return left if left <= limit and left - end < short else end
    if left <= limit:
        return left
    ends = [[match.end() for match in pattern.finditer(window)] for pattern in (_SENTENCE, _CLAUSE, _SPACE)]
    for found, least in zip(ends, (1, limit // 4, 1), strict=True):
        if found and found[-1] >= least:
            return found[-1]
    end = limit
    while end > 1 and unicodedata.category(ahead[end])[0] == "M":
        end -= 1
    return end if end > 1 else limit
