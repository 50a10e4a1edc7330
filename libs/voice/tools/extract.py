"""How does a training checkpoint become a voice? As RVC does it: no posterior encoder, half precision."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from libs.common.errors import InvalidInput, ModelFileRefused, NotFound
from libs.voice.artefact import SAFETENSORS, cast_weights, write_voice
from libs.voice.rvc.checkpoints import SPEAKERS, read_training_checkpoint
from libs.voice.rvc.config import NetworkConfig, config_from_export
from libs.voice.rvc.files import check_state, exported_names
from libs.voice.rvc.shapes import config_from_shapes
from libs.voice.tools.keys import rvc_name

MAX_CONFIG_BYTES = 2**20
CONFIG_NAME = "config.json"


def extract_voice(
    training_checkpoint: Path, output: Path, *, config: Path | None = None, speaker: int | None = None
) -> Path:
    """Make a voice of `G_….pth` (or a pretrained base) of RVC or Applio; returns where it was written. Atomic.

    `output`: a file, `.pth` (half, RVC's keys) or `.safetensors` (ours, as precise as the checkpoint), or a folder,
    which gets RVC's name: `{experiment}_e{epoch}_s{step}.pth`, the experiment being the checkpoint's folder.
    `config`: the experiment's `config.json`; default is the one beside the checkpoint, and where there is none the
    tensors' shapes decide, which is enough for every network of RVC. `speaker`: keep only this row of the speaker table
    (it becomes speaker 0); default is the whole table.

    Raises NotFound, ModelFileRefused for what is unsafe, is no generator, or does not fit its configuration,
    InvalidInput for a speaker that it does not have, and StorageFull.
    """
    checkpoint = read_training_checkpoint(training_checkpoint, wanted="generator")
    name = training_checkpoint.name
    network = _network(training_checkpoint, checkpoint.model, config)
    has_posterior = any(key.startswith("enc_q.") for key in checkpoint.model)
    check_state(checkpoint.model, network, name, with_posterior=has_posterior)
    weights = exported_names(checkpoint.model)
    if speaker is not None:
        if not 0 <= speaker < network.speakers:
            raise InvalidInput(f"speaker is {speaker}; {name} has 0 to {network.speakers - 1}", field="speaker")
        weights[SPEAKERS] = weights[SPEAKERS][speaker : speaker + 1]
        network = replace(network, speakers=1)
    if output.is_dir():
        found = re.fullmatch(r"G_(\d{1,12})", training_checkpoint.stem)
        step = int(found.group(1)) if found else None
        output = output / rvc_name(training_checkpoint.resolve().parent.name, checkpoint.epoch, step)
    if output.suffix != SAFETENSORS:
        weights = cast_weights(weights, "fp16", name)
    keys = {
        "kind": "rvc",
        "config": network.export_list(),
        "info": f"{checkpoint.epoch}epoch" if checkpoint.epoch is not None else "",
        "sr": f"{network.sample_rate // 1000}k",
        "f0": int(network.f0),
        "version": network.version,
    }
    write_voice(output, weights, keys)
    return output


def _network(checkpoint: Path, model: Mapping[str, Tensor], config: Path | None) -> NetworkConfig:
    beside = checkpoint.parent / CONFIG_NAME
    if config is None and beside.is_file():
        config = beside
    if config is not None:
        return _from_config_file(config, model)
    network = config_from_shapes(model)
    if network is None:
        raise ModelFileRefused(
            f"the shapes in {checkpoint.name} are of no network that RVC or Applio ships; give the experiment's "
            f"{CONFIG_NAME}",
            field="config",
            actions=(f"Put the experiment's {CONFIG_NAME} beside {checkpoint.name}, or name it.",),
        )
    return network


def _from_config_file(path: Path, model: Mapping[str, Tensor]) -> NetworkConfig:
    """The network that RVC's or Applio's `config.json` describes; the tensors tell version, pitch and speakers."""
    if not path.is_file():
        raise NotFound(f"there is no configuration {path.name}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelFileRefused(f"{path.name} has more than {MAX_CONFIG_BYTES} bytes", field="config")
    phone, table = model.get("enc_p.emb_phone.weight"), model[SPEAKERS]
    width = phone.shape[1] if phone is not None and phone.ndim == 2 else 0
    version = {256: "v1", 768: "v2"}.get(width)
    if version is None or table.ndim != 2:
        raise ModelFileRefused(f"the checkpoint reads {width} values a frame; v1 has 256 and v2 768")
    try:
        document = json.loads(path.read_bytes())
        data, dims = document["data"], document["model"]
        rate = data["sampling_rate"] if "sampling_rate" in data else data["sample_rate"]
        values = [
            int(data["filter_length"]) // 2 + 1,
            32,
            *(dims[key] for key in ("inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers")),
            dims["kernel_size"],
            dims.get("p_dropout", 0),
            dims.get("resblock", "1"),
            dims["resblock_kernel_sizes"],
            dims["resblock_dilation_sizes"],
            dims["upsample_rates"],
            dims["upsample_initial_channel"],
            dims["upsample_kernel_sizes"],
            len(table),
            dims["gin_channels"],
            rate,
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileRefused(f"{path.name} is no config.json of RVC or Applio: {error!r}", field="config") from error
    return config_from_export(values, version=version, f0="enc_p.emb_pitch.weight" in model, speakers=len(table))
