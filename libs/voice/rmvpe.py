"""What is the pitch of this recording according to RMVPE? Mel, network and decoding of the public `rmvpe.pt`.

Wei et al. 2023, "RMVPE: A robust model for vocal pitch estimation in polyphonic music" (arXiv 2306.15412).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from libs.common.errors import ModelFileRefused
from libs.voice.safe_load import load_tensors

SAMPLE_RATE = 16000
HOP = 160
N_FFT = 1024
N_MELS = 128
BINS = 360
MEL_FLOOR = 1e-5
DEFAULT_THRESHOLD = 0.03
CENTS_PER_BIN = 20.0
FIRST_BIN_CENTS = 1997.3794084376191
MAX_FILE_BYTES = 600 * 1024 * 1024
CHUNK_FRAMES = 2048
CHUNK_MARGIN_FRAMES = 128

Padding = Literal["reflect", "zeros"]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and ReLU, plus the input. `[B, in, T, F]` → `[B, out, T, F]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.shortcut: nn.Module = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) + self.shortcut(x)
        return out


class BlockStack(nn.Module):
    """`blocks` residual blocks in a row, the first changes the channel count."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.conv = nn.ModuleList(ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.conv:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Halves time and frequency per layer and keeps what it had before for the decoder."""

    def __init__(self, inputs: int, channels: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        stacks = []
        for i in range(layers):
            outputs = channels * 2**i
            stacks.append(BlockStack(inputs, outputs, blocks))
            inputs = outputs
        self.layers = nn.ModuleList(stacks)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.bn(x)
        skips = []
        for layer in self.layers:
            x = layer(x)
            skips.append(x)
            x = nn.functional.avg_pool2d(x, 2)
        return x, skips


class Intermediate(nn.Module):
    """The bottom of the U."""

    def __init__(self, inputs: int, outputs: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BlockStack(inputs if i == 0 else outputs, outputs, blocks) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class DecoderLayer(nn.Module):
    """Doubles time and frequency, then joins the encoder's tensor of that size."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.conv2 = nn.ModuleList(ResidualBlock(outputs * 2 if i == 0 else outputs, outputs) for i in range(blocks))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat((self.conv1(x), skip), dim=1)
        for block in self.conv2:
            x = block(x)
        return x


class Decoder(nn.Module):
    """The way up."""

    def __init__(self, inputs: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(inputs // 2**i, inputs // 2 ** (i + 1), blocks) for i in range(layers))

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for layer, skip in zip(self.layers, reversed(skips), strict=True):
            x = layer(x, skip)
        return x


class DeepUnet(nn.Module):
    """Encoder, bottom and decoder. `[B, 1, T, 128]` → `[B, channels, T, 128]`."""

    def __init__(self, blocks: int, layers: int, bottom_layers: int, channels: int) -> None:
        super().__init__()
        top = channels * 2 ** (layers - 1)
        self.encoder = Encoder(1, channels, layers, blocks)
        self.intermediate = Intermediate(top, top * 2, bottom_layers, blocks)
        self.decoder = Decoder(top * 2, layers, blocks)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.encoder(x)
        out: Tensor = self.decoder(self.intermediate(x), skips)
        return out


class BiGru(nn.Module):
    """One bidirectional GRU layer. `[B, T, inputs]` → `[B, T, 2 * hidden]`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden, num_layers=1, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gru(x)[0]
        return out


class RmvpeNetwork(nn.Module):
    """The network `E2E` of RMVPE. Log-mel `[B, 128, T]`, T a multiple of `2 ** layers` → salience `[B, T, 360]` in 0…1.

    Defaults are the public model's (741 tensors). Names of tensors are the public file's.
    """

    def __init__(self, blocks: int = 4, layers: int = 5, bottom_layers: int = 4, channels: int = 16) -> None:
        super().__init__()
        self.multiple = 2**layers
        self.unet = DeepUnet(blocks, layers, bottom_layers, channels)
        self.cnn = nn.Conv2d(channels, 3, 3, padding=1)
        self.fc = nn.Sequential(BiGru(3 * N_MELS, 256), nn.Linear(512, BINS), nn.Dropout(0.25), nn.Sigmoid())

    def forward(self, mel: Tensor) -> Tensor:
        x = self.cnn(self.unet(mel.transpose(-1, -2).unsqueeze(1)))
        salience: Tensor = self.fc(x.transpose(1, 2).flatten(-2))
        return salience


def mel_filters() -> Tensor:
    """128 triangles of unit area from 30 to 8000 Hz on the HTK mel scale → float32 `[128, 513]`."""

    def to_mel(hz: float) -> float:
        return 2595.0 * math.log10(1.0 + hz / 700.0)

    points = np.linspace(to_mel(30.0), to_mel(8000.0), N_MELS + 2)
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    rising = (bins[None, :] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins[None, :]) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


def log_mel(wave: Tensor, filters: Tensor | None = None) -> Tensor:
    """Natural log of the magnitude mel. `wave` float32 `[L]` at 16 kHz, L > 512 → `[128, L // 160 + 1]`."""
    window = torch.hann_window(N_FFT, device=wave.device)
    spectrum = torch.stft(wave, N_FFT, HOP, N_FFT, window, center=True, pad_mode="reflect", return_complex=True)
    filters = mel_filters().to(wave.device) if filters is None else filters
    return torch.log(torch.clamp(filters @ spectrum.abs(), min=MEL_FLOOR))


def decode(salience: NDArray[np.floating], threshold: float = DEFAULT_THRESHOLD) -> NDArray[np.float64]:
    """F0 in Hz `[T]` from salience `[T, 360]`: mean of nine bins around the highest, 0 where it is ≤ `threshold`."""
    frames = len(salience)
    peak = np.argmax(salience, axis=1)
    cents = np.pad(CENTS_PER_BIN * np.arange(BINS) + FIRST_BIN_CENTS, 4)
    padded = np.pad(salience, ((0, 0), (4, 4)))
    around = peak[:, None] + np.arange(9)[None, :]
    weights = padded[np.arange(frames)[:, None], around].astype(np.float64)
    total = weights.sum(axis=1)
    mean = (weights * cents[around]).sum(axis=1) / np.where(total > 0, total, 1.0)
    voiced = salience.max(axis=1, initial=0.0) > threshold
    return np.where(voiced & (mean > 0), 10.0 * 2.0 ** (mean / 1200.0), 0.0)


class Rmvpe:
    """RMVPE ready to use: `f0(wave16k)`. Holds about 362 MB of weights in float32."""

    def __init__(self, network: RmvpeNetwork, device: torch.device | str = "cpu", padding: Padding = "reflect") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.padding: Padding = padding
        self._filters = mel_filters().to(self.device)

    @torch.inference_mode()
    def salience(self, mel: Tensor) -> Tensor:
        """Salience `[T, 360]` of one log-mel `[128, T]`; the time axis is padded for the network and cut back."""
        frames = mel.shape[-1]
        missing = -frames % self.network.multiple
        if missing:
            # Reflection needs more frames than it adds; a clip under 0.3 s repeats its edge instead.
            mode = "constant" if self.padding == "zeros" else "reflect" if missing < frames else "replicate"
            mel = nn.functional.pad(mel[None], (0, missing), mode=mode)[0]
        out: Tensor = self.network(mel[None].to(self.device))[0, :frames]
        return out

    @torch.inference_mode()
    def f0(self, wave: NDArray[np.floating], threshold: float = DEFAULT_THRESHOLD) -> NDArray[np.float32]:
        """F0 of a recording. `wave` `[L]` in -1…1 at 16 kHz → float32 Hz `[L // 160 + 1]`, 0 where unvoiced.

        More than 20 s are worked through in overlapping chunks, so that memory does not grow with the length.
        """
        frames = len(wave) // HOP + 1
        if len(wave) <= N_FFT // 2:
            wave = np.pad(wave, (0, N_FFT // 2 + 1 - len(wave)))
        out = np.zeros(frames, dtype=np.float32)
        for first in range(0, frames, CHUNK_FRAMES):
            last = min(frames, first + CHUNK_FRAMES)
            begin, end = max(0, first - CHUNK_MARGIN_FRAMES), min(frames, last + CHUNK_MARGIN_FRAMES)
            mel = self._mel_of_frames(wave, begin, end)
            part = decode(self.salience(mel).float().cpu().numpy(), threshold)
            out[first:last] = part[first - begin : last - begin]
        return out

    def _mel_of_frames(self, wave: NDArray[np.floating], begin: int, end: int) -> Tensor:
        """Frames `[begin, end)` of the whole recording's log-mel, from just the samples they see.

        samples   … |<- 4 hops ->| begin*160 … (end-1)*160 |<- 4 hops ->| …
        The STFT of this stretch reflects at its own ends; with 4 extra frames (640 > 512 samples) each side the
        reflection stays outside the frames that are kept, except at the true ends, where it is the right one.
        """
        context = 4
        from_frame = max(0, begin - context)
        from_sample, to_sample = from_frame * HOP, min(len(wave), (end - 1 + context) * HOP + 1)
        stretch = torch.from_numpy(np.ascontiguousarray(wave[from_sample:to_sample], dtype=np.float32))
        mel = log_mel(stretch.to(self.device), self._filters)
        return mel[:, begin - from_frame : end - from_frame]


def network_of(state: dict[str, Tensor]) -> RmvpeNetwork:
    """A network with the dimensions that a state dict's tensor names and shapes tell. Raises ModelFileRefused."""

    def count(prefix: str) -> int:
        part = prefix.count(".")
        numbers = {key.split(".")[part] for key in state if key.startswith(prefix)}
        return len(numbers)

    first = state.get("unet.encoder.layers.0.conv.0.conv.0.weight")
    layers, bottom, blocks = (
        count("unet.encoder.layers."),
        count("unet.intermediate.layers."),
        count("unet.encoder.layers.0.conv."),
    )
    if first is None or first.ndim != 4 or not (1 <= layers <= 6 and 1 <= bottom <= 8 and 1 <= blocks <= 8):
        raise ModelFileRefused("This file is no RMVPE model: its first convolution is missing.", field="rmvpe")
    if not 1 <= first.shape[0] <= 64:
        raise ModelFileRefused(f"RMVPE: {first.shape[0]} channels in the first layer, at most 64 are accepted.")
    # Shapes are checked on an empty skeleton first, so that a lying file costs no memory.
    with torch.device("meta"):
        skeleton = RmvpeNetwork(blocks, layers, bottom, int(first.shape[0]))
    expected = {key: tuple(value.shape) for key, value in skeleton.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise ModelFileRefused(
            f"RMVPE: {len(wrong)} tensors are missing, unknown or of another shape, first `{wrong[0]}`.", field="rmvpe"
        )
    network = RmvpeNetwork(blocks, layers, bottom, int(first.shape[0]))
    network.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    )
    return network


def load_rmvpe(path: Path, device: torch.device | str = "cpu", padding: Padding = "reflect") -> Rmvpe:
    """RMVPE from a `rmvpe.pt` (plain state dict, float32 or half). No code of the file runs.

    Raises NotFound and ModelFileRefused.
    """
    state = load_tensors(path, max_bytes=MAX_FILE_BYTES)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelFileRefused(f"rmvpe: `{path.name}` is not a plain dictionary of tensors.", field="rmvpe")
    return Rmvpe(network_of(state), device, padding)
