"""Which network is this, when only its tensors are there? Their shapes say nearly everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from libs.voice.rvc.config import CONFIGS, NetworkConfig
from libs.voice.rvc.files import shapes_of

APPLIO_24K = replace(
    CONFIGS["rvc-v2-32k"],
    sample_rate=24_000,
    segment_frames=36,
    upsample_rates=(10, 6, 2, 2),
    upsample_kernel_sizes=(20, 12, 4, 4),
)


def config_from_shapes(model: Mapping[str, Tensor]) -> NetworkConfig | None:
    """The one known configuration whose network has exactly these names and shapes, or None.

    `model`: a generator with its posterior encoder, in RVC's older names. Known are RVC's six, Applio's 24 kHz and
    `rvc-tiny`; with or without pitch, any number of speakers. The upsampling rates do not show in every shape, so a
    network of other dimensions needs its `config.json`.
    """
    table = model.get("emb_g.weight")
    if table is None or table.ndim != 2 or not len(table):
        return None
    f0 = "enc_p.emb_pitch.weight" in model
    given = {name: tuple(value.shape) for name, value in model.items()}
    candidates = (replace(known, f0=f0, speakers=len(table)) for known in (*CONFIGS.values(), APPLIO_24K))
    likely = [config for config in candidates if _few(config).items() <= given.items()]
    fitting = [config for config in likely if given == shapes_of(config, with_posterior=True)]
    return fitting[0] if len(fitting) == 1 else None


def _few(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The shapes in which the known networks differ: building one to see them all takes a tenth of a second."""
    first = config.upsample_initial_channel
    return {
        "enc_p.emb_phone.weight": (config.hidden_channels, config.content_width),
        "enc_q.pre.weight": (config.hidden_channels, config.spec_channels, 1),
    } | {
        f"dec.ups.{i}.weight_v": (first // 2**i, first // 2 ** (i + 1), kernel)
        for i, kernel in enumerate(config.upsample_kernel_sizes)
    }
