"""How does a voice render only the newest part of a buffer? RVC's partial decoding, or the like for other voices."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from libs.voice.synthesizer import Clip, PartialSynthesizer, Synthesizer

CONTEXT_FRAMES = 24


def render_part(synthesizer: Synthesizer, clip: Clip, stretched_length: int) -> Tensor:
    """The clip's wanted frames, drawn out to `stretched_length` frames of 10 ms.

    → float32 `[stretched_length * sample_rate // 100]`. Played faster by `stretched_length / (last - first)`, it lasts
    as long as before and has its formants moved up.
    """
    if isinstance(synthesizer, PartialSynthesizer):
        return synthesizer.render_part(clip, stretched_length)
    begin = max(clip.first - CONTEXT_FRAMES, 0)
    content, f0_hz, coarse = clip.content[begin:], clip.f0_hz[begin:], clip.coarse[begin:].clamp(min=1)
    loudness = None if clip.loudness is None else clip.loudness[begin:]
    head, length = clip.first - begin, clip.last - clip.first
    if stretched_length != length:
        frames = round(len(content) * stretched_length / length)
        head = round(head * stretched_length / length)
        content = functional.interpolate(content.T[None], size=frames, mode="linear")[0].T.contiguous()
        if loudness is not None:
            loudness = functional.interpolate(loudness[None, None], size=frames, mode="linear")[0, 0]
        # Nearest: between a voiced and an unvoiced frame lies no pitch.
        f0_hz = functional.interpolate(f0_hz[None, None], size=frames, mode="nearest")[0, 0]
        coarse = functional.interpolate(coarse[None, None].double(), size=frames, mode="nearest")[0, 0].long()
    hop = synthesizer.sample_rate // 100
    extra = {} if loudness is None else {"loudness": loudness}
    wave = synthesizer.render(content, f0_hz, coarse, clip.speaker_id, clip.generator, **extra)
    return wave[head * hop : (head + stretched_length) * hop]
