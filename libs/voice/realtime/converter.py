"""How is a stream of speech converted while it comes? One block in, one block out.

block → gate → ring → 16 kHz → content of the whole ring, pitch of its end → nearest frames → decoded part
      → loudness of the input → SOLA → block
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from libs.common.errors import InvalidInput
from libs.voice.content import ContentEncoder
from libs.voice.fitting import check_widths
from libs.voice.pitch import PitchExtractor
from libs.voice.realtime.inference import BlockInference
from libs.voice.realtime.joining import Joiner, follow_loudness
from libs.voice.realtime.ring import InputRing
from libs.voice.realtime.settings import FIXED, FRAMES_PER_SECOND, SEARCH_FRAMES, Frames, RealtimeSettings
from libs.voice.retrieval import RetrievalIndex
from libs.voice.synthesizer import Synthesizer

Float32 = NDArray[np.float32]


class RealtimeConverter:
    """One live stream through one voice. Voice, encoder, pitch and index may be shared by streams; this object may not.

    Source of the method: RVC's realtime path. A call to `process` takes as long as the networks need; a stream keeps up
    when that is less than `block_seconds`.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        encoder: ContentEncoder,
        pitch: PitchExtractor,
        index: RetrievalIndex | None = None,
        settings: RealtimeSettings | None = None,
    ) -> None:
        """Raises InvalidInput for encoder, index and voice of different widths, and an unknown speaker or method."""
        check_widths(synthesizer, encoder, index)
        self.synthesizer, self.encoder, self.pitch, self.index = synthesizer, encoder, pitch, index
        self.settings = settings or RealtimeSettings()
        self._check(self.settings)
        self.frames = Frames.of(self.settings)
        self.output_rate: int = synthesizer.sample_rate
        """Hz of what `process` returns: the voice's own."""
        self._input_hop = self.settings.input_rate // FRAMES_PER_SECOND
        self._output_hop = self.output_rate // FRAMES_PER_SECOND
        self.block_samples: int = self.frames.block * self._input_hop
        """Samples at `input_rate` that `process` takes."""
        self.output_samples: int = self.frames.block * self._output_hop
        """Samples at `output_rate` that `process` returns."""
        self.reset()

    @property
    def latency_seconds(self) -> float:
        """From a sample's coming in to its going out, at most, without the time of computing and of devices."""
        return (self.frames.block + self.frames.crossfade + SEARCH_FRAMES) / FRAMES_PER_SECOND

    def reset(self) -> None:
        """Forget everything that was heard: the next block is the first of a stream. Settings stay."""
        frames = self.frames
        self._ring = InputRing(self.settings.input_rate, frames)
        self._inference = BlockInference(
            self.synthesizer,
            self.encoder,
            self.pitch,
            self.index,
            block_frames=frames.block,
            skip_head=frames.extra,
            return_length=frames.decoded,
        )
        self._joiner = Joiner(*(each * self._output_hop for each in (frames.block, frames.fade, SEARCH_FRAMES)))
        self._generator = torch.Generator().manual_seed(self.settings.seed)

    def warm_up(self) -> None:
        """Load what is loaded at first use, so that the first block does not wait for it. Starts the stream anew."""
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, self.block_samples)
        self.process(noise.astype(np.float32))
        self.reset()

    def change(self, **changes: Any) -> None:
        """Turn settings while the stream runs; they count from the next block on.

        Raises InvalidInput for a value out of range, an unknown name, or one that is fixed for a stream; then nothing
        is changed.
        """
        known = {field.name for field in dataclasses.fields(RealtimeSettings)}
        for name, value in changes.items():
            if name not in known:
                raise InvalidInput(
                    f"{name} is no setting of a stream; there are {', '.join(sorted(known))}.", field=name
                )
            if name in FIXED and value != getattr(self.settings, name):
                raise InvalidInput(f"{name} is fixed while a stream runs; start a new one.", field=name)
        wanted = dataclasses.replace(self.settings, **changes)
        self._check(wanted)
        self.settings = wanted

    def process(self, block: NDArray[np.floating]) -> Float32:
        """The next block: mono `[block_samples]` in -1…1 at `input_rate` → float32 `[output_samples]` at `output_rate`.

        What comes out belongs to what came in `latency_seconds` before. Samples that are not finite count as 0. With
        the gate on, silence is answered with exact silence and costs no network. Raises InvalidInput for another shape.
        """
        wave = np.asarray(block, dtype=np.float32)
        if wave.shape != (self.block_samples,):
            raise InvalidInput(
                f"A block has shape {list(wave.shape)}; one channel of {self.block_samples} samples is expected "
                f"({self.frames.block * 10} ms at {self.settings.input_rate} Hz).",
                field="block",
            )
        settings = self.settings
        clean = np.nan_to_num(wave, nan=0.0, posinf=0.0, neginf=0.0)
        self._ring.push(clean, settings.threshold_db if settings.gate_is_on else None)
        if settings.gate_is_on and self._ring.is_silent():
            self._inference.rest()
            rendered = np.zeros(self.frames.decoded * self._output_hop, dtype=np.float32)
        else:
            rendered = self._inference.infer(self._ring.wave16k, settings, self._generator)
            mix = settings.mix_of(self.synthesizer)
            rendered = follow_loudness(self._ring.decoded_part(), self._input_hop, rendered, self._output_hop, mix)
        return np.clip(self._joiner.join(rendered), -1.0, 1.0)

    def _check(self, settings: RealtimeSettings) -> None:
        """What a setting cannot know by itself: speakers of this voice, methods of this installation."""
        speakers = getattr(self.synthesizer, "speakers", math.inf)
        if settings.speaker_id >= speakers:
            raise InvalidInput(
                f"speaker_id is {settings.speaker_id}; this voice has 0 to {speakers - 1}.", field="speaker_id"
            )
        self.pitch.resolve(settings.f0_method)
