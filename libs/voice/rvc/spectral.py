"""Which spectrograms do RVC's posterior encoder and losses see?"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SPEC_EPSILON = 1e-6
"""Inside the square root. 2e-7 in the newest upstream; all public base models were made with 1e-6."""
MEL_FLOOR = 1e-5


def linear_spectrogram(wave: Tensor, n_fft: int, hop: int, epsilon: float = SPEC_EPSILON) -> Tensor:
    """wave [b, t] in -1…1 → magnitudes [b, n_fft // 2 + 1, t // hop].

    Hann window of n_fft, reflected by (n_fft - hop) // 2 at both ends, not centred: the middle of frame i is at
    i * hop + hop / 2.
    """
    padding = (n_fft - hop) // 2
    padded = F.pad(wave.unsqueeze(1), (padding, padding), mode="reflect").squeeze(1)
    window = torch.hann_window(n_fft, device=wave.device)
    spec = torch.stft(padded.float(), n_fft, hop, n_fft, window, center=False, return_complex=True)
    return torch.sqrt(spec.real.square() + spec.imag.square() + epsilon)


def log_mel(spec: Tensor, sample_rate: int, n_fft: int, n_mels: int, floor: float = MEL_FLOOR) -> Tensor:
    """Magnitudes [b, bins, t] → natural log of mel bands [b, n_mels, t]; 0 Hz to half the rate."""
    basis = mel_basis(sample_rate, n_fft, n_mels).to(spec)
    return torch.log((basis @ spec).clamp(min=floor))


@functools.lru_cache(maxsize=32)
def mel_basis(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular bands on Slaney's mel scale, each of unit area: float32 [n_mels, n_fft // 2 + 1].

    Source: Slaney, Auditory Toolbox (1998): linear below 1 kHz (200/3 Hz per mel), above it logarithmic (27 steps per
    6.4-fold).
    """
    break_hz, per_mel, step = 1000.0, 200.0 / 3, math.log(6.4) / 27
    break_mel = break_hz / per_mel
    top = sample_rate / 2
    top_mel = break_mel + math.log(top / break_hz) / step if top >= break_hz else top / per_mel
    mels = np.linspace(0.0, top_mel, n_mels + 2)
    edges = np.where(mels >= break_mel, break_hz * np.exp(step * (mels - break_mel)), per_mel * mels)
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    widths = np.diff(edges)
    slopes = edges[:, None] - bins[None, :]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    bands = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(bands.astype(np.float32))
