"""Which keys does each program write beside the weights? RVC's six, and Applio's fifteen."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from libs.voice.rvc.files import rate_of

_APPLIO_UNKNOWN_DATE = "1980-01-01T00:00:00"


def rvc_config(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that RVC writes, of any voice: config, info, sr ("40k"), f0 (0 or 1), version. No others."""
    rate = rate_of(config)
    return {
        "config": list(config["config"]),
        "info": training_info(config),
        "sr": f"{rate // 1000}k",
        "f0": int(config.get("f0", 1)),
        "version": config.get("version", "v1"),
    }


def applio_config(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The keys that Applio writes, from any voice's. What the voice does not say is None, or 0 for epoch and step.

    `model_hash` is the SHA-256 of name, epoch, step, rate, version and config, in Applio's manner. A voice that was not
    made by Applio has no day of making in it: `creation_date` is then 1980-01-01.
    """
    rate = rate_of(config)
    epoch, step = progress_of(config)
    version = config.get("version", "v1")
    digest = hashlib.sha256(f"{name}-{epoch}-{step}-{rate}-{version}-{config['config']}".encode()).hexdigest()
    return {
        "config": list(config["config"]),
        "epoch": epoch,
        "step": step,
        "sr": rate,
        "f0": bool(config.get("f0", 1)),
        "version": version,
        "creation_date": config.get("creation_date", _APPLIO_UNKNOWN_DATE),
        "model_hash": config.get("model_hash", digest),
        "dataset_length": config.get("dataset_length"),
        "model_name": name,
        "author": config.get("author"),
        "embedder_model": config.get("embedder_model", "contentvec"),
        "speakers_id": config.get("speakers_id", config["config"][15]),
        "vocoder": config.get("vocoder", "HiFi-GAN"),
    }


def applio_name(name: str, config: dict[str, Any]) -> str:
    """Applio's file name of an exported voice: `{name}_{epoch}e_{step}s.pth`."""
    return f"{name}_{config['epoch']}e_{config['step']}s.pth"


def rvc_name(experiment: str, epoch: int | None = None, step: int | None = None) -> str:
    """RVC's file name of an exported voice: `{experiment}_e{epoch}_s{step}.pth`, or `{experiment}.pth`."""
    return f"{experiment}_e{epoch}_s{step}.pth" if epoch is not None and step is not None else f"{experiment}.pth"


def training_info(config: dict[str, Any]) -> str:
    """RVC's `info`: its own text where the file has it, else `{epoch}epoch` from Applio's number, else empty."""
    info, epoch = config.get("info"), config.get("epoch")
    if isinstance(info, str):
        return info
    return f"{epoch}epoch" if isinstance(epoch, int) else ""


def progress_of(config: dict[str, Any]) -> tuple[int, int]:
    """Epoch and step that a voice's keys tell; 0 for what they do not."""
    epoch, step = config.get("epoch"), config.get("step")
    if not isinstance(epoch, int):
        found = re.match(r"(\d{1,9})epoch", str(config.get("info", "")))
        epoch = int(found.group(1)) if found else 0
    return epoch, step if isinstance(step, int) else 0
