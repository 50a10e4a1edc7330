"""How does a trained RVC network sing one clip?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from libs.voice.rvc.clips import render_clips
from libs.voice.rvc.layers import Noise, fold_weight_norm, noise_from
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.synthesizer import Clip, check_speaker


class RvcSynthesizer:
    """A voice in RVC's format, ready to render; implements `libs.voice.synthesizer.PartialSynthesizer`.

    `noise` makes the source of chance from the caller's generator; comparisons with reference numbers give zeros.
    """

    def __init__(
        self,
        network: SynthesizerNetwork,
        device: torch.device,
        noise: Callable[[torch.Generator | None], Noise] = noise_from,
    ) -> None:
        self._noise = noise
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device
        fold_weight_norm(self.network)
        self.sample_rate = network.config.sample_rate
        self.content_width = network.config.content_width
        self.needs_f0 = network.config.f0
        self.speakers = network.config.speakers

    @torch.inference_mode()
    def render(
        self, content: Tensor, f0_hz: Tensor, coarse: Tensor, speaker_id: int, generator: torch.Generator
    ) -> Tensor:
        """content float32 [T, width] at 100 frames/s, f0_hz float32 [T], coarse int64 [T] → float32 [T * hop] (CPU).

        Raises InvalidInput for a speaker that the voice does not have.
        """
        return self._infer(Clip(content, f0_hz, coarse, speaker_id, generator, 0, len(content)))

    @torch.inference_mode()
    def render_part(self, clip: Clip, stretched_length: int) -> Tensor:
        """The clip's wanted frames, drawn out to `stretched_length` frames of 10 ms.

        Attention sees every frame, the flow starts 24 before, the decoder renders the part alone: float32
        [stretched_length * hop] (CPU). Drawing out lowers the source's pitch, so F0 is raised by as much. Raises
        InvalidInput for a speaker that the voice does not have.
        """
        length = clip.last - clip.first
        raised = replace(clip, f0_hz=clip.f0_hz * (stretched_length / length))
        return self._infer(raised, skip_head=clip.first, return_length=length, stretched_length=stretched_length)

    @torch.inference_mode()
    def render_clips(self, clips: Sequence[Clip]) -> list[Tensor]:
        """See `libs.voice.synthesizer.ClipSynthesizer`. Raises InvalidInput for a speaker that is not there."""
        for clip in clips:
            check_speaker(clip.speaker_id, self.speakers)
        return render_clips(self.network, clips, self.device, self._noise)

    def _infer(self, clip: Clip, **part: int) -> Tensor:
        """The whole clip, or the `part` of it that `SynthesizerNetwork.infer` knows by its numbers of frames."""
        check_speaker(clip.speaker_id, self.speakers)
        noise = self._noise(clip.generator)
        wave, _, _ = self.network.infer(
            clip.content.unsqueeze(0).to(self.device),
            torch.tensor([clip.content.shape[0]], device=self.device),
            clip.coarse.unsqueeze(0).to(self.device) if self.needs_f0 else None,
            clip.f0_hz.unsqueeze(0).to(self.device) if self.needs_f0 else None,
            torch.tensor([clip.speaker_id], device=self.device),
            latent_noise=noise,
            source_noise=noise,
            **part,
        )
        return wave[0, 0].float().cpu()
