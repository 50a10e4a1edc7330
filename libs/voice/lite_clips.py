"""How are several clips sung by a `lite` voice in one pass?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from libs.voice.synthesizer import Clip, check_speaker

if TYPE_CHECKING:
    from libs.voice.lite import LiteConfig, LiteSynthesizer


def reach(config: LiteConfig) -> int:
    """Frames after a frame that its sound depends on: the blocks of the network, then two transforms' windows."""
    return config.blocks * (config.kernel // 2) + math.ceil(config.fft / config.hop_length) + 1


@torch.inference_mode()
def render_clips(voice: LiteSynthesizer, clips: Sequence[Clip]) -> list[Tensor]:
    """See `libs.voice.synthesizer.ClipSynthesizer`. Waves come back on the CPU. Raises InvalidInput for a speaker that
    is not there."""
    for clip in clips:
        check_speaker(clip.speaker_id, voice.speakers)
    # Behind a clip's end every layer sees zeros when it is alone, and not when a longer one is beside it: a clip whose
    # wanted frames can see its end goes alone.
    longest = max(len(clip.content) for clip in clips)
    sees_end = [len(c.content) < longest and c.last + reach(voice.config) > len(c.content) for c in clips]
    together = [i for i, alone in enumerate(sees_end) if not alone]
    noises = [torch.randn(len(c.content) * voice.hop_length, generator=c.generator) for c in clips]
    waves: dict[int, Tensor] = {}
    for group in [together, *([i] for i, alone in enumerate(sees_end) if alone)]:
        if not group:
            continue
        rendered = voice(
            _stacked([clips[i].content for i in group], voice),
            _stacked([clips[i].f0_hz for i in group], voice),
            _stacked([noises[i] for i in group], voice),
            _loudness([clips[i] for i in group], voice) if voice.wants_loudness else None,
            torch.tensor([clips[i].speaker_id for i in group], device=voice.window.device),
        )
        for row, i in zip(rendered, group, strict=True):
            waves[i] = row[clips[i].first * voice.hop_length : clips[i].last * voice.hop_length].float().cpu()
    return [waves[i] for i in range(len(clips))]


def _loudness(clips: list[Clip], voice: LiteSynthesizer) -> Tensor:
    """Zeros, the level of speech, for clips that come without."""
    given = [torch.zeros(len(clip.content)) if clip.loudness is None else clip.loudness for clip in clips]
    return _stacked(given, voice)


def _stacked(tensors: list[Tensor], voice: LiteSynthesizer) -> Tensor:
    return pad_sequence(tensors, batch_first=True).to(voice.window.device)
