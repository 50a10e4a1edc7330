"""Which phone is spoken in each frame, by a judge that is not ours? The one door to PocketSphinx.

Its `allphone` search needs no text: an acoustic model and a phone language model, both inside its wheel. The phones
label the speech that the built-in content encoder learns from, and judge whether a conversion kept the words.
"""

from __future__ import annotations

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


@lru_cache(maxsize=1)
def _decoder() -> Any:
    try:
        import pocketsphinx
    except ImportError as missing:
        raise Unavailable(
            "Phones are judged by PocketSphinx, which is not installed: it comes with the extra `quality`.",
            actions=('Install it: pip install "voicewright[quality]".',),
        ) from missing
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
