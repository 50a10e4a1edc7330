"""Which dimensions does each RVC network have?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from libs.common.errors import ModelFileRefused

VERSIONS = ("v1", "v2")
_RESBLOCK_KERNELS = (3, 7, 11)
_RESBLOCK_DILATIONS = ((1, 3, 5),) * 3


@dataclass(frozen=True)
class NetworkConfig:
    """The dimensions of one synthesizer. Frames are 10 ms; `segment_frames` is the length that training decodes.

    Source of the values: RVC's configuration files (32k, 40k, 48k of v1 and v2).
    """

    version: str
    sample_rate: int
    filter_length: int
    n_mels: int
    segment_frames: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    f0: bool = True
    inter_channels: int = 192
    hidden_channels: int = 192
    filter_channels: int = 768
    n_heads: int = 2
    n_layers: int = 6
    kernel_size: int = 3
    dropout: float = 0.0
    resblock_kernels: tuple[int, ...] = _RESBLOCK_KERNELS
    resblock_dilations: tuple[tuple[int, ...], ...] = _RESBLOCK_DILATIONS
    upsample_initial_channel: int = 512
    speakers: int = 109
    gin_channels: int = 256
    discriminator_width: int = 1

    @property
    def hop_length(self) -> int:
        """Samples per frame: the product of the upsampling rates."""
        return math.prod(self.upsample_rates)

    @property
    def spec_channels(self) -> int:
        """Bins of the linear spectrogram that the posterior encoder reads."""
        return self.filter_length // 2 + 1

    @property
    def content_width(self) -> int:
        """256 for v1, 768 for v2."""
        return 256 if self.version == "v1" else 768

    def export_list(self) -> list[Any]:
        """The list of 18 that an exported file carries; item 1 is always 32, as RVC writes it."""
        return [
            self.spec_channels,
            32,
            self.inter_channels,
            self.hidden_channels,
            self.filter_channels,
            self.n_heads,
            self.n_layers,
            self.kernel_size,
            0 if self.dropout == 0 else self.dropout,
            "1",
            list(self.resblock_kernels),
            [list(dilations) for dilations in self.resblock_dilations],
            list(self.upsample_rates),
            self.upsample_initial_channel,
            list(self.upsample_kernel_sizes),
            self.speakers,
            self.gin_channels,
            self.sample_rate,
        ]


def config_from_export(values: Any, *, version: str, f0: bool, speakers: int) -> NetworkConfig:
    """The dimensions that an exported file's list of 18 gives; raises ModelFileRefused when they make no network.

    `speakers`: rows of the speaker table in the file, which overrule the list.
    """
    if version not in VERSIONS:
        raise ModelFileRefused(f"version is {version!r}; v1 and v2 are known")
    if not isinstance(values, (list, tuple)) or len(values) != 18:
        raise ModelFileRefused("config is not RVC's list of 18 values")
    if str(values[9]) != "1":
        raise ModelFileRefused(f"resblock is {values[9]!r}; RVC files have '1'")
    try:
        rate = _rate(values[17])
        config = NetworkConfig(
            version=version,
            sample_rate=rate,
            filter_length=(_number("spec_channels", values[0], 1, 8193) - 1) * 2,
            n_mels=128,
            segment_frames=_number("segment", values[1], 1, 10_000),
            upsample_rates=_numbers("upsample_rates", values[12], 1, 64),
            upsample_kernel_sizes=_numbers("upsample_kernel_sizes", values[14], 1, 256),
            f0=f0,
            inter_channels=_number("inter_channels", values[2], 2, 4096),
            hidden_channels=_number("hidden_channels", values[3], 1, 4096),
            filter_channels=_number("filter_channels", values[4], 1, 16_384),
            n_heads=_number("n_heads", values[5], 1, 64),
            n_layers=_number("n_layers", values[6], 1, 64),
            kernel_size=_number("kernel_size", values[7], 1, 31),
            dropout=min(max(float(values[8]), 0.0), 0.9),
            resblock_kernels=_numbers("resblock_kernels", values[10], 1, 63),
            resblock_dilations=tuple(_numbers("resblock_dilations", row, 1, 63) for row in values[11]),
            upsample_initial_channel=_number("upsample_initial_channel", values[13], 2, 8192),
            speakers=speakers,
            gin_channels=_number("gin_channels", values[16], 1, 4096),
        )
    except (TypeError, ValueError) as error:
        raise ModelFileRefused(f"config is not RVC's list of 18 values: {error}") from error
    stages = len(config.upsample_rates)
    if stages != len(config.upsample_kernel_sizes) or len(config.resblock_kernels) != len(config.resblock_dilations):
        raise ModelFileRefused("config names another number of kernels than of rates")
    if config.hop_length * 100 != config.sample_rate:
        raise ModelFileRefused(f"upsample_rates multiply to {config.hop_length}, which is not 10 ms at {rate} Hz")
    if (
        config.hidden_channels % config.n_heads
        or config.inter_channels % 2
        or config.upsample_initial_channel % 2**stages
    ):
        raise ModelFileRefused("config has dimensions that cannot be divided as the network needs")
    return config


def _rate(value: Any) -> int:
    if isinstance(value, str) and value.endswith("k"):
        value = int(value[:-1]) * 1000
    return _number("sr", value, 8000, 192_000)


def _number(name: str, value: Any, low: int, high: int) -> int:
    number = int(value)
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}, not between {low} and {high}")
    return number


def _numbers(name: str, values: Any, low: int, high: int) -> tuple[int, ...]:
    if not 1 <= len(values) <= 16:
        raise ValueError(f"{name} has {len(values)} values")
    return tuple(_number(name, value, low, high) for value in values)


def _v1(
    rate: int, filter_length: int, n_mels: int, segment: int, rates: tuple[int, ...], kernels: tuple[int, ...]
) -> NetworkConfig:
    return NetworkConfig("v1", rate, filter_length, n_mels, segment, rates, kernels)


def _v2(
    rate: int, filter_length: int, n_mels: int, segment: int, rates: tuple[int, ...], kernels: tuple[int, ...]
) -> NetworkConfig:
    return NetworkConfig("v2", rate, filter_length, n_mels, segment, rates, kernels)


CONFIGS: dict[str, NetworkConfig] = {
    "rvc-v1-32k": _v1(32_000, 1024, 80, 40, (10, 4, 2, 2, 2), (16, 16, 4, 4, 4)),
    "rvc-v1-40k": _v1(40_000, 2048, 125, 32, (10, 10, 2, 2), (16, 16, 4, 4)),
    "rvc-v1-48k": _v1(48_000, 2048, 128, 24, (10, 6, 2, 2, 2), (16, 16, 4, 4, 4)),
    "rvc-v2-32k": _v2(32_000, 1024, 80, 40, (10, 8, 2, 2), (20, 16, 4, 4)),
    "rvc-v2-40k": _v2(40_000, 2048, 125, 32, (10, 10, 2, 2), (16, 16, 4, 4)),
    "rvc-v2-48k": _v2(48_000, 2048, 128, 36, (12, 10, 2, 2), (24, 20, 4, 4)),
    "rvc-tiny": NetworkConfig(
        "v2",
        16_000,
        512,
        40,
        16,
        (10, 4, 2, 2),
        (16, 8, 4, 4),
        inter_channels=16,
        hidden_channels=16,
        filter_channels=32,
        n_layers=1,
        resblock_kernels=(3,),
        resblock_dilations=((1, 3, 5),),
        upsample_initial_channel=32,
        speakers=4,
        gin_channels=8,
        discriminator_width=16,
    ),
}
"""Preset → dimensions; 40k has one file for both versions. `discriminator_width` divides the judges' channels."""
