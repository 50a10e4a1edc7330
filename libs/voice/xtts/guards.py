"""Is this the sound of that text? Known failures of XTTS are found by length and energy.

    pace      characters of text in a second of sound; outside what people speak, something is missing or too much
    babble    after the text is said, a pause and then sounds that nobody wrote
    edges     silence at both ends, which would add up between sentences

All are estimates from the length of a text: a slow speaker who pauses is given the benefit of the doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]
RATE = 24_000
_FRAME = RATE // 100
SILENT_DB = -50.0
"""Below the loudest frame, and in any case below -60 dBFS, a frame of 10 ms counts as silence."""
AUDIBLE = 1e-3
EDGE_SECONDS = 0.05
BABBLE_PAUSE = 0.6
DIGIT_LETTERS = 6
"""A digit is said with about as many letters."""


@dataclass(frozen=True)
class Pace:
    """Characters a second: the slowest and fastest that is believed, and the usual one."""

    slowest: float
    usual: float
    fastest: float


USUAL = Pace(5.0, 15.0, 45.0)
PACES = {"zh-cn": Pace(1.5, 4.5, 14.0), "ja": Pace(2.0, 7.0, 20.0), "ko": Pace(2.0, 7.0, 20.0)}
REACTION = 1.5
"""Seconds that even a single word may take."""


def longest_seconds(text: str, language: str) -> float:
    """More sound than this at speed 1 is not `text`."""
    return REACTION + _letters(text) / PACES.get(language, USUAL).slowest


def shortest_seconds(text: str, language: str) -> float:
    """Less sound than this at speed 1 lacks something of `text`."""
    return max(0.12, len(text.strip()) / PACES.get(language, USUAL).fastest)


def usual_seconds(text: str, language: str) -> float:
    """About as long as `text` takes at speed 1."""
    return _letters(text) / PACES.get(language, USUAL).usual


def _letters(text: str) -> int:
    stripped = text.strip()
    return len(stripped) + (DIGIT_LETTERS - 1) * sum(letter.isdigit() for letter in stripped)


def fault(wave: Wave, text: str, language: str, speed: float, *, has_ended: bool) -> str | None:
    """Why `wave` `[T]` at 24 kHz, trimmed, cannot be `text` said at `speed`; None when it can.

    `has_ended`: the network stopped by itself, and not at the limit it was given.
    """
    if len(wave) == 0:
        return "no sound came"
    if not np.isfinite(wave).all():
        return "the sound has values that are no numbers"
    if float(np.abs(wave).max()) < AUDIBLE:
        return "the sound is silence"
    seconds, longest = len(wave) / RATE, longest_seconds(text, language) / speed
    if not has_ended or seconds > longest:
        return f"it did not end: {seconds:.1f} s for {len(text.strip())} characters"
    if seconds < shortest_seconds(text, language) / speed:
        return f"something is missing: {seconds:.2f} s for {len(text.strip())} characters"
    return None


def without_babble(wave: Wave, text: str, language: str, speed: float) -> Wave:
    """`wave` `[T]` up to a pause of 0.6 s that begins when half as long again as `text` usually takes is over.

    What follows such a pause is not in the text. Before that, pauses are the speaker's.
    """
    earliest = int((0.3 + 1.5 * usual_seconds(text, language) / speed) * RATE)
    run = 0
    for number, is_loud in enumerate(_loud(wave)):
        run = 0 if is_loud else run + 1
        begin = (number + 1 - run) * _FRAME
        if run * 0.01 >= BABBLE_PAUSE and begin >= earliest:
            return wave[:begin]
    return wave


def without_edges(wave: Wave) -> Wave:
    """`wave` `[T]` with at most 50 ms of silence at either end; empty when all of it is silence."""
    loud = np.flatnonzero(_loud(wave))
    if not len(loud):
        return wave[:0]
    edge = int(EDGE_SECONDS * RATE)
    return wave[max(0, int(loud[0]) * _FRAME - edge) : (int(loud[-1]) + 1) * _FRAME + edge]


def _loud(wave: Wave) -> npt.NDArray[np.bool_]:
    """Of each 10 ms, `[ceil(T / 240)]`, whether there is something to hear."""
    padded = np.pad(np.nan_to_num(wave), (0, -len(wave) % _FRAME))
    level = np.sqrt(np.mean(np.square(padded.reshape(-1, _FRAME), dtype=np.float64), axis=1))
    loudest = float(level.max(initial=0.0))
    return np.asarray(level > max(loudest * 10 ** (SILENT_DB / 20), AUDIBLE))


def pause_after(text: str) -> float:
    """Seconds of silence between the piece `text` and the next one: a paragraph's, a sentence's, a clause's, none."""
    if text.endswith("\n"):
        return 0.6
    last = text.rstrip().rstrip("\"'”’»)]」』")[-1:]
    if last in (*".!?…。！？।؟",):
        return 0.35
    return 0.15 if last in (*",;:—–،、，；：",) else 0.0
