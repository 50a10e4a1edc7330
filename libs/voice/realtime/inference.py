"""What does the voice say to the newest block? Content and pitch of the buffer, decoded where it is new."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from libs.audio.resample import resample
from libs.voice.content import ContentEncoder
from libs.voice.pitch import PitchExtractor, coarse, fill_unvoiced
from libs.voice.realtime.level import SpeechLevel
from libs.voice.realtime.rendering import render_part
from libs.voice.realtime.ring import HOP_16K
from libs.voice.realtime.settings import FRAMES_PER_SECOND, RealtimeSettings
from libs.voice.retrieval import RetrievalIndex
from libs.voice.synthesizer import Clip, Synthesizer

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

CACHE_FRAMES = 1024
PITCH_CONTEXT = 800
RMVPE_GRAIN = 5120
# The first frames of a window have heard too little of the past, the last one nothing of the future.
DROPPED_FIRST, DROPPED_LAST = 3, 1


class BlockInference:
    """Feature extraction and partial decoding of one stream, with its pitch of the past."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        encoder: ContentEncoder,
        pitch: PitchExtractor,
        index: RetrievalIndex | None,
        *,
        block_frames: int,
        skip_head: int,
        return_length: int,
    ) -> None:
        """In frames of 10 ms: `skip_head` of the buffer are context, the `return_length` after them are decoded."""
        self.synthesizer, self.encoder, self.pitch, self.index = synthesizer, encoder, pitch, index
        self.block_frames, self.skip_head, self.return_length = block_frames, skip_head, return_length
        self._level = SpeechLevel(block_frames) if getattr(synthesizer, "wants_loudness", False) else None
        self.f0_cache: Float32 = np.zeros(CACHE_FRAMES, dtype=np.float32)
        """Hz of the newest 1024 frames, shifted, 0 where unvoiced."""
        self.coarse_cache: Int64 = np.zeros(CACHE_FRAMES, dtype=np.int64)
        """The same on RVC's scale; 0, as in padding, before the stream began."""

    def infer(self, wave16k: Float32, settings: RealtimeSettings, generator: torch.Generator) -> Float32:
        """The whole buffer float32 `[L]` at 16 kHz → float32 `[return_length * sample_rate / 100]`."""
        frames = len(wave16k) // HOP_16K
        content = self._content(wave16k, settings.index_rate)[:frames]
        if self.synthesizer.needs_f0:
            self._follow_pitch(wave16k, settings)
        factor = 2.0 ** (settings.formant_shift / 12)
        with torch.inference_mode():
            clip = Clip(
                torch.from_numpy(content),
                torch.from_numpy(self.f0_cache[-frames:].copy()),
                torch.from_numpy(self.coarse_cache[-frames:].copy()),
                settings.speaker_id,
                generator,
                first=self.skip_head,
                last=self.skip_head + self.return_length,
                loudness=None if self._level is None else self._level.over(wave16k, frames),
            )
            wave = render_part(self.synthesizer, clip, math.ceil(self.return_length * factor))
        return self._squeeze(np.asarray(wave.float().cpu().numpy(), dtype=np.float32), factor)

    def rest(self) -> None:
        """A block of silence: nothing is rendered and its pitch is none."""
        self._make_room()
        self.f0_cache[-self.block_frames :] = 0.0
        self.coarse_cache[-self.block_frames :] = 1

    def _content(self, wave16k: Float32, index_rate: float) -> Float32:
        """Content at 10 ms. The last 20 ms have no frame of their own and hold the one before."""
        own = self.encoder.encode(wave16k)
        held = np.concatenate([own, own[-1:]])
        if self.index is not None and index_rate > 0:
            known = self.skip_head // 2
            held[known:] = self.index.mix(np.ascontiguousarray(held[known:]), index_rate)
        return np.ascontiguousarray(np.repeat(held, 2, axis=0), dtype=np.float32)

    def _follow_pitch(self, wave16k: Float32, settings: RealtimeSettings) -> None:
        """Pitch of the newest stretch only, written over the end of the caches."""
        method = self.pitch.resolve(settings.f0_method)
        samples = self.block_frames * HOP_16K + PITCH_CONTEXT
        if method == "rmvpe":
            # Frames in multiples of 32, which its network needs: nothing has to be padded.
            samples = RMVPE_GRAIN * math.ceil(samples / RMVPE_GRAIN) - HOP_16K
        f0 = self.pitch.f0(np.ascontiguousarray(wave16k[-samples:]), method).astype(np.float64)
        if settings.fill_unvoiced:
            f0 = fill_unvoiced(f0)
        # Squeezing the wave will raise the pitch with the formants: that much is taken off before.
        f0 = f0 * 2.0 ** ((settings.pitch_shift - settings.formant_shift) / 12)
        self._make_room()
        new = f0[DROPPED_FIRST:-DROPPED_LAST]
        self.f0_cache[-len(new) :] = new
        self.coarse_cache[-len(new) :] = coarse(new)

    def _make_room(self) -> None:
        for cache in (self.f0_cache, self.coarse_cache):
            cache[: -self.block_frames] = cache[self.block_frames :].copy()

    def _squeeze(self, wave: Float32, factor: float) -> Float32:
        """A stretched wave played faster, back to its length: formants move, pitch was moved against it before."""
        hop = self.synthesizer.sample_rate // FRAMES_PER_SECOND
        stretched = math.floor(factor * hop)
        if stretched == hop:
            return wave[: self.return_length * hop]
        return resample(wave[: self.return_length * stretched], stretched, hop)
