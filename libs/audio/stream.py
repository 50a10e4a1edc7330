"""How does a file of any length become mono sound at one rate, block by block? Memory holds one block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from libs.audio.decode import BLOCK_SAMPLES, DEFAULT_LIMIT_SECONDS, Recording
from libs.audio.resample import StreamResampler

Wave = npt.NDArray[np.float32]


class MonoStream:
    """A sound file read once at `sample_rate` Hz; the blocks together are `resample(decode(path).wave, …)` bit by bit.

    `seconds` and `truncated` hold when `blocks` has come to its end.
    """

    def __init__(self, path: Path, sample_rate: int, *, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.limit_seconds = limit_seconds
        self.seconds = 0.0
        self.truncated = False

    def blocks(self, block_samples: int = BLOCK_SAMPLES) -> Iterator[Wave]:
        """Float32 `[n]`, of at least `block_samples` samples of the file each. Errors as for `Recording`.

        Samples are as decoded: float and lossy files may pass ±1, as RVC's preparation takes them too.
        """
        resampler: StreamResampler | None = None
        with Recording(self.path, limit_seconds=self.limit_seconds) as recording:
            for samples in recording.blocks(block_samples):
                if resampler is None:
                    resampler = StreamResampler(recording.sample_rate, self.sample_rate)
                yield resampler.push(recording.mono_weights @ samples)
                self.seconds = recording.seconds
            if resampler is not None:
                yield resampler.finish()
            self.seconds, self.truncated = recording.seconds, recording.truncated
