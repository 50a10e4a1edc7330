"""What is the whole RVC network? Text encoder, posterior encoder, flow, generator and speaker table as one module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from libs.voice.rvc.config import NetworkConfig
from libs.voice.rvc.encoders import Flow, PosteriorEncoder, TextEncoder
from libs.voice.rvc.generator import Generator
from libs.voice.rvc.layers import Noise, take_segments

INFERENCE_NOISE = 0.66666
FLOW_CONTEXT_FRAMES = 24


@dataclass(frozen=True)
class TrainingOutput:
    """What the losses need: `wave` [b, 1, segment * hop] from `starts` on, latents [b, inter, t], mask [b, 1, t]."""

    wave: Tensor
    starts: Tensor
    mask: Tensor
    z: Tensor
    z_p: Tensor
    m_p: Tensor
    logs_p: Tensor
    m_q: Tensor
    logs_q: Tensor


class SynthesizerNetwork(nn.Module):
    """RVC's synthesizer (VITS, Kim et al. 2021, on content features). v1 reads 256 values per frame, v2 768.

    The parts are registered in the order of RVC's own files, v2 with the text encoder last, because optimizer states in
    training checkpoints are by position.
    """

    def __init__(self, config: NetworkConfig, *, with_posterior: bool = True) -> None:
        super().__init__()
        self.config = config
        if config.version == "v1":
            self.enc_p = TextEncoder(config)
        self.dec = Generator(config)
        if with_posterior:
            self.enc_q = PosteriorEncoder(config)
        self.flow = Flow(config)
        self.emb_g = nn.Embedding(config.speakers, config.gin_channels)
        if config.version != "v1":
            self.enc_p = TextEncoder(config)

    def speaker(self, speaker_ids: Tensor) -> Tensor:
        """int64 [b] → [b, gin, 1]."""
        table: Tensor = self.emb_g(speaker_ids)
        return table.unsqueeze(-1)

    def forward(
        self,
        phone: Tensor,
        pitch: Tensor | None,
        f0: Tensor | None,
        spec: Tensor,
        lengths: Tensor,
        speaker_ids: Tensor,
        *,
        uniform: Tensor,
        latent_noise: Noise,
        source_noise: Noise,
    ) -> TrainingOutput:
        """The forward pass of training: one random segment per item is decoded.

        phone [b, t, width]; pitch int64 [b, t]; f0 Hz [b, t]; spec [b, bins, t]; lengths int64 [b];
        uniform [b] in 0…1 places the segments: start = floor(u * (length - segment + 1)), at least 0.
        """
        segment = self.config.segment_frames
        g = self.speaker(speaker_ids)
        m_p, logs_p, _ = self.enc_p(phone, pitch, lengths)
        z, m_q, logs_q, mask = self.enc_q(spec, lengths, g, latent_noise)
        z_p = self.flow(z, mask, g)
        starts = (uniform.to(lengths.device) * (lengths - segment + 1).clamp(min=1)).long()
        f0_segment = take_segments(f0, starts, segment) if f0 is not None else None
        wave = self.dec(take_segments(z, starts, segment), f0_segment, g, source_noise)
        return TrainingOutput(wave, starts, mask, z, z_p, m_p, logs_p, m_q, logs_q)

    @torch.no_grad()
    def infer(
        self,
        phone: Tensor,
        lengths: Tensor,
        pitch: Tensor | None,
        f0: Tensor | None,
        speaker_ids: Tensor,
        *,
        latent_noise: Noise,
        source_noise: Noise,
        skip_head: int = 0,
        return_length: int | None = None,
        stretched_length: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Content to sound: → wave [b, 1, n * hop], z and z_p [b, inter, n].

        With `return_length` only that many frames after `skip_head` are decoded (the encoder sees all frames, the flow
        starts 24 frames before), stretched to `stretched_length` frames if that differs: the realtime path.
        """
        g = self.speaker(speaker_ids)
        m_p, logs_p, mask = self.enc_p(phone, pitch, lengths)
        first = max(skip_head - FLOW_CONTEXT_FRAMES, 0) if return_length is not None else 0
        z_p = (m_p + torch.exp(logs_p) * latent_noise(m_p) * INFERENCE_NOISE) * mask
        z_p, mask = z_p[:, :, first:], mask[:, :, first:]
        z = self.flow(z_p, mask, g, reverse=True)
        if return_length is not None:
            begin = skip_head - first
            z, mask = z[:, :, begin : begin + return_length], mask[:, :, begin : begin + return_length]
            f0 = f0[:, skip_head : skip_head + return_length] if f0 is not None else None
        wave = self.dec(z * mask, f0, g, source_noise, stretched_length)
        return wave, z, z_p
