"""How is the built-in content encoder made? Speech and its labels in, the shipped weights out.

    python -m scripts.pretrain.labels  $VOICE_CORPUS/librispeech_many var/pretrain/labels.npz
    python -m scripts.pretrain.encoder $VOICE_CORPUS/librispeech_many var/pretrain/labels.npz libs/voice/assets

Writes `voicewright-content.safetensors` (half precision) and `voicewright-content.json` (what it is, from what, how
good). Seeds are fixed: the same speech, labels, torch and number of threads give the same file, also when the run was
interrupted: its state is kept every KEPT_EVERY steps, and the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from libs.voice.content_network import ContentConfig, ContentNetwork, level_of_speech, log_mel, mel_filters
from libs.voice.phones import SPEECH_FROM
from scripts.pretrain.labels import read_16k
from scripts.pretrain.probes import probe

NAME = "voicewright-content"
VERSION = 1
KEPT_EVERY = 250
DATA = "LibriSpeech train-clean-100, one utterance of each of 225 speakers, CC BY 4.0 (openslr.org/12)"


@dataclass(frozen=True)
class Training:
    """The whole recipe; written into the sidecar."""

    steps: int = 2400
    batch: int = 24
    frames: int = 300
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    smoothing: float = 0.1
    dropout: float = 0.15
    average: float = 0.998
    held_out_every: int = 12
    seed: int = 20260101
    threads: int = 2


@dataclass(frozen=True)
class Utterance:
    """`mel` `[bands, M]` at 10 ms, `targets` `[classes, N]` at 20 ms (share of the views that say so), `hard` `[N]`."""

    speaker: str
    mel: Tensor
    targets: Tensor
    hard: Tensor


def load(speech: Path, labels: Path, config: ContentConfig) -> list[Utterance]:
    """All labelled files; the speaker is the file name up to its first hyphen, as in LibriSpeech."""
    filters = mel_filters(config.bands)
    utterances = []
    with np.load(labels, allow_pickle=False) as found:
        for name in sorted(found.files):
            mel = log_mel(torch.from_numpy(read_16k(speech / name)), filters)
            views = torch.from_numpy(found[name].astype(np.int64))[:, ::2]
            frames = min(views.shape[1], (mel.shape[1] - 1) // 2 + 1)
            views = views[:, :frames]
            targets = functional.one_hot(views, config.classes).float().mean(dim=0).T
            utterances.append(Utterance(Path(name).name.split("-")[0], mel[:, : 2 * frames], targets, views[0]))
    return utterances


def augment(mel: Tensor, generator: torch.Generator, bend: float = 0.0) -> Tensor:
    """Another speaker in another room saying the same: `[B, bands, T]` log power → the same shape.

    Formants move (frequency warp 0.82…1.2), the spectrum tilts, bands are offset, the room rings, noise fills the
    valleys, spans of bands and of time are missing. `bend`: high formants move up to this much more or less than low
    ones (a natural logarithm), as they do between people.
    """
    batch, bands, frames = mel.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    position = torch.linspace(-1, 1, bands)
    warp = torch.exp(uniform(math.log(0.82), math.log(1.2), 1))
    if bend:
        warp = warp * torch.exp(uniform(-bend, bend, 1) * position)
    places = ((position + 1) * warp - 1).clamp(max=1.0)  # the bottom of the spectrum stays where it is
    grid = torch.stack((torch.zeros(batch, bands), places), dim=-1).unsqueeze(2)
    mel = (
        functional.grid_sample(mel.permute(0, 2, 1).unsqueeze(-1), grid, align_corners=True, padding_mode="border")
        .squeeze(-1)
        .permute(0, 2, 1)
    )
    mel = mel + uniform(-1, 1, 1, 1) * position[:, None] + 0.1 * torch.randn(batch, bands, 1, generator=generator)

    decay = uniform(0.3, 0.8, 1) ** torch.arange(1, 31)
    ring = torch.cat((torch.ones(batch, 1), decay * uniform(0.0, 0.3, 1) * (uniform(0, 1, 1) < 0.4)), dim=1).flip(1)
    power = torch.exp(mel - mel.amax(dim=(1, 2), keepdim=True))
    power = functional.conv1d(functional.pad(power.permute(1, 0, 2), (30, 0)), ring.unsqueeze(1), groups=batch).permute(
        1, 0, 2
    )
    mel = torch.log(power + 1e-10)

    level = level_of_speech(mel).mean(dim=1, keepdim=True)
    floor = level - uniform(1.5, 9.0, 1, 1) + uniform(-2, 2, 1, 1) * position[:, None]
    noise = floor + 0.5 * torch.randn(batch, bands, frames, generator=generator)
    mel = torch.logaddexp(mel, noise)
    mel = mel - level_of_speech(mel)

    start, width = uniform(0, bands, 1), uniform(0, 12, 1)
    numbers = torch.arange(bands)
    hole = (numbers >= start) & (numbers < start + width)
    mel = mel.masked_fill(hole[:, :, None], 0.0)
    start, width = uniform(0, frames, 1), uniform(0, 25, 1)
    moments = torch.arange(frames)
    gap = (moments >= start) & (moments < start + width)
    return mel.masked_fill(gap[:, None, :], -3.0)


def draw(utterances: list[Utterance], training: Training, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crops, a little faster or slower → mel `[B, bands, frames]` and targets `[B, classes, frames / 2]`."""
    lengths = torch.tensor([float(utterance.mel.shape[1]) for utterance in utterances])
    chosen = torch.multinomial(lengths, training.batch, replacement=True, generator=generator)
    speed = float(torch.rand(1, generator=generator)) * 0.35 + 0.85
    half = training.frames // 2
    source = 2 * round(half * speed)
    mels, targets = [], []
    for number in chosen.tolist():
        utterance = utterances[number]
        room = max(utterance.mel.shape[1] - source, 0) // 2
        start = 2 * int(torch.randint(room + 1, (1,), generator=generator))
        crop = utterance.mel[:, start : start + source]
        target = utterance.targets[:, start // 2 : (start + source) // 2]
        mels.append(functional.interpolate(crop[None], training.frames, mode="linear", align_corners=True)[0])
        targets.append(functional.interpolate(target[None], half, mode="nearest")[0])
    return torch.stack(mels), torch.stack(targets)


def accuracy(network: ContentNetwork, utterances: list[Utterance]) -> dict[str, float]:
    """Share of frames whose most likely class is the judge's: in all, and where the judge hears a phone."""
    right = total = right_speech = total_speech = 0
    network.eval()
    with torch.inference_mode():
        for utterance in utterances:
            said = network((utterance.mel - level_of_speech(utterance.mel))[None])[0].argmax(dim=0)
            said = said[: len(utterance.hard)]
            hit, speech = said == utterance.hard, utterance.hard >= SPEECH_FROM
            right, total = right + int(hit.sum()), total + len(hit)
            right_speech, total_speech = right_speech + int((hit & speech).sum()), total_speech + int(speech.sum())
    network.train()
    return {"frame_accuracy": right / total, "phone_accuracy": right_speech / total_speech}


def decayed(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate at `step`: rises in a line over `warmup`, then falls as a cosine to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Run:
    """A training that can be stopped at any moment: all of its state is in one file."""

    def __init__(self, config: ContentConfig, training: Training, state: Path) -> None:
        torch.manual_seed(training.seed)
        torch.set_num_threads(training.threads)
        self.training, self._state = training, state
        self.generator = torch.Generator().manual_seed(training.seed)
        self.network = ContentNetwork(config, training.dropout)
        self.average = ContentNetwork(config)
        self.average.load_state_dict(self.network.state_dict())
        self.average.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, betas=(0.9, 0.98)
        )
        self.step, self.seconds, self.shown = 0, 0.0, 0.0
        if state.exists():
            self._resume()

    def _resume(self) -> None:
        kept = torch.load(self._state, weights_only=True)
        if kept["training"] != asdict(self.training):
            raise SystemExit(f"{self._state} is of a run with other settings: name another file, or remove it")
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(kept[name])
        self.generator.set_state(kept["generator"])
        torch.set_rng_state(kept["dropout"])
        self.step, self.seconds, self.shown = kept["step"], kept["seconds"], kept["shown"]

    def keep(self) -> None:
        """The whole state, under its name or not at all."""
        draft = self._state.with_suffix(".part")
        state = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        numbers = {"generator": self.generator.get_state(), "dropout": torch.get_rng_state()}
        told = {"step": self.step, "seconds": self.seconds, "shown": self.shown, "training": asdict(self.training)}
        self._state.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state | numbers | told, draft)
        draft.replace(self._state)

    def go_on(self, learn: list[Utterance], unseen: list[Utterance], minutes: float | None = None) -> bool:
        """Learn until all steps are done, or for so long; whether they are done."""
        began, before = time.monotonic(), self.seconds
        while self.step < self.training.steps:
            loss = self._one_step(learn)
            self.shown = loss if self.step == 0 else 0.98 * self.shown + 0.02 * loss
            self.step += 1
            self.seconds = before + time.monotonic() - began
            over = minutes is not None and time.monotonic() - began > 60 * minutes
            if self.step % KEPT_EVERY == 0 or over or self.step in (20, self.training.steps):
                self.keep()
                found = {name: round(value, 4) for name, value in accuracy(self.average, unseen).items()}
                print(f"step {self.step} {self.seconds:.0f} s loss {self.shown:.3f} unseen {found}", flush=True)
            if over:
                break
        return self.step == self.training.steps

    def _one_step(self, learn: list[Utterance]) -> float:
        training = self.training
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * decayed(self.step, training.warmup, training.steps)
        mel, targets = draw(learn, training, self.generator)
        mel = augment(mel, self.generator)
        targets = targets * (1 - training.smoothing) + training.smoothing / targets.shape[1]
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.network(mel)
        loss = -(targets * functional.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        share = min(training.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for held, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                held.lerp_(new, 1 - share)
        return float(loss.detach())


def ship(network: ContentNetwork, folder: Path, sidecar: dict[str, object], version: int = VERSION) -> None:
    """Write weights and sidecar. One key of metadata only: their order in the file is not defined."""
    weights = {name: value.half().contiguous() for name, value in sorted(network.state_dict().items())}
    about = {"name": NAME, "version": version, "config": network.config.as_dict()}
    content = save(weights, metadata={"voicewright": json.dumps(about, sort_keys=True)})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.safetensors").write_bytes(content)
    sidecar = about | {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} | sidecar
    (folder / f"{NAME}.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("output", type=Path, help="folder for the weights and their sidecar")
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long; the same command goes on")
    parser.add_argument("--state", type=Path, default=None, help="the run's state; beside the labels if not said")
    parser.add_argument("--data", default=DATA, help="what the speech is and its licence, for the sidecar")
    arguments = parser.parse_args()

    config, training = ContentConfig(), Training(steps=arguments.steps)
    utterances = load(arguments.speech, arguments.labels, config)
    unseen = utterances[:: training.held_out_every]
    learn = [utterance for utterance in utterances if all(utterance is not other for other in unseen)]
    run = Run(config, training, arguments.state or arguments.labels.with_name("encoder.pt"))
    if not run.go_on(learn, unseen, arguments.minutes):
        print(f"stopped at step {run.step} of {training.steps}: the same command goes on")
        return
    network = run.average.eval()
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    measured = accuracy(network, unseen) | probe(network, unseen)
    print(json.dumps(measured, indent=2))
    ship(
        network,
        arguments.output,
        {
            "data": arguments.data,
            "minutes_of_speech": round(sum(utterance.mel.shape[1] for utterance in learn) / 6000, 1),
            "speakers": len({utterance.speaker for utterance in learn}),
            "held_out_speakers": sorted({utterance.speaker for utterance in unseen}),
            "labels": "PocketSphinx 5 allphone, model en-us, five views per file",
            "training": asdict(training),
            "training_seconds": round(run.seconds),
            "torch": torch.__version__,
            "measured": {name: round(value, 4) for name, value in measured.items()},
        },
    )


if __name__ == "__main__":
    main()
