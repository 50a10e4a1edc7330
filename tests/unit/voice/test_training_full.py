"""The full 40k v2 network, once: it is tuned from bases in RVC's form, and leaves what RVC goes on from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from libs.voice.artefact import load_synthesizer
from libs.voice.rvc.checkpoints import read_training_checkpoint, write_training_checkpoint
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.discriminator import Discriminators
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.training import TrainingInputs, train
from libs.voice.training_config import TrainingConfig
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import ignore


def inventory(name: str) -> dict[str, list[int]]:
    """Every tensor of RVC's own network: name → shape, in its order."""
    path = Path(os.environ.get("VOICE_FIXTURES", "none")) / "inventory" / f"{name}.json"
    if not path.is_file():
        pytest.skip("needs the reference data in $VOICE_FIXTURES")
    keys: dict[str, list[int]] = json.loads(path.read_text())["keys"]
    return keys


@pytest.mark.slow  # about 25 s and 3 GB: the whole network with its optimiser is written and read several times
@pytest.mark.parametrize("f0", [True, False], ids=["with pitch", "without pitch"])
def test_the_full_network_is_tuned_from_bases_and_leaves_rvcs_pair(tmp_path: Path, f0: bool) -> None:
    wanted = {"G": inventory(f"synth_v2_40k_{'f0' if f0 else 'nof0'}"), "D": inventory("disc_v2")}
    prefix, root = "f0" if f0 else "", tmp_path / "pretrained_v2"
    torch.manual_seed(1)
    network = SynthesizerNetwork(dataclasses.replace(CONFIGS["rvc-v2-40k"], f0=f0))
    root.mkdir()
    for letter, module in (("G", network), ("D", Discriminators("v2"))):
        write_training_checkpoint(root / f"{prefix}{letter}40k.pth", module.state_dict(), epoch=100, learning_rate=1e-4)
    experiment = make_experiment(tmp_path / "experiment", sources=1, pieces=1, seconds=0.6, rate=40_000)
    config = TrainingConfig(
        preset="rvc-v2-40k", total_steps=1, batch_size=1, keep_checkpoints=1, threads=2, validation_split=0.0, f0=f0
    )

    result = train(TrainingInputs(experiment, tmp_path / "run", bases=root), config, ignore)

    base = (root / f"{prefix}G40k.pth").read_bytes()
    assert result.bases["generator"] == {"file": f"{prefix}G40k.pth", "sha256": hashlib.sha256(base).hexdigest()}
    for letter, shapes in wanted.items():
        left = read_training_checkpoint(tmp_path / f"run/{letter}_1.pth")
        assert {name: list(value.shape) for name, value in left.model.items()} == shapes
        assert list(left.model) == list(shapes)
        assert left.optimizer is not None
        assert len(left.optimizer["state"]) == len(shapes)
    moved = read_training_checkpoint(tmp_path / "run/G_1.pth").model["dec.conv_pre.weight"]
    assert 0 < float((moved - network.state_dict()["dec.conv_pre.weight"]).abs().max()) < 1e-3
    assert load_synthesizer(result.voice).needs_f0 == f0
