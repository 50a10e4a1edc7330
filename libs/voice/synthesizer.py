"""What can every voice do, whatever its network?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from libs.common.errors import InvalidInput


class Synthesizer(Protocol):
    """A voice in memory: content and pitch in, sound out."""

    sample_rate: int
    """Hz of what it renders; frames are 10 ms."""
    content_width: int
    """768, or 256 for v1."""

    @property
    def needs_f0(self) -> bool:
        """False for voices that were trained without pitch; then `f0_hz` and `coarse` are not looked at."""

    def render(
        self, content: Tensor, f0_hz: Tensor, coarse: Tensor, speaker_id: int, generator: torch.Generator
    ) -> Tensor:
        """content float32 [T, content_width] at 100 frames/s, f0_hz float32 [T] (0 unvoiced), coarse int64 [T] 1..255
        → float32 [T * sample_rate // 100] in -1…1. `generator` (CPU) is the only source of chance."""


@dataclass(frozen=True)
class Clip:
    """One piece of speech to render, of which the frames `[first, last)` are wanted; the rest is context.

    The first six fields are `Synthesizer.render`'s; `loudness` float32 `[T]` in dB over the level of the
    recording's speech is for voices with `wants_loudness`.
    """

    content: Tensor
    f0_hz: Tensor
    coarse: Tensor
    speaker_id: int
    generator: torch.Generator
    first: int
    last: int
    loudness: Tensor | None = None


@runtime_checkable
class PartialSynthesizer(Synthesizer, Protocol):
    """A voice that can decode a part of a buffer with all of it as context, as live conversion needs."""

    def render_part(self, clip: Clip, stretched_length: int) -> Tensor:
        """The clip's wanted frames, drawn out to `stretched_length` frames of 10 ms; `coarse` is 0 before the stream
        began. Stretched, the wave keeps its pitch in Hz. → float32 [stretched_length * sample_rate // 100].
        """


@runtime_checkable
class ClipSynthesizer(Protocol):
    """A voice that renders several clips in one pass and leaves out what is only context."""

    def render_clips(self, clips: Sequence[Clip]) -> list[Tensor]:
        """Each clip's wanted frames, float32 `[(last - first) * hop]`: what `render` of it alone would give there, to
        the rounding of float32. Chance is drawn clip by clip in the order of `render`."""
        ...


def loudness_mix(given: float | None, synthesizer: Synthesizer, usual: float) -> float:
    """How much of a voice's own loudness is left, 0…1: as `given`, else what suits the voice.

    That is all of it for voices that read the source's loudness themselves, which would be put on twice, and `usual`
    for all others.
    """
    if given is not None:
        return given
    return 1.0 if getattr(synthesizer, "wants_loudness", False) else usual


def check_speaker(speaker_id: int, speakers: int) -> None:
    """Raises InvalidInput for a number that is not one of a voice's `speakers`, counted from 0."""
    if not 0 <= speaker_id < speakers:
        raise InvalidInput(f"speaker_id is {speaker_id}; this voice has 0 to {speakers - 1}", field="speaker_id")
