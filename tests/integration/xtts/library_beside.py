"""The library's own trainer beside ours, on the same clips; for the interpreter that has coqui-tts. JSON in and out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints
    import torch

    job = json.load(sys.stdin)
    base = Path(job["base"])
    found = {**_theirs(job, base), "ours": _ours(job, base)}
    assert torch.get_num_threads() >= 1
    os.write(answer, (json.dumps(found) + "\n").encode())


def _ours(job: dict[str, Any], base: Path) -> list[float]:
    import torch

    from libs.voice.xtts.base import BaseModel
    from libs.voice.xtts.batches import Clips
    from libs.voice.xtts.network import TrainingNetwork

    network = TrainingNetwork(BaseModel(base), torch.device("cpu"))
    clips = Clips([(Path(each["wav"]), network.tokens(each["text"], "en")) for each in job["clips"]], seed=0)
    with torch.no_grad():
        return [
            float(network.losses([item], masked=False, precision=torch.float32)["loss"]) for item in clips.held_out()
        ]


def _theirs(job: dict[str, Any], base: Path) -> dict[str, Any]:
    import soundfile
    import torch
    from TTS.tts.layers.xtts.trainer import dataset
    from TTS.tts.layers.xtts.trainer.gpt_trainer import GPTArgs, GPTTrainer, GPTTrainerConfig

    def load(path: str, rate: int) -> torch.Tensor:  # the library's own needs the system's FFmpeg
        wave, found = soundfile.read(path, dtype="float32")
        assert found == rate
        return torch.from_numpy(wave).unsqueeze(0)

    dataset.load_audio = load
    config = GPTTrainerConfig()
    settings = json.loads((base / "config.json").read_text())
    known = {name: value for name, value in settings["model_args"].items() if name in GPTArgs.__dataclass_fields__}
    config.model_args = GPTArgs(**known)
    config.model_args.tokenizer_file = str(base / "vocab.json")
    config.model_args.mel_norm_file = str(base / "mel_stats.pth")
    config.model_args.dvae_checkpoint = str(base / "dvae.pth")
    config.model_args.xtts_checkpoint = str(base / "model.pth")
    model = GPTTrainer(config).eval()
    samples = [{"text": each["text"], "audio_file": each["wav"], "language": "en"} for each in job["clips"]]
    held = dataset.XTTSDataset(config, samples, model.xtts.tokenizer, 22_050, is_eval=True)
    losses, tokens = [], []
    for index in range(len(held)):
        batch = held.collate_fn([held[index]])
        tokens.append(int(batch["text_lengths"][0]))
        batch = model.format_batch_on_device(batch)
        batch["cond_idxs"] = None
        with torch.no_grad():
            losses.append(float(model.train_step(batch, None)[1]["loss"]))
    return {"theirs": losses, "tokens": tokens}


if __name__ == "__main__":
    main()
