"""Which pretrained files does a run begin with? Decided at its first start, and never again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libs.common.errors import Conflict, InvalidInput
from libs.voice.lite_start import packaged_start, start_for
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.pretrained import find_bases
from libs.voice.training_config import TrainingConfig


def with_bases(
    config: TrainingConfig,
    root: Path | None,
    plan: Mapping[str, Any] | None,
    *,
    encoder: str | None,
    has_checkpoint: bool,
) -> TrainingConfig:
    """`config` with the paths of the bases that its weights begin with.

    A fresh run: the paths that `config` names, else what its `pretrained` wish finds under `root`, or for `lite` in the
    package if that knows the `encoder` (its checksum) of the features. A run that has begun: those of its plan as long
    as there is no checkpoint, which holds all weights. Raises InvalidInput for a wish that cannot be met.
    """
    if plan is not None:
        files = {} if has_checkpoint else plan.get("base_files", {})
        return _with(config, _here(files.get("generator")), files.get("discriminator"))
    if config.pretrained_generator is not None or config.pretrained_discriminator is not None:
        return config
    if config.preset == "lite" or root is None:
        if config.pretrained not in ("auto", "none"):
            raise InvalidInput(f"{config.preset} has no bases to begin with here", field="pretrained")
        start = start_for(encoder) if config.preset == "lite" and config.pretrained == "auto" else None
        return config if start is None else _with(config, str(start), None)
    network = CONFIGS[config.preset]
    found = find_bases(root, config.pretrained, version=network.version, sample_rate=network.sample_rate, f0=config.f0)
    return config if found is None else _with(config, str(found[0]), str(found[1]))


def base_files(config: TrainingConfig) -> dict[str, str]:
    """The paths for the plan, by module."""
    paths = {"generator": config.pretrained_generator, "discriminator": config.pretrained_discriminator}
    return {name: path for name, path in paths.items() if path is not None}


def check_same_bases(plan: Mapping[str, Any], bases: Mapping[str, Any]) -> None:
    """Raises Conflict when the files that a run began with hold something else now."""
    if bases and bases != plan.get("bases", {}):
        raise Conflict("the pretrained base has changed since this run began; start a new run", field="pretrained")


def _here(path: str | None) -> str | None:
    """Where a file of the plan is on this machine: the package may lie elsewhere on the one that the run began on."""
    packaged = packaged_start()
    return str(packaged) if path is not None and Path(path).name == packaged.name else path


def _with(config: TrainingConfig, generator: str | None, discriminator: str | None) -> TrainingConfig:
    return dataclasses.replace(config, pretrained_generator=generator, pretrained_discriminator=discriminator)
