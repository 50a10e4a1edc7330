"""How does the text encoder attend? A post-norm transformer with relative positions within a window."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.voice.rvc.layers import ChannelNorm

WINDOW = 10


class RelativeAttention(nn.Module):
    """Self-attention on [b, c, t] with learned relative keys and values for offsets -10…10 (Shaw et al. 2018)."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.width = channels // heads
        deviation = self.width**-0.5
        self.emb_rel_k = nn.Parameter(torch.randn(1, 2 * WINDOW + 1, self.width) * deviation)
        self.emb_rel_v = nn.Parameter(torch.randn(1, 2 * WINDOW + 1, self.width) * deviation)
        self.conv_q = nn.Conv1d(channels, channels, 1)
        self.conv_k = nn.Conv1d(channels, channels, 1)
        self.conv_v = nn.Conv1d(channels, channels, 1)
        self.conv_o = nn.Conv1d(channels, channels, 1)
        self.drop = nn.Dropout(dropout)
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, c, t], mask [b, 1, t, t], 0 where nothing may be seen → [b, c, t]."""
        b, c, t = x.shape
        q, k, v = (
            conv(x).view(b, self.heads, self.width, t).transpose(2, 3)
            for conv in (self.conv_q, self.conv_k, self.conv_v)
        )
        q = q / math.sqrt(self.width)
        scores = q @ k.transpose(-2, -1) + _spread(q @ self.emb_rel_k.transpose(-2, -1))
        weights = self.drop(scores.masked_fill(mask == 0, -1e4).softmax(-1))
        out = weights @ v + _gather(weights) @ self.emb_rel_v
        y: Tensor = self.conv_o(out.transpose(2, 3).reshape(b, c, t))
        return y


def _spread(relative: Tensor) -> Tensor:
    """[…, t, 21] by offset → […, t, t] by position: row i holds its 21 values in columns i-10…i+10, zeros elsewhere.

    Written into rows of t+21 values and read again in rows of t+20, each row moves one step to the right of the row
    above it: a band without any index arithmetic.
    """
    t, band = relative.shape[-2:]
    flat = F.pad(relative, (0, t)).flatten(-2)[..., : t * (t + band - 1)]
    rows: Tensor = flat.reshape(*flat.shape[:-1], t, t + band - 1)
    return rows[..., WINDOW : WINDOW + t]


def _gather(weights: Tensor) -> Tensor:
    """[…, t, t] by position → […, t, 21] by offset: the way back of `_spread`."""
    t = weights.shape[-1]
    band = 2 * WINDOW + 1
    flat = F.pad(F.pad(weights, (WINDOW, WINDOW)).flatten(-2), (0, t))
    rows: Tensor = flat.reshape(*flat.shape[:-1], t, t + band)
    return rows[..., :band]


class FeedForward(nn.Module):
    """Two convolutions with ReLU between them, padded to keep the length."""

    def __init__(self, channels: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.padding = ((kernel - 1) // 2, kernel // 2)
        self.conv_1 = nn.Conv1d(channels, inner, kernel)
        self.conv_2 = nn.Conv1d(inner, channels, kernel)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, c, t], mask [b, 1, t] → [b, c, t]."""
        x = self.drop(torch.relu(self.conv_1(F.pad(x * mask, self.padding))))
        y: Tensor = self.conv_2(F.pad(x * mask, self.padding)) * mask
        return y


class Transformer(nn.Module):
    """Layers of attention and feed-forward, each added and then normed: [b, c, t] → [b, c, t]."""

    def __init__(self, channels: int, inner: int, heads: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.attn_layers = nn.ModuleList(RelativeAttention(channels, heads, dropout) for _ in range(layers))
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(FeedForward(channels, inner, kernel, dropout) for _ in range(layers))
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, c, t], mask [b, 1, t] → [b, c, t]."""
        pairs = mask.unsqueeze(2) * mask.unsqueeze(-1)
        x = x * mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attend, norm_1, feed, norm_2 in layers:
            x = norm_1(x + self.drop(attend(x, pairs)))
            x = norm_2(x + self.drop(feed(x, mask)))
        return x * mask
