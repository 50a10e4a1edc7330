"""How does a trained RVC network sing one clip?"""

from __future__ import annotations

import torch
from torch import Tensor

from libs.common.errors import InvalidInput
from libs.voice.rvc.layers import fold_weight_norm, noise_from
from libs.voice.rvc.synthesizer import SynthesizerNetwork


class RvcSynthesizer:
    """A voice in RVC's format, ready to render; implements `libs.voice.artefact.Synthesizer`."""

    def __init__(self, network: SynthesizerNetwork, device: torch.device) -> None:
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
        if not 0 <= speaker_id < self.speakers:
            raise InvalidInput(
                f"speaker_id is {speaker_id}; this voice has 0 to {self.speakers - 1}", field="speaker_id"
            )
        noise = noise_from(generator)
        wave, _, _ = self.network.infer(
            content.unsqueeze(0).to(self.device),
            torch.tensor([content.shape[0]], device=self.device),
            coarse.unsqueeze(0).to(self.device) if self.needs_f0 else None,
            f0_hz.unsqueeze(0).to(self.device) if self.needs_f0 else None,
            torch.tensor([speaker_id], device=self.device),
            latent_noise=noise,
            source_noise=noise,
        )
        return wave[0, 0].float().cpu()
