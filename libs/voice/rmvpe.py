"""What is the pitch of this recording according to RMVPE? Mel, network and decoding of the public `rmvpe.pt`.

Wei et al. 2023, "RMVPE: A robust model for vocal pitch estimation in polyphonic music" (arXiv 2306.15412).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from libs.common.errors import ModelFileRefused
from libs.voice.rmvpe_network import BINS, N_MELS, RmvpeNetwork, fold_norms
from libs.voice.rmvpe_packed import pack
from libs.voice.safe_load import load_tensors

__all__ = ["BINS", "N_MELS", "Rmvpe", "RmvpeNetwork", "decode", "load_rmvpe", "log_mel", "mel_filters", "network_of"]

SAMPLE_RATE = 16000
HOP = 160
N_FFT = 1024
MEL_FLOOR = 1e-5
DEFAULT_THRESHOLD = 0.03
CENTS_PER_BIN = 20.0
FIRST_BIN_CENTS = 1997.3794084376191
MAX_FILE_BYTES = 600 * 1024 * 1024
CHUNK_FRAMES = 2048
CHUNK_MARGIN_FRAMES = 256
"""What a chunk sees on each side of the frames that it is asked for: 2.56 s.

The pyramid of convolutions could reach 15 s and the recurrent layer has no limit. Measured on the full network with the
fixtures' weights, the salience differs by 2e-4 at 32 frames, 9e-7 at 64, and only by rounding from 128 on. Multiples of
32 keep the pooling in step."""
BATCH_FRAMES = 2560
"""Clips that the network pads to the same length go through it together up to this many frames."""

Padding = Literal["reflect", "zeros"]


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

    def __init__(
        self,
        network: RmvpeNetwork,
        device: torch.device | str = "cpu",
        padding: Padding = "reflect",
        dtype: torch.dtype = torch.float32,
        packed: bool = False,
    ) -> None:
        """`packed`: change `network` for inference on a CPU (see rmvpe_packed); it has no other use afterwards.

        `dtype`: of the convolutions, and by autocast of all products where nothing is packed.
        """
        self.device = torch.device(device)
        self.dtype = dtype
        packs = packed and self.device.type == "cpu"
        self.is_mixed = dtype != torch.float32 and not packs
        self.network = pack(network, dtype) if packs else network.to(self.device).eval()
        self.padding: Padding = padding
        self._filters = mel_filters().to(self.device)

    @torch.inference_mode()
    def salience(self, mel: Tensor) -> Tensor:
        """Salience `[T, 360]` of one log-mel `[128, T]`, or `[B, T, 360]` of several `[B, 128, T]`.

        The time axis is padded for the network (see `padding`) and cut back.
        """
        single = mel.ndim == 2
        mel = mel[None] if single else mel
        frames = mel.shape[-1]
        mel = self._padded(mel, frames + -frames % self.network.multiple).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.is_mixed):
            out: Tensor = self.network(mel)[:, :frames]
        return out[0] if single else out

    def _padded(self, mel: Tensor, length: int) -> Tensor:
        """Log-mels `[…, 128, T]` of `length` frames."""
        frames = mel.shape[-1]
        missing = length - frames
        if not missing:
            return mel
        # Reflection needs more frames than it adds; a clip under 0.3 s repeats its edge instead.
        mode = "constant" if self.padding == "zeros" else "reflect" if missing < frames else "replicate"
        return nn.functional.pad(mel, (0, missing), mode=mode)

    @torch.inference_mode()
    def f0_batch(
        self, waves: Sequence[NDArray[np.floating]], threshold: float = DEFAULT_THRESHOLD
    ) -> list[NDArray[np.float32]]:
        """`f0` `[T]` of each clip `[L]`, in the same order and with the same numbers.

        The network sees every clip padded to a multiple of 32 frames anyway; clips that are equally long then go
        through it together, so no clip is padded for another's sake and nothing needs a mask.
        """
        tracks: dict[int, NDArray[np.float32]] = {}
        groups: dict[int, list[int]] = {}
        for place, wave in enumerate(waves):
            frames = len(wave) // HOP + 1
            if len(wave) <= N_FFT // 2 or frames > CHUNK_FRAMES:
                tracks[place] = self.f0(wave, threshold)
            else:
                groups.setdefault(frames + -frames % self.network.multiple, []).append(place)
        for length, places in groups.items():
            most = max(1, BATCH_FRAMES // length)
            for first in range(0, len(places), most):
                together = places[first : first + most]
                found = self._together([waves[place] for place in together], length, threshold)
                tracks.update(zip(together, found, strict=True))
        return [tracks[place] for place in range(len(waves))]

    def _together(
        self, waves: Sequence[NDArray[np.floating]], length: int, threshold: float
    ) -> list[NDArray[np.float32]]:
        """The F0 of clips whose log-mels are `length` frames long once they are padded, each by itself."""
        counts = [len(wave) // HOP + 1 for wave in waves]
        mels = [self._padded(self._mel_of_frames(wave, 0, n), length) for wave, n in zip(waves, counts, strict=True)]
        salience = self.salience(torch.stack(mels)).float().cpu().numpy()
        return [
            decode(rows[:count], threshold).astype(np.float32) for rows, count in zip(salience, counts, strict=True)
        ]

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


def load_rmvpe(
    path: Path,
    device: torch.device | str = "cpu",
    padding: Padding = "reflect",
    dtype: torch.dtype = torch.float32,
) -> Rmvpe:
    """RMVPE from a `rmvpe.pt` (plain state dict, float32 or half). No code of the file runs.

    `dtype` as in `Rmvpe`. Raises NotFound and ModelFileRefused.
    """
    state = load_tensors(path, max_bytes=MAX_FILE_BYTES)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelFileRefused(f"rmvpe: `{path.name}` is not a plain dictionary of tensors.", field="rmvpe")
    network = network_of(state)
    if torch.device(device).type != "cpu":
        network = fold_norms(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Rmvpe(network, device, padding, dtype, packed=True)
