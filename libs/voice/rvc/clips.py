"""How are several clips rendered in one pass, and only what is wanted of each?

The latent needs all of a clip, because attention sees every frame. The decoder, where nearly all the work is, sees a
few frames to each side: it gets the wanted frames and that much around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from libs.voice.rvc.layers import Noise
from libs.voice.rvc.synthesizer import INFERENCE_NOISE, SynthesizerNetwork
from libs.voice.synthesizer import Clip


def render_clips(
    network: SynthesizerNetwork,
    clips: Sequence[Clip],
    device: torch.device,
    noise: Callable[[torch.Generator | None], Noise],
) -> list[Tensor]:
    """See `libs.voice.synthesizer.ClipSynthesizer`. Shorter clips are masked, so that they do not see their padding."""
    config = network.config
    latent_noise, source_noise = _draw(network, clips, noise)
    lengths = torch.tensor([len(clip.content) for clip in clips], device=device)
    g = network.speaker(torch.tensor([clip.speaker_id for clip in clips], device=device))
    content = _stacked([clip.content for clip in clips], device)
    pitch = _stacked([clip.coarse for clip in clips], device) if config.f0 else None
    m_p, logs_p, mask = network.enc_p(content, pitch, lengths)
    z = network.flow(
        (m_p + torch.exp(logs_p) * latent_noise.to(device) * INFERENCE_NOISE) * mask, mask, g, reverse=True
    )
    source: Tensor | None = None
    if config.f0:
        f0 = _stacked([clip.f0_hz for clip in clips], device)
        source = network.dec.m_source(f0, lambda like: source_noise.to(like))
    return _decoded(network, z, source, g, clips)


def _draw(
    network: SynthesizerNetwork, clips: Sequence[Clip], noise: Callable[[torch.Generator | None], Noise]
) -> tuple[Tensor, Tensor]:
    """Noise of the latent `[b, inter, t]` and of the source `[b, t * hop]`, drawn as for one clip after the other."""
    latents, sources = [], []
    for clip in clips:
        draw = noise(clip.generator)
        latents.append(draw(torch.empty(1, network.config.inter_channels, len(clip.content)))[0].T)
        if network.config.f0:
            sources.append(draw(torch.empty(1, len(clip.content) * network.config.hop_length))[0])
    stacked = pad_sequence(sources, batch_first=True) if sources else torch.empty(0)
    return pad_sequence(latents, batch_first=True).transpose(1, 2), stacked


def _stacked(tensors: list[Tensor], device: torch.device) -> Tensor:
    return pad_sequence(tensors, batch_first=True).to(device)


def _decoded(
    network: SynthesizerNetwork, z: Tensor, source: Tensor | None, g: Tensor, clips: Sequence[Clip]
) -> list[Tensor]:
    hop, context = network.config.hop_length, network.dec.context_frames
    borders = [(max(0, c.first - context), min(len(c.content), c.last + context)) for c in clips]
    longest = max(end - begin for begin, end in borders)
    # What lies behind a clip's end is zero in every layer when it is alone, and not when a longer one is beside it: a
    # clip whose wanted frames can see its end goes alone.
    together: list[int] = []
    alone: list[int] = []
    for i, (clip, (begin, end)) in enumerate(zip(clips, borders, strict=True)):
        sees_end = clip.last + context > len(clip.content) and end - begin < longest
        (alone if sees_end else together).append(i)
    waves: dict[int, Tensor] = {}
    for group in [together, *([i] for i in alone)]:
        parts = pad_sequence([z[i, :, slice(*borders[i])].T for i in group], batch_first=True).transpose(1, 2)
        sources = None
        if source is not None:
            cut = [source[i, 0, borders[i][0] * hop : borders[i][1] * hop] for i in group]
            sources = pad_sequence(cut, batch_first=True).unsqueeze(1)
        rendered = network.dec.decode(parts, sources, g[group])
        for row, i in enumerate(group):
            first = clips[i].first - borders[i][0]
            waves[i] = rendered[row, 0, first * hop : (first + clips[i].last - clips[i].first) * hop].float().cpu()
    return [waves[i] for i in range(len(clips))]
