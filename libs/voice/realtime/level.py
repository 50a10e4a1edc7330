"""How loud is the newest speech of a stream against that of some time, not only of what the buffer still holds?"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from libs.voice.conversion.loudness import frame_loudness
from libs.voice.lite_loudness import speech_level
from libs.voice.realtime.settings import FRAMES_PER_SECOND

FALL_DB = 2.0
"""A second: somebody 20 dB behind the speaker is kept behind for 10 s of the speaker's silence. Whoever has moved away
from the microphone is at their level as soon."""


class SpeechLevel:
    """The level of a stream's speech: it rises with what is heard, and falls by `FALL_DB` a second.

    Silence behind the gate is not heard, and the level stays.
    """

    def __init__(self, block_frames: int) -> None:
        """`block_frames`: frames of 10 ms between two calls of `over`."""
        self._fall = FALL_DB * block_frames / FRAMES_PER_SECOND
        self._level: Tensor | None = None

    def over(self, wave16k: NDArray[np.float32], frames: int) -> Tensor:
        """dB over that level of the buffer `[L]` at 16 kHz, which is a block later than the last one → `[frames]`."""
        decibels = torch.from_numpy(frame_loudness(wave16k, frames))[None]
        level = speech_level(decibels)
        if self._level is not None:
            level = torch.maximum(level, self._level - self._fall)
        self._level = level
        return (decibels - level)[0]
