"""How does a voice render only the newest part of a buffer? RVC's partial decoding, or the like for other voices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from libs.voice.synthesizer import PartialSynthesizer, Synthesizer

CONTEXT_FRAMES = 24


def render_part(
    synthesizer: Synthesizer,
    content: Tensor,
    f0_hz: Tensor,
    coarse: Tensor,
    speaker_id: int,
    generator: torch.Generator,
    *,
    skip_head: int,
    return_length: int,
    stretched_length: int,
) -> Tensor:
    """Frames `skip_head … skip_head + return_length` of a buffer, drawn out to `stretched_length` frames.

    Arguments as `Synthesizer.render`, of the whole buffer; → float32 `[stretched_length * sample_rate // 100]`. Played
    faster by `stretched_length / return_length`, it has the formants moved up and lasts as long as before.
    """
    if isinstance(synthesizer, PartialSynthesizer):
        return synthesizer.render_part(
            content,
            f0_hz,
            coarse,
            speaker_id,
            generator,
            skip_head=skip_head,
            return_length=return_length,
            stretched_length=stretched_length,
        )
    begin = max(skip_head - CONTEXT_FRAMES, 0)
    content, f0_hz, coarse = content[begin:], f0_hz[begin:], coarse[begin:].clamp(min=1)
    head = skip_head - begin
    if stretched_length != return_length:
        frames = round(len(content) * stretched_length / return_length)
        head = round(head * stretched_length / return_length)
        content = functional.interpolate(content.T[None], size=frames, mode="linear")[0].T.contiguous()
        # Nearest: between a voiced and an unvoiced frame lies no pitch.
        f0_hz = functional.interpolate(f0_hz[None, None], size=frames, mode="nearest")[0, 0]
        coarse = functional.interpolate(coarse[None, None].double(), size=frames, mode="nearest")[0, 0].long()
    hop = synthesizer.sample_rate // 100
    wave = synthesizer.render(content, f0_hz, coarse, speaker_id, generator)
    return wave[head * hop : (head + stretched_length) * hop]
