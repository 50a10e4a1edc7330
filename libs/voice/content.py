"""What is said here, frame by frame? The one door to content encoders: HuBERT when its file is there, else our own.

No function here needs fairseq; a build with it would be reached through this module alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from libs.common.errors import InvalidInput, RecordingTooShort
from libs.voice.content_batches import batch_samples, in_batches, padded
from libs.voice.device import precision_name
from libs.voice.hubert import RECEPTIVE_FIELD, STRIDE, Hubert, load_hubert
from libs.voice.hubert_packed import pack
from libs.voice.hubert_transformers import normalises, weights_file

Float32 = NDArray[np.float32]
Version = Literal["v1", "v2"]

WIDTHS: dict[str, int] = {"v1": 256, "v2": 768}
V1_LAYER = 9
V2_LAYER = 12


class ContentEncoder(Protocol):
    """Speech → features of what is said, 50 per second.

    `name` and `checksum` (SHA-256 of the weights, hex) go into the model card; features of two encoders never mix.
    """

    @property
    def name(self) -> str:
        """`hubert` or the built-in encoder's name."""
        ...

    @property
    def checksum(self) -> str:
        """SHA-256 of the weights file."""
        ...

    @property
    def width(self) -> int:
        """Values per frame: 768 (v2) or 256 (v1)."""
        ...

    def encode(self, wave16k: Float32) -> Float32:
        """`wave16k` float32 `[L]` in -1…1 at 16 kHz → float32 `[Th, width]`, Th = (L - 400) // 320 + 1.

        Raises RecordingTooShort below 400 samples.
        """
        ...


@runtime_checkable
class BatchEncoder(ContentEncoder, Protocol):
    """An encoder that takes many clips at once."""

    def encode_batch(self, waves: Sequence[Float32]) -> list[Float32]:
        """The features `[Th, width]` of each clip `[L]`, as `encode` gives them alone (to 2e-5 of each value).

        Raises RecordingTooShort when a clip has fewer than 400 samples.
        """
        ...


def encode_batch(encoder: ContentEncoder, waves: Sequence[Float32]) -> list[Float32]:
    """The features of `waves` (each float32 `[L]` at 16 kHz) by `encoder`: together where it can, else one by one."""
    if isinstance(encoder, BatchEncoder):
        return encoder.encode_batch(waves)
    return [encoder.encode(wave) for wave in waves]


def frame_count(samples: int) -> int:
    """Content frames of `samples` at 16 kHz: one per 320 after the first 400; 0 below 400."""
    return (samples - RECEPTIVE_FIELD) // STRIDE + 1 if samples >= RECEPTIVE_FIELD else 0


def require_length(wave: NDArray[np.floating]) -> None:
    """Raises RecordingTooShort when `wave` `[L]` at 16 kHz is too short for one frame."""
    if len(wave) < RECEPTIVE_FIELD:
        raise RecordingTooShort(
            f"{len(wave)} samples at 16 kHz given ({len(wave) / 16:.1f} ms); content features need at least "
            f"{RECEPTIVE_FIELD} (25 ms).",
            field="recording",
        )


class HubertEncoder:
    """HuBERT / ContentVec as RVC uses it: layer 9 projected to 256 (v1), or layer 12 (v2)."""

    def __init__(
        self,
        network: Hubert,
        checksum: str,
        version: Version = "v2",
        device: torch.device | str = "cpu",
        name: str = "hubert",
        dtype: torch.dtype = torch.float32,
        packed: bool = True,
    ) -> None:
        """`network` is changed for inference (see hubert_packed) and must not be used for anything else afterwards.

        `dtype`: bfloat16 makes a processor that multiplies it natively faster and leaves three digits; off by default.
        On a GPU it is autocast's.
        `packed`: false leaves the network as it is, for comparison.
        Raises InvalidInput for v1 without a final projection.
        """
        layers = network.config.layers
        self.name = name
        self.checksum = checksum
        self.layer = min(V1_LAYER if version == "v1" else V2_LAYER, layers)
        self.project = version == "v1"
        if self.project and network.config.projected_width is None:
            raise InvalidInput("This HuBERT has no final projection, which v1 voices need; use v2.", field="version")
        self.width = int(network.config.projected_width or 0) if self.project else network.config.width
        self.device = torch.device(device)
        self.dtype = dtype
        self.batch_samples = batch_samples(self.device)
        packs = packed and self.device.type == "cpu"
        self.is_mixed = dtype != torch.float32 and not packs
        self.network = pack(network, dtype) if packs else network.to(self.device)

    def encode(self, wave16k: Float32) -> Float32:
        """See `ContentEncoder.encode`. The recording is taken as a whole, as the reference does."""
        require_length(wave16k)
        return self._together([wave16k])[0]

    def encode_batch(self, waves: Sequence[Float32]) -> list[Float32]:
        """See `BatchEncoder.encode_batch`: like lengths side by side, padding masked in every step that sees time."""
        for wave in waves:
            require_length(wave)
        return in_batches(waves, self.batch_samples, self._together)

    @torch.inference_mode()
    def _together(self, waves: list[Float32]) -> list[Float32]:
        lengths = [len(wave) for wave in waves]
        with torch.autocast(self.device.type, self.dtype, enabled=self.is_mixed):
            found = self.network.features(padded(waves).to(self.device), self.layer, self.project, lengths)
        rows = found.float().cpu().numpy()
        return [np.array(row[: frame_count(n)], np.float32) for row, n in zip(rows, lengths, strict=True)]


def load_content_encoder(
    hubert_path: Path | None,
    *,
    version: Version = "v2",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ContentEncoder:
    """The encoder of this installation: HuBERT when `hubert_path` is there, otherwise the built-in one (v2 only).

    `hubert_path`: a checkpoint in fairseq's format, or a folder as transformers writes it. `dtype`: float32, or
    bfloat16 for speed at three digits (`device.pick_feature_precision` says where it can be had).
    Raises ModelFileRefused for an unreadable HuBERT file (a broken file is never silently replaced), InvalidInput for
    v1 without HuBERT.
    """
    if version not in WIDTHS:
        raise InvalidInput(f"version is {version!r}; v1 and v2 exist.", field="version")
    if hubert_path is not None and hubert_path.exists():
        checksum = weights_checksum(hubert_path)
        encoder = HubertEncoder(load_hubert(hubert_path, device), checksum, version, device, dtype=dtype)
        if encoder.width != WIDTHS[version]:
            raise InvalidInput(
                f"`{hubert_path.name}` gives {encoder.width} values a frame; {version} voices need {WIDTHS[version]}.",
                field="hubert",
            )
        return encoder
    if version == "v1":
        raise InvalidInput(
            "v1 voices need HuBERT features: put hubert_base.pt at HUBERT_PATH, or use version v2.", field="version"
        )
    from libs.voice.content_small import SmallContentEncoder

    return SmallContentEncoder(device=device, dtype=dtype)


def check_same_encoder(card_encoder: dict[str, object] | None, encoder: ContentEncoder) -> None:
    """Refuses to use a voice with features of another encoder than it was trained on. Raises InvalidInput.

    `card_encoder`: `{"name": …, "checksum": …}` as the model card's `content_encoder`; None (an imported RVC file,
    which does not say) is taken for HuBERT.
    """
    if card_encoder is None:
        if encoder.name != "hubert":
            raise InvalidInput(
                f"This voice was made for HuBERT features, and this installation has `{encoder.name}`: put "
                "hubert_base.pt at HUBERT_PATH.",
                field="content_encoder",
            )
        return
    name, checksum = card_encoder.get("name"), card_encoder.get("checksum")
    if (name, checksum) == (encoder.name, encoder.checksum):
        return
    way_out = (
        "put the same hubert_base.pt at HUBERT_PATH again"
        if name == "hubert"
        else "use the program version that made it, or remove HUBERT_PATH"
    )
    raise InvalidInput(
        f"This voice was trained on features of `{name}` ({str(checksum)[:12]}…) and cannot be used with "
        f"`{encoder.name}` ({encoder.checksum[:12]}…): {way_out}, or train the voice again.",
        field="content_encoder",
    )


def card_of(encoder: ContentEncoder) -> dict[str, object]:
    """What a model card records of the encoder: name, checksum and width."""
    return {"name": encoder.name, "checksum": encoder.checksum, "width": encoder.width}


def precision_of(encoder: ContentEncoder) -> str:
    """`fp32`, or `bf16` where the encoder computes in bfloat16: such features are not mixed with others."""
    return precision_name(getattr(encoder, "dtype", torch.float32))


def weights_checksum(hubert_path: Path) -> str:
    """SHA-256 of HuBERT's weights, in hex: of the checkpoint, or of the weights file in a transformers folder.

    Whether the input is normalised changes the features as well: a folder that asks for it has another checksum.
    """
    if not hubert_path.is_dir():
        return file_checksum(hubert_path)
    checksum = file_checksum(weights_file(hubert_path))
    if not normalises(hubert_path):
        return checksum
    return hashlib.sha256(f"{checksum} normalised".encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
