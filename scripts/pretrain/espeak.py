"""What does espeak-ng say, and when exactly? The one door to its library.

The program cannot tell when a phone begins; the library can (phoneme events of `speak_lib.h`). The library's state, its
random numbers included, lasts as long as the process: the same calls in the same order give the same sound.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

_SYNCHRONOUS, _IPA_EVENTS = 2, 1 | 2
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1
_LIST_ENDS, _PHONEME = 0, 7
LIBRARY = "libespeak-ng.so.1"


class _Id(ctypes.Union):
    _fields_: ClassVar = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Said:
    """`wave`: float32 `[T]` in -1…1 at `sample_rate` Hz; `phones`: (first sample, IPA) in order, "" for a pause."""

    wave: NDArray[np.float32]
    sample_rate: int
    phones: list[tuple[int, str]]


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, int]:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as missing:
        raise FileNotFoundError(f"{LIBRARY} is not installed: run scripts/install (Debian's espeak-ng)") from missing
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _IPA_EVENTS)
    if rate <= 0:
        raise FileNotFoundError(f"{LIBRARY} does not find its data (espeak-ng-data)")
    return library, rate


def say(text: str, voice: str, *, words_per_minute: int = 175, pitch: int = 50, melody: int = 50) -> Said:
    """`text` in `voice` (such as "de+f3"); `pitch` and `melody` (range of pitch) 0-99.

    Raises FileNotFoundError when the library is not installed, ValueError for a voice that it does not have.
    """
    library, rate = _library()
    pieces: list[bytes] = []
    phones: list[tuple[int, str]] = []

    def receive(wave: ctypes._Pointer[ctypes.c_short], samples: int, events: ctypes._Pointer[_Event]) -> int:
        if wave and samples > 0:
            pieces.append(ctypes.string_at(wave, 2 * samples))
        number = 0
        while events[number].type != _LIST_ENDS:
            if events[number].type == _PHONEME:
                phones.append((events[number].sample, events[number].id.string.decode("utf-8", "ignore")))
            number += 1
        return 0

    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice!r}")
    for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, melody)):
        library.espeak_SetParameter(parameter, value, 0)
    content = text.encode() + b"\0"
    library.espeak_Synth(content, len(content), 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    wave = np.frombuffer(b"".join(pieces), np.int16).astype(np.float32) / np.float32(32768)
    return Said(wave, rate, phones)
