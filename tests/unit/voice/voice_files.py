"""Voice files as RVC and Applio write them, made of tiny networks: keys, order, types and containers as theirs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from libs.voice import retrieval
from libs.voice.artefact import write_voice
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.rvc.config import CONFIGS, NetworkConfig
from libs.voice.rvc.discriminator import Discriminators
from libs.voice.rvc.synthesizer import SynthesizerNetwork

TINY = CONFIGS["rvc-tiny"]


def tiny_network(seed: int = 0, config: NetworkConfig = TINY) -> SynthesizerNetwork:
    """A small network whose weights are a function of `seed`."""
    torch.manual_seed(seed)
    return SynthesizerNetwork(config)


def exported(network: SynthesizerNetwork, dtype: torch.dtype = torch.float16) -> OrderedDict[str, Tensor]:
    """What both programs keep of a network: everything but the posterior encoder, in half precision."""
    return OrderedDict((key, value.to(dtype)) for key, value in network.state_dict().items() if "enc_q" not in key)


def rvc_voice(
    path: Path, network: SynthesizerNetwork | None = None, *, dtype: torch.dtype = torch.float16, info: str = "20epoch"
) -> Path:
    """A voice as RVC-WebUI saves it."""
    network = network or tiny_network()
    c = network.config
    file: OrderedDict[str, Any] = OrderedDict()
    file["weight"] = exported(network, dtype)
    file["config"] = c.export_list()
    file["info"] = info
    file["sr"] = f"{c.sample_rate // 1000}k"
    file["f0"] = int(c.f0)
    file["version"] = c.version
    torch.save(file, path)
    return path


def applio_voice(path: Path, network: SynthesizerNetwork | None = None, *, epoch: int = 20, step: int = 400) -> Path:
    """A voice as Applio saves it."""
    network = network or tiny_network()
    c = network.config
    config = c.export_list()
    file: OrderedDict[str, Any] = OrderedDict(weight=exported(network))
    file["config"] = config
    file["epoch"] = epoch
    file["step"] = step
    file["sr"] = c.sample_rate
    file["f0"] = c.f0
    file["version"] = c.version
    file["creation_date"] = "2026-01-02T03:04:05.000006"
    file["model_hash"] = hashlib.sha256(f"x-{epoch}-{step}-{c.sample_rate}-{c.version}-{config}".encode()).hexdigest()
    file["dataset_length"] = "00:10:05"
    file["model_name"] = "x"
    file["author"] = "somebody"
    file["embedder_model"] = "contentvec"
    file["speakers_id"] = 1
    file["vocoder"] = "HiFi-GAN"
    torch.save(file, path)
    return path


def parametrised(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of torch's newer weight norm."""
    return OrderedDict(
        (
            key.replace(".weight_g", ".parametrizations.weight.original0").replace(
                ".weight_v", ".parametrizations.weight.original1"
            ),
            value,
        )
        for key, value in weights.items()
    )


def training_file(path: Path, module: torch.nn.Module | None = None, *, epoch: int = 7, rate: float = 1e-4) -> Path:
    """`G_….pth` or `D_….pth` as RVC saves it, with AdamW's state after one step."""
    module = module or tiny_network()
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, betas=(0.8, 0.99), eps=1e-9)
    draw = torch.Generator().manual_seed(epoch)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    optimizer.step()
    torch.save(
        {
            "model": module.state_dict(),
            "iteration": epoch,
            "optimizer": optimizer.state_dict(),
            "learning_rate": rate,
        },
        path,
    )
    return path


def discriminator(seed: int = 0) -> Discriminators:
    """Small judges of v2."""
    torch.manual_seed(seed)
    return Discriminators("v2", TINY.discriminator_width)


def lite_voice(path: Path, seed: int = 0) -> Path:
    """A small voice of the preset `lite`."""
    torch.manual_seed(seed)
    config = LiteConfig(width=8, hidden=16, blocks=1, fft=512)
    write_voice(path, LiteSynthesizer(config).state_dict(), {"kind": "lite", **config.as_dict()})
    return path


def index_file(path: Path, *, rows: int = 60, width: int = 768, seed: int = 0) -> Path:
    """An `added_….index` of drawn vectors."""
    drawn = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    retrieval.write_index(retrieval.build_index([drawn]), path)
    return path


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    """The torch file `source` with some keys changed; a change to `...` takes the key out."""
    file = torch.load(source, weights_only=True)
    for key, value in changes.items():
        if value is ...:
            file.pop(key, None)
        else:
            file[key] = value
    torch.save(file, target)
    return target
