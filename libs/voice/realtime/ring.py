"""What has been said lately? The newest stretch of input, at its own rate and at 16 kHz, with quiet parts gated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from libs.audio.resample import resample
from libs.voice.realtime.settings import FRAMES_PER_SECOND, Frames
from libs.voice.slicing import frame_rms

Float32 = NDArray[np.float32]

RATE_16K = 16000
HOP_16K = RATE_16K // FRAMES_PER_SECOND
QUIETEST = 1e-5


class InputRing:
    """Holds `frames.ring` frames of input, oldest first.

    `wave`: float32 at `rate` Hz · `wave16k`: the same at 16 kHz. Both start as silence.
    """

    def __init__(self, rate: int, frames: Frames) -> None:
        self.hop = rate // FRAMES_PER_SECOND
        self.rate = rate
        self.frames = frames
        self.wave: Float32 = np.zeros(frames.ring * self.hop, dtype=np.float32)
        self.wave16k: Float32 = np.zeros(frames.ring * HOP_16K, dtype=np.float32)
        self.resampled_samples = 0
        """How many samples the last push resampled: the new ones and what their filter looks back on."""
        self._before: Float32 = np.zeros(4 * self.hop, dtype=np.float32)

    def push(self, block: Float32, threshold_db: float | None = None) -> None:
        """Take one block `[frames.block * hop]` in -1…1. `threshold_db`: gate what is quieter; None is off."""
        hop = self.hop
        joined = np.concatenate([self._before, block])
        self._before = joined[-4 * hop :].copy()
        # A gated block also rewrites the two frames before it: their loudness was not whole before it came.
        new = block if threshold_db is None else gate(joined, hop, threshold_db)
        _shift(self.wave, len(block))
        self.wave[-len(new) :] = new
        _shift(self.wave16k, len(block) // hop * HOP_16K)
        # The first frame only settles the filter. The last frame of the block before is made again as well: its filter
        # had looked into a future that was not there yet.
        source = self.wave[-(len(new) + 2 * hop) :]
        self.resampled_samples = len(source)
        low = resample(source, self.rate, RATE_16K)[HOP_16K:]
        self.wave16k[-len(low) :] = low

    def decoded_part(self) -> Float32:
        """The input of the frames that will be decoded, `[decoded * hop]`."""
        begin = self.frames.extra * self.hop
        return self.wave[begin : begin + self.frames.decoded * self.hop]

    def is_silent(self) -> bool:
        """Whether everything after the context is exact silence, as the gate makes it."""
        return not self.wave[self.frames.extra * self.hop :].any()


def gate(joined: Float32, hop: int, threshold_db: float) -> Float32:
    """RVC's gate. `joined` `[(4 + n) * hop]`: 4 frames of the past, a block → its last `[(n + 2) * hop]`, quiet ones 0.

    Loudness is the RMS over 40 ms around each frame, in dB of full scale.
    """
    rms = frame_rms(joined, 4 * hop, hop)[2:]
    quiet = 20 * np.log10(np.maximum(rms, QUIETEST)) < threshold_db
    kept = joined[2 * hop - hop // 2 :].copy()
    for i in np.flatnonzero(quiet):
        kept[i * hop : (i + 1) * hop] = 0.0
    return kept[hop // 2 :]


def _shift(buffer: Float32, samples: int) -> None:
    buffer[:-samples] = buffer[samples:].copy()
