"""Kind `fairseq hubert checkpoint`: files that fairseq wrote, read without it, and the output of every layer."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from torch.nn import functional

from libs.voice.hubert import Hubert, load_hubert, parse_conv_layers, read_fairseq_checkpoint
from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import Ledger, Tolerance

SPECIAL_SYMBOLS = 4
"""fairseq's dictionaries have begin, padding, end and unknown besides the labels."""
NORMALISE_EPSILON = 1e-5


def check_hubert(facts: Facts, ledger: Ledger) -> None:
    """Each model of the fixture: what its file says, and what the network says of the stored waves."""
    facts.prose("written_with", "input", "outputs")
    tolerance = Tolerance.of(facts["tolerance"])
    for model in facts["models"]:
        with ledger.part(f"{model['file']}, contents"):
            network = _contents(model, ledger)
        with ledger.part(f"{model['file']}, outputs"):
            ledger.documented(model["outputs"], model["arrays"])
            _outputs(network, model["outputs"], ledger, tolerance)


def _contents(model: Facts, ledger: Ledger) -> Hubert:
    model.prose("seed")  # its weights are stored
    path = ledger.file(model["file"])
    document = read_fairseq_checkpoint(path)
    ledger.same("entries at the top", list(document), model["checkpoint_top_level"].names())
    for key, kind in model["checkpoint_top_level"].items():
        value = document[key]
        ledger.same(f"type of {key}", f"{type(value).__module__}.{type(value).__name__}", kind)
    state = document["model"]
    shapes = {key: list(value.shape) for key, value in state.items()}
    ledger.same("names, shapes and order of tensors", list(shapes.items()), list(model.take("model_keys").items()))
    stored = document["cfg"]["model"]
    for key, value in model["model_config"].items():
        ledger.same(f"cfg.model.{key}", stored[key], value)
    network = load_hubert(path)
    c, wanted = network.config, model["model_config"].take()
    read = {
        "encoder_layers": c.layers,
        "encoder_embed_dim": c.width,
        "encoder_ffn_embed_dim": c.ffn_width,
        "encoder_attention_heads": c.heads,
        "final_dim": c.projected_width,
        "conv_pos": c.position_taps,
        "conv_pos_groups": c.position_groups,
    }
    ledger.same("sizes as we read them", read, {key: wanted[key] for key in read})
    ledger.same("convolutions", c.conv_layers, parse_conv_layers(wanted["conv_feature_layers"]))
    ledger.same("task_normalize", c.normalise_input, model["task_normalize"])
    ledger.same("n_labels", len(state["label_embs_concat"]) - SPECIAL_SYMBOLS, model["n_labels"])
    # The stored waves went in as they are, whatever the file says of normalising.
    network.config = dataclasses.replace(c, normalise_input=False)
    return network


@torch.inference_mode()
def _outputs(network: Hubert, archive: str, ledger: Ledger, tolerance: Tolerance) -> None:
    states: dict[str, list[torch.Tensor]] = {}
    for key in ledger.arrays(archive):
        clip, output = key.split(".", 1)
        if output == "wav":
            continue
        wave = ledger.tensor(archive, f"{clip}.wav")[None]
        if clip not in states:
            states[clip] = network.hidden_states(wave)
        ours = _output(network, output, wave, states[clip])
        if ours is not None:
            ledger.check(archive, key, ours, tolerance)


def _output(network: Hubert, name: str, wave: torch.Tensor, states: list[torch.Tensor]) -> Any:
    """Our value of the output that a fixture calls `name`; None for a name that is not known."""
    if name == "conv_features":
        return network.conv_features(wave)
    if found := re.fullmatch(r"layer(\d+)", name):
        return states[int(found[1]) - 1]
    if found := re.fullmatch(r"final_proj_of_layer(\d+)", name):
        return network.features(wave, int(found[1]), project=True)
    if name == "last_without_padding_mask":
        return states[-1]
    if name == "last_with_normalized_input":
        normalised = functional.layer_norm(wave, wave.shape[-1:], eps=NORMALISE_EPSILON)
        return network.hidden_states(normalised)[-1]
    return None
