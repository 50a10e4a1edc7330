"""A voice without pitch is trained from a list that has none."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from libs.voice.artefact import load_synthesizer
from libs.voice.rvc.checkpoints import read_training_checkpoint
from libs.voice.training_config import TrainingConfig
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import run

NO_PITCH = TrainingConfig(
    preset="rvc-tiny", total_steps=4, threads=1, batch_size=2, early_stopping_patience=0, f0=False
)


def test_a_voice_without_pitch_is_trained_from_a_list_without_pitch(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=4, pieces=1, seconds=0.6)
    listing = experiment / "filelist.txt"
    fields = [line.split("|") for line in listing.read_text().splitlines()]
    listing.write_text("\n".join("|".join([*row[:2], row[4]]) for row in fields))
    for folder in ("2a_f0", "2b_f0nsf"):
        shutil.rmtree(experiment / folder)

    result = run(experiment, tmp_path / "run", NO_PITCH)

    file = torch.load(result.voice, weights_only=True)
    voice = load_synthesizer(result.voice)
    generator = torch.Generator().manual_seed(0)
    silence = torch.zeros(50)
    wave = voice.render(torch.randn(50, 768, generator=generator), silence, silence.long() + 1, 0, generator)
    assert file["f0"] == 0
    assert not [name for name in file["weight"] if "emb_pitch" in name or "m_source" in name]
    assert not voice.needs_f0
    assert float(wave.abs().max()) > 1e-3
    assert "emb_pitch" not in " ".join(read_training_checkpoint(next((tmp_path / "run").glob("G_*.pth"))).model)
