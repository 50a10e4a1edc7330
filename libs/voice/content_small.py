"""What is said, with no download? The content encoder that comes inside the package.

Trained by `scripts/pretrain` on openly licensed speech; data, numbers and limits are in `docs/models.md`. Its features
are phone posteriors, not a hidden layer: the hidden layers tell more about who speaks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from libs.common.errors import ModelFileRefused, RecordingTooShort
from libs.voice.content_batches import GPU_BATCH_SAMPLES, in_batches
from libs.voice.content_network import (
    MEL_HOP,
    SAMPLE_RATE,
    WINDOW,
    ContentConfig,
    ContentNetwork,
    level_of_speech,
    log_mel,
    mel_filters,
    pack,
)

Float32 = NDArray[np.float32]

FEATURE_SCALE = 3.0
"""Posteriors are multiplied by this: numbers of HuBERT's size, which networks and indices are used to."""

FINER_SCALE = 0.25
"""The finer features of version 2 are multiplied by this: 64 of them are then as long a vector as the posteriors."""

CPU_BATCH_SAMPLES = 30 * SAMPLE_RATE
"""Clips that go together on a CPU: this network is so small that a batch of ten saves an eighth of the time."""

CHUNK_FRAMES = 1500
"""Frames of 20 ms that go through the network at once (30 s): memory stays bounded for any length."""


def packaged_weights() -> Path:
    """The weights file inside the package."""
    return Path(str(files("libs.voice") / "assets" / "voicewright-content.safetensors"))


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """(SHA-256, description, weights) of a weights file; `stamp` is its time of change, so that a new file is read."""
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"]["voicewright"])
        weights = load(content)
    except (SafetensorError, KeyError, ValueError) as broken:
        raise ModelFileRefused(f"{path.name} is not a content encoder of this platform: {broken}") from broken
    return hashlib.sha256(content).hexdigest(), about, weights


class SmallContentEncoder(nn.Module):
    """Speech → content features on HuBERT's grid: 50 Hz, 768 wide, of which the first `used_width` are not zero."""

    width = 768

    def __init__(
        self,
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        chunk_frames: int = CHUNK_FRAMES,
        packed: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`weights`: a file written by `scripts/pretrain/encoder.py`; the packaged one by default.

        `packed`: false leaves the network's products as they are, for comparison (see packed_linear). `dtype`: of the
        packed products, float32 or bfloat16.

        Raises ModelFileRefused when the file is something else.
        """
        super().__init__()
        self.chunk_frames = chunk_frames
        path = weights or packaged_weights()
        self.checksum, about, state = _read(path, path.stat().st_mtime_ns)
        config = ContentConfig(**about["config"])
        self.name = f"{about['name']}-{about['version']}"
        self.used_width = config.classes + config.finer
        self.network = ContentNetwork(config)
        try:
            self.network.load_state_dict({name: value.float() for name, value in state.items()})
        except RuntimeError as misfit:
            raise ModelFileRefused(f"{path.name} does not fit its own description: {misfit}") from misfit
        self.filters: Tensor
        self.register_buffer("filters", mel_filters(config.bands), persistent=False)
        self.dtype = torch.float32
        self.batch_samples = GPU_BATCH_SAMPLES if torch.device(device).type != "cpu" else CPU_BATCH_SAMPLES
        self.to(device)
        self.eval().requires_grad_(False)
        if packed and torch.device(device).type == "cpu":
            self.dtype = dtype
            pack(self.network, dtype)

    def encode(self, wave16k: Float32) -> Float32:
        """`wave16k`: float32 `[T]` in -1…1 at 16 kHz → features float32 `[(T - 400) // 320 + 1, 768]`, 50 per second.

        Frame i is centred on sample 320 i + 200. The same wave gives the same features; loudness does not matter.
        Raises RecordingTooShort under 400 samples (25 ms).
        """
        _require_length(wave16k)
        with torch.inference_mode():
            mel = self._normalised_mel(wave16k)
            frames = (mel.shape[1] - 1) // 2 + 1
            features = np.zeros((frames, self.width), np.float32)
            context = self.network.config.context
            for start in range(0, frames, self.chunk_frames):
                # Each chunk sees all that its frames depend on, so the seams are exact:
                #   |··context··|======== chunk ========|··context··|
                stop = min(start + self.chunk_frames, frames)
                left, right = max(start - context, 0), min(stop + context, frames)
                logits = self.network(mel[None, :, 2 * left : 2 * right])[0]
                features[start:stop, : self.used_width] = self._scaled(logits[:, start - left : stop - left])
        return features

    def encode_batch(self, waves: Sequence[Float32]) -> list[Float32]:
        """Features `[Th, 768]` of each clip as `encode` gives them alone, to about 1e-5. Raises RecordingTooShort."""
        for wave in waves:
            _require_length(wave)
        return in_batches(waves, self.batch_samples, self._together)

    @torch.inference_mode()
    def _together(self, waves: list[Float32]) -> list[Float32]:
        if len(waves) == 1:
            return [self.encode(waves[0])]
        mels = [self._normalised_mel(wave) for wave in waves]
        lengths = [mel.shape[1] for mel in mels]
        batch = nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
        features = []
        for logits, length in zip(self.network(batch, lengths), lengths, strict=True):
            frames = (length - 1) // 2 + 1
            clip = np.zeros((frames, self.width), np.float32)
            clip[:, : self.used_width] = self._scaled(logits[:, :frames])
            features.append(clip)
        return features

    def _scaled(self, out: Tensor) -> Float32:
        """What the network gives, `[used_width, T]` → features `[T, used_width]`."""
        classes = self.network.config.classes
        posteriors = FEATURE_SCALE * functional.softmax(out[:classes], dim=0)
        return np.asarray(torch.cat((posteriors, FINER_SCALE * out[classes:])).T.cpu().numpy())

    def _normalised_mel(self, wave16k: Float32) -> Tensor:
        mel = self._mel(torch.from_numpy(np.ascontiguousarray(wave16k, dtype=np.float32)))
        return mel - level_of_speech(mel)

    def _mel(self, wave: Tensor) -> Tensor:
        """Log-mel of the whole wave, made in pieces."""
        count = (len(wave) - WINDOW) // MEL_HOP + 1
        pieces = []
        for start in range(0, count, 2 * self.chunk_frames):
            stop = min(start + 2 * self.chunk_frames, count)
            piece = wave[start * MEL_HOP : (stop - 1) * MEL_HOP + WINDOW]
            pieces.append(log_mel(piece.to(self.filters.device), self.filters))
        return torch.cat(pieces, dim=1)


def _require_length(wave16k: Float32) -> None:
    if len(wave16k) < WINDOW:
        raise RecordingTooShort(
            f"{len(wave16k)} samples given; content features need at least {WINDOW} at {SAMPLE_RATE} Hz"
        )
