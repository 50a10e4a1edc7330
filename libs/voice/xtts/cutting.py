"""Where can a long recording be cut, so that each part has its text? At silences between words, said by an aligner.

    words heard   |in|being|   |comparatively|modern|      |for|although| …
    pauses                  ^                         ^^^^                   long enough, and quiet
    parts         |---------------- 3 to 11 s -------|-------------- …       ended at sentences where that is possible

Nothing is cut that does not fit: a text that is not what is said, a stretch without a pause, a language that no
aligner understands.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from libs.audio.decode import decode
from libs.audio.encode import write_wav
from libs.audio.resample import resample
from libs.voice.phones import word_times

Wave = npt.NDArray[np.float32]
Times = Callable[[Wave, Sequence[str]], list[tuple[float, float]]]
RATE = 16_000
LANGUAGES = ("en",)
"""What the aligner understands."""
LONGEST_RECORDING = 600.0
"""Seconds; aligning takes memory and a tenth of the time that speaking took."""
SHORTEST, USUAL, LONGEST = 1.0, 3.0, 11.0
PAUSE = 0.15
"""Seconds between two words that are a pause; the closure of a `t` is shorter."""
_FRAME = RATE // 100
QUIET_DB = 20.0
"""A pause is so much softer than the recording's speech."""
UNSAID_SECONDS = 1.0
"""Longer speech than this between two words is something that the text does not have."""
_END, _CLAUSE = re.compile(r"[.!?…][\"'”’»)\]]*$"), re.compile(r"[,;:—–-][\"'”’»)\]]*$")


class CannotCut(Exception):
    """Why a recording is not cut: a clause that ends a sentence for people."""


@dataclass(frozen=True)
class Part:
    """From `begin` to `end`, in seconds of the recording, `text` is said."""

    begin: float
    end: float
    text: str


def cut(wave: Wave, text: str, language: str, times: Times = word_times) -> list[Part]:
    """The parts of a recording, in order, 1 to 11 s each; their texts, joined with spaces, are the words of `text`.

    `wave`: float32 `[T]` in -1…1 at 16 kHz. Raises CannotCut, and Unavailable when the aligner is not installed.
    """
    seconds = len(wave) / RATE
    if language not in LANGUAGES:
        raise CannotCut(f"only recordings in {', '.join(LANGUAGES)} are cut here")
    if seconds > LONGEST_RECORDING:
        raise CannotCut(f"recordings of {LONGEST_RECORDING:g} s at most are cut here")
    written = text.split()
    spoken = [_words(each) for each in written]
    if not any(spoken):
        raise CannotCut("its transcript has no words")
    try:
        heard = times(wave, [word for words in spoken for word in words])
    except ValueError as error:
        raise CannotCut(f"its transcript is not what is said in it ({error})") from error
    pauses = _pauses(wave, _spans(spoken, heard), seconds)
    chosen = _choose(pauses, written, seconds)
    edges = [0.0, *(pauses[place] for place in chosen), seconds]
    places = [0, *chosen, len(written)]
    return [
        Part(begin, end, " ".join(written[first:last]))
        for (begin, end), (first, last) in zip(itertools.pairwise(edges), itertools.pairwise(places), strict=True)
    ]


def cut_file(wav: Path, text: str, language: str, into: Path) -> list[tuple[Part, str, float]]:
    """Writes each part of `wav` to `<checksum>.wav` in the folder `into`; the part, its checksum and its seconds.

    Raises what `cut` and reading a sound raise, StorageFull.
    """
    sound = decode(wav, limit_seconds=LONGEST_RECORDING + 1)
    parts = cut(resample(sound.wave, sound.sample_rate, RATE), text, language)
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for number, part in enumerate(parts):
        draft = into / f".{number}.wav"
        wave = sound.wave[round(part.begin * sound.sample_rate) : round(part.end * sound.sample_rate)]
        write_wav(draft, wave, sound.sample_rate)
        checksum = hashlib.sha256(draft.read_bytes()).hexdigest()
        draft.replace(into / f"{checksum}.wav")
        written.append((part, checksum, len(wave) / sound.sample_rate))
    return written


def _words(token: str) -> list[str]:
    """The words of a written one, `forty-two` as two. Raises CannotCut for what is not said as it is written."""
    plain = token.replace("’", "'").lower()
    if re.search(r"[^\W_]", re.sub("[a-z]", "", plain)) or re.search("[&@%#$£€°+=]", plain):
        raise CannotCut(f"{token[:20]!r} in its transcript is not written as it is said: numbers and signs in words")
    return [word for run in re.findall("[a-z']+", plain) if (word := run.strip("'"))]


def _spans(spoken: Sequence[Sequence[str]], heard: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Begin and end of each written word; a dash alone has no length, at the end of the word before it."""
    found: list[tuple[float, float]] = []
    place, last = 0, heard[0][0]
    for words in spoken:
        begin, end = (heard[place][0], heard[place + len(words) - 1][1]) if words else (last, last)
        found.append((begin, end))
        place, last = place + len(words), end
    return found


def _pauses(wave: Wave, spans: Sequence[tuple[float, float]], seconds: float) -> dict[int, float]:
    """The middle of each pause, in seconds, by the number of the written word that follows it.

    Raises CannotCut when something is said that no word stands for.
    """
    frames = np.square(wave[: len(wave) // _FRAME * _FRAME].reshape(-1, _FRAME)).mean(axis=1)
    level = 10 * np.log10(frames + 1e-10)
    quiet = level < np.percentile(level, 90) - QUIET_DB
    found: dict[int, float] = {}
    ends = [0.0, *(end for _, end in spans)]
    begins = [*(begin for begin, _ in spans), seconds]
    for number, (left, right) in enumerate(zip(ends, begins, strict=True)):
        still = quiet[round(left * 100) : round(right * 100)]
        if len(still) and np.count_nonzero(~still) / 100 > UNSAID_SECONDS:
            raise CannotCut(f"from {left:.1f} to {right:.1f} s it says something that its transcript lacks")
        run = _longest_run(still)
        if run is not None and 0 < number < len(spans) and (run[1] - run[0]) / 100 >= PAUSE:
            found[number] = left + (run[0] + run[1]) / 200
    return found


def _longest_run(values: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """Begin and end of the longest stretch of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], values, [False]]).astype(np.int8)))
    if not len(edges):
        return None
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int(ends[longest])


def _choose(pauses: dict[int, float], written: Sequence[str], seconds: float) -> list[int]:
    """At which pauses to cut: the fewest bad ends and short parts that there can be. Raises CannotCut."""
    places = [*sorted(pauses), len(written)]
    at = [*(pauses[place] for place in places[:-1]), seconds]
    best: list[tuple[float, int]] = []  # for each place: the cost of all parts up to there, and the place before it
    for number, end in enumerate(at):
        ways = []
        for before in range(-1, number):
            length = end - (at[before] if before >= 0 else 0.0)
            if SHORTEST <= length <= LONGEST:
                cost = best[before][0] if before >= 0 else 0.0
                ways.append((cost + _cost(written[places[number] - 1], length), before))
        best.append(min(ways, default=(float("inf"), -1)))
    if best[-1][0] == float("inf"):
        reached = max((end for (cost, _), end in zip(best, at, strict=True) if cost < float("inf")), default=0.0)
        raise CannotCut(f"from {reached:.1f} s on there is no pause within {LONGEST:g} s")
    chosen, number = [], best[-1][1]
    while number >= 0:
        chosen.append(places[number])
        number = best[number][1]
    return chosen[::-1]


def _cost(last_word: str, length: float) -> float:
    ends_well = 0.0 if _END.search(last_word) else 0.5 if _CLAUSE.search(last_word) else 1.0
    return 0.2 + ends_well + max(0.0, (USUAL - length) / USUAL)
