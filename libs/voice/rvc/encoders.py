"""How do content features, spectrograms and speakers become latents? Text encoder, posterior encoder, flow."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.voice.rvc.attention import Transformer
from libs.voice.rvc.config import NetworkConfig
from libs.voice.rvc.layers import LRELU_SLOPE, Noise, WaveNet, sequence_mask

POSTERIOR_LAYERS = 16
FLOW_LAYERS = 3
FLOWS = 4


class TextEncoder(nn.Module):
    """Content features and coarse pitch → mean and log deviation of the prior."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.inter = config.inter_channels
        self.scale = math.sqrt(config.hidden_channels)
        self.emb_phone = nn.Linear(config.content_width, config.hidden_channels)
        self.emb_pitch = nn.Embedding(256, config.hidden_channels) if config.f0 else None
        self.encoder = Transformer(
            config.hidden_channels,
            config.filter_channels,
            config.n_heads,
            config.n_layers,
            config.kernel_size,
            config.dropout,
        )
        self.proj = nn.Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)

    def forward(self, phone: Tensor, pitch: Tensor | None, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """phone [b, t, width], pitch int64 [b, t] in 1…255, lengths [b] → m, logs [b, inter, t], mask [b, 1, t]."""
        x = self.emb_phone(phone)
        if self.emb_pitch is not None:
            assert pitch is not None, "this voice needs pitch"
            x = x + self.emb_pitch(pitch)
        x = F.leaky_relu(x * self.scale, LRELU_SLOPE).transpose(1, 2)
        mask = sequence_mask(lengths, x.shape[2]).unsqueeze(1).to(x)
        x = self.encoder(x * mask, mask)
        m, logs = (self.proj(x) * mask).split(self.inter, dim=1)
        return m, logs, mask


class PosteriorEncoder(nn.Module):
    """Linear spectrogram → a sample of the latent, its mean and log deviation. Used in training alone."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.inter = config.inter_channels
        hidden = config.hidden_channels
        self.pre = nn.Conv1d(config.spec_channels, hidden, 1)
        self.enc = WaveNet(hidden, 5, 1, POSTERIOR_LAYERS, config.gin_channels)
        self.proj = nn.Conv1d(hidden, 2 * config.inter_channels, 1)

    def forward(self, spec: Tensor, lengths: Tensor, g: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """spec [b, bins, t], lengths [b], g [b, gin, 1] → z, m, logs [b, inter, t], mask [b, 1, t]."""
        mask = sequence_mask(lengths, spec.shape[2]).unsqueeze(1).to(spec)
        x = self.enc(self.pre(spec) * mask, mask, g)
        m, logs = (self.proj(x) * mask).split(self.inter, dim=1)
        z = (m + noise(m) * torch.exp(logs)) * mask
        return z, m, logs, mask


class Coupling(nn.Module):
    """Affine coupling that only shifts (RealNVP, mean only): one half decides by how much the other moves."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.half_width = config.inter_channels // 2
        hidden = config.hidden_channels
        self.pre = nn.Conv1d(self.half_width, hidden, 1)
        self.enc = WaveNet(hidden, 5, 1, FLOW_LAYERS, config.gin_channels)
        self.post = nn.Conv1d(hidden, self.half_width, 1)
        nn.init.zeros_(self.post.weight)
        assert self.post.bias is not None
        nn.init.zeros_(self.post.bias)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool) -> Tensor:
        """x [b, c, t], mask [b, 1, t], speaker g [b, gin, 1] → [b, c, t]; `reverse` undoes it."""
        still, moved = torch.split(x, self.half_width, dim=1)
        shift = self.post(self.enc(self.pre(still) * mask, mask, g)) * mask
        moved = (moved - shift) * mask if reverse else shift + moved * mask
        return torch.cat([still, moved], dim=1)


class Flip(nn.Module):
    """Reverses the channels, so that the next coupling moves the other half."""

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool) -> Tensor:
        """x [b, c, t] → [b, c, t]; its own reverse, mask and speaker are not looked at."""
        return torch.flip(x, [1])


class Flow(nn.Module):
    """Four couplings with flips: latent of the posterior ↔ latent of the prior, [b, inter, t]."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.flows = nn.ModuleList()
        for _ in range(FLOWS):
            self.flows.append(Coupling(config))
            self.flows.append(Flip())

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        """x [b, c, t], mask [b, 1, t], speaker g [b, gin, 1] → [b, c, t]; `reverse` goes from prior to latent."""
        for flow in reversed(self.flows) if reverse else self.flows:
            x = flow(x, mask, g, reverse)
        return x
