"""Which clips can XTTS learn from, and why not from the others? Everything that its library would drop in silence.

Limits are those of the network: 0.5 s to 255,995 samples at 22,050 Hz, 200 tokens of text. The library expands numbers
and transliterates Chinese, Japanese and Korean before it writes tokens; where that is so, this first look leaves
numbers and letters to the second one, which the library makes when the training begins.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.voice.xtts.vocabulary import Vocabulary

SAMPLE_RATE = 22_050
SHORTEST_SECONDS = 0.5
LONGEST_SECONDS = 255_995 / SAMPLE_RATE
MOST_TOKENS = 200
FEWEST_CLIPS = 2
PARTS = "parts"
"""The folder of what was cut out of long recordings, beside the check."""

# Characters of text in a second of speech, pauses included; beyond, text and sound do not belong together.
PACE = {"zh-cn": (0.8, 10.0), "ja": (1.0, 14.0), "ko": (1.0, 14.0)}
USUAL_PACE = (3.0, 32.0)
TRANSLITERATED = frozenset(PACE)
_ALIKE = {"’": "'", "‘": "'", "…": "...", "–": "-", "—": "-", "\u00a0": " "}
# The library takes double quotation marks away; other forms of them would have no token.
_PLAIN = str.maketrans(_ALIKE | dict.fromkeys('"“”„«»', ""))


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it. `seconds`: of its sound, or None when it cannot be read.

    `wav`: the file of a part that was cut out of a recording; a whole one lies in its dataset's folder.
    """

    sample_id: str
    sha256: str
    name: str
    transcript: str
    seconds: float | None
    wav: Path | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a clip is left out: `code` for programs, `reason` for people."""

    sample_id: str
    name: str
    code: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"sample_id": self.sample_id, "name": self.name, "code": self.code, "reason": self.reason}


@dataclass(frozen=True)
class Looked:
    """The clips that can be learnt from, each with its cleaned text, and the refusals of the others."""

    usable: list[tuple[Clip, str]]
    refused: list[Refusal]

    @property
    def seconds(self) -> float:
        """Of the usable clips."""
        return sum(clip.seconds or 0.0 for clip, _ in self.usable)


def plain(text: str) -> str:
    """A text composed (NFC), with plain dashes and apostrophes, without quotation marks, which are not said."""
    return unicodedata.normalize("NFC", text).translate(_PLAIN)


def written(text: str) -> str:
    """A text as tokens are made of it: `plain`, in lower case, with single spaces."""
    return " ".join(plain(text).replace("İ", "i").lower().split())


def look(clips: Sequence[Clip], language: str, vocabulary: Vocabulary | None) -> Looked:
    """Every clip is usable or refused with the first reason that there is, in the order in which they came.

    Without a vocabulary (the base model is not there yet) the text is not looked at letter by letter. Raises nothing
    for bad clips; a language that XTTS does not have is for the caller to refuse.
    """
    usable: list[tuple[Clip, str]] = []
    refused: list[Refusal] = []
    for clip in clips:
        text = written(clip.transcript)
        found = _fault(clip, text, language, vocabulary)
        if found is None:
            usable.append((clip, text))
        else:
            refused.append(Refusal(clip.sample_id, clip.name, *found))
    return Looked(usable, refused)


def _fault(clip: Clip, text: str, language: str, vocabulary: Vocabulary | None) -> tuple[str, str] | None:
    if clip.seconds is None:
        return "unreadable", "its sound cannot be read"
    if not text:
        return "no_transcript", "it has no transcript"
    if not any(letter.isalnum() for letter in text):
        return "no_words", "its transcript has no letter or number that could be said"
    if clip.seconds < SHORTEST_SECONDS:
        return "too_short", f"it has {clip.seconds:.2f} s; {SHORTEST_SECONDS} s are needed"
    if clip.seconds > LONGEST_SECONDS:
        most = f"{LONGEST_SECONDS:.1f} s are possible: cut it at a pause, each part with its text"
        return "too_long", f"it has {clip.seconds:.1f} s; {most}"
    slow, fast = PACE.get(language, USUAL_PACE)
    pace = len(text) / clip.seconds
    if not slow <= pace <= fast:
        less = "more is said than" if pace < slow else "less is said than"
        return (
            "pace",
            f"{len(text)} characters in {clip.seconds:.1f} s ({pace:.1f} a second): {less} its transcript has",
        )
    return None if vocabulary is None else _fault_of_tokens(text, language, vocabulary)


def _fault_of_tokens(text: str, language: str, vocabulary: Vocabulary) -> tuple[str, str] | None:
    if language not in TRANSLITERATED:
        # Digits and signs of money become words before they become tokens.
        unknown = [
            letter
            for letter in vocabulary.unknown(text)
            if not letter.isdigit() and unicodedata.category(letter) != "Sc"
        ]
        if unknown:
            named = " ".join(f"{letter} (U+{ord(letter):04X})" for letter in unknown[:5])
            return "unknown_characters", f"the network has no token for {named} in {language}"
    tokens = vocabulary.count(text)
    if tokens > MOST_TOKENS:
        return (
            "text_too_long",
            f"its transcript has {tokens} tokens; {MOST_TOKENS} are possible: cut the clip at a pause",
        )
    return None


def split(clips: Sequence[Clip], share: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """To learn from, and to judge by: at least one of each, the same for the same clips whatever their order.

    `share` 0-1 is held out. Content and seed decide a clip's place. Raises ValueError for fewer than two.
    """
    if len(clips) < FEWEST_CLIPS:
        raise ValueError("a split needs two clips")
    ordered = sorted(clips, key=lambda clip: hashlib.sha256(f"{seed}:{clip.sha256}".encode()).digest())
    held = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
    return ordered[held:], ordered[:held]
