"""How is a voice opened for comparison? With every random draw zero, as the reference numbers were made."""

from __future__ import annotations

from pathlib import Path

import torch

from libs.voice.rvc.files import network_from_export
from libs.voice.rvc.layers import no_noise
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.safe_load import load_tensors


def silent_voice(path: Path) -> RvcSynthesizer:
    """An exported RVC voice without latent noise and without noise in its source. Errors as `network_from_export`."""
    network = network_from_export(load_tensors(path), path.name)
    return RvcSynthesizer(network, torch.device("cpu"), noise=lambda _: no_noise)
