"""Which phone is spoken in each frame, and when each word, by a judge that is not ours? The one door to PocketSphinx.

Its `allphone` search needs no text: an acoustic model and a phone language model, both inside its wheel. The phones
label the speech that the built-in content encoder learns from, and judge whether a conversion kept the words. Its
forced alignment needs the text and says when each word of it is heard: English alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from libs.common.errors import Unavailable

SILENCE = "SIL"
NOISES = ("+NSN+", "+SPN+")
PHONES: tuple[str, ...] = (
    SILENCE, *NOISES,
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""Silence, two noises and the 39 phones of CMUdict; the place in this tuple is the class number."""

SPEECH_FROM = 1 + len(NOISES)
"""Class numbers from here on are phones of speech."""

_NUMBER = {phone: number for number, phone in enumerate(PHONES)}


_SPELLED = {
    "a": "AH", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K",
    "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V",
    "w": "W", "x": "K S", "y": "Y", "z": "Z", "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "ng": "NG", "ee": "IY",
    "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "ai": "EY", "ay": "EY", "oy": "OY", "oi": "OY", "ck": "K",
    "er": "ER", "or": "AO R", "ie": "IY", "qu": "K W", "'": "",
}  # fmt: skip
"""What letters sound like in words that no dictionary has: good enough to say when such a word begins and ends."""


def _pocketsphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError as missing:
        raise Unavailable(
            "Phones are judged by PocketSphinx, which is not installed: it comes with the extra `quality`.",
            actions=('Install it: pip install "voicewright[quality]".',),
        ) from missing
    return pocketsphinx


@lru_cache(maxsize=1)
def _decoder() -> Any:
    pocketsphinx = _pocketsphinx()
    folder = pocketsphinx.get_model_path()
    return pocketsphinx.Decoder(
        hmm=f"{folder}/en-us/en-us",
        allphone=f"{folder}/en-us/en-us-phone.lm.bin",
        lw=2.0,
        pip=0.3,
        beam=1e-20,
        pbeam=1e-20,
        loglevel="FATAL",
    )


def frame_phones(wave: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`wave`: float32 `[T]` in -1…1 at 16 kHz → class numbers (places in `PHONES`) `[T // 160]`, one per 10 ms.

    Frame i is judged on samples 160 i … 160 i + 410. Raises Unavailable when PocketSphinx is not installed.
    """
    frames = len(wave) // 160
    labels = np.zeros(frames, np.uint8)
    if frames < 5:
        return labels
    decoder = _decoder()
    # Cepstral mean normalisation adapts over utterances; a fresh start makes the answer depend on this wave alone.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw((np.clip(wave, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    for segment in decoder.seg() or ():
        labels[segment.start_frame : segment.end_frame + 1] = _NUMBER[segment.word]
    return labels


@lru_cache(maxsize=1)
def _aligner() -> Any:
    pocketsphinx = _pocketsphinx()
    folder = pocketsphinx.get_model_path()
    return pocketsphinx.Decoder(
        hmm=f"{folder}/en-us/en-us",
        dict=f"{folder}/en-us/cmudict-en-us.dict",
        lm=None,
        beam=1e-60,
        wbeam=1e-40,
        pbeam=1e-60,
        loglevel="FATAL",
    )


def word_times(wave: NDArray[np.float32], words: Sequence[str]) -> list[tuple[float, float]]:
    """When each of `words` is heard: its begin and end in seconds, in the order of `words`.

    `wave`: float32 `[T]` in -1…1 at 16 kHz, English; `words` of small letters a-z and apostrophes. A word that the
    dictionary lacks is taken for what its letters sound like. Raises ValueError when sound and words do not fit, or a
    word has other characters, Unavailable when PocketSphinx is not installed.
    """
    for word in words:
        if re.fullmatch("'*[a-z][a-z']*", word) is None:
            raise ValueError(f"{word!r} is no word in English letters")
    decoder = _aligner()
    for word in words:
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, _spelled(word), False)
    decoder.reinit_feat()
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    # It takes exact silence for nothing that it knows: no recording but a made one has it.
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(wave))
    heard = np.clip(wave / max(2 * float(np.abs(wave).max(initial=0.0)), 1e-6) + noise, -1, 1)
    decoder.process_raw((heard * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    # between words stand <sil> and the like; a pronunciation other than the first is `the(2)`
    found = [each for each in decoder.seg() or () if each.word[0] not in "<[+"]
    if [each.word.split("(")[0] for each in found] != list(words):
        raise ValueError("the words are not heard in the sound")
    return [(each.start_frame / 100, (each.end_frame + 1) / 100) for each in found]


def _spelled(word: str) -> str:
    phones = [_SPELLED[part] for part in re.findall("|".join(sorted(_SPELLED, key=len, reverse=True)), word)]
    return " ".join(filter(None, phones))
