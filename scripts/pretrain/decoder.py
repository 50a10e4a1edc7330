"""How is the starting point of the `lite` voice made? Speech of many speakers in, the shipped weights out.

    python -m scripts.pretrain.decoder $VOICE_CORPUS/librispeech_many var/pretrain/decoder libs/voice/assets

Writes `voicewright-lite.safetensors` (a `lite` voice in half precision: that of the mean speaker) and its sidecar
`voicewright-lite.json`. Resumable: the second folder keeps the prepared speech, the state (every 250 steps and when
`--minutes` are over) and a log; the same command goes on, and gives what an uninterrupted run gives. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from libs.voice.averaging import WeightAverage
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.lite_loudness import frame_decibels, in_a_room, over_speech
from libs.voice.lite_recipe import SpectralLoss, bf16_pays
from libs.voice.safetensors_file import SafetensorsVoice, write_safetensors
from scripts.pretrain.speakers import Utterance, collected, crops, prepare, read

NAME = "voicewright-lite"
VERSION = 1
DATA = "LibriSpeech train-clean-100, one utterance of each of 225 speakers, CC BY 4.0 (openslr.org/12)"
HEARD_HZ = 7500.0
"""What the speech of 16 kHz holds; above it nothing is compared."""
KEPT_EVERY = 250


@dataclass(frozen=True)
class Training:
    """The whole recipe; written into the sidecar. The rate is constant, and falls in a line over the last `cooling`."""

    steps: int = 5400
    batch: int = 12
    frames: int = 120
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    cooling: float = 0.14
    average: float = 0.998
    speaker_width: int = 64
    held_out_every: int = 12
    seed: int = 20260102
    threads: int = 2

    def rate(self, step: int) -> float:
        """Share of the learning rate at `step`."""
        return min(1.0, (step + 1) / self.warmup, max(self.steps - step, 1) / (self.cooling * self.steps))


class ManySpeakers(nn.Module):
    """One decoder for all; a speaker is what is added to its first and its last layer."""

    def __init__(self, speakers: int, training: Training, config: LiteConfig) -> None:
        super().__init__()
        self.decoder = LiteSynthesizer(config)
        self.speakers = nn.Embedding(speakers, training.speaker_width)
        nn.init.normal_(self.speakers.weight, std=0.3)
        self.first = nn.Linear(training.speaker_width, config.width, bias=False)
        self.last = nn.Linear(training.speaker_width, config.fft + 2, bias=False)
        for layer in (self.first, self.last):
            nn.init.zeros_(layer.weight)

    def tint(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """What the speakers `[B]` add: `[B, width]` and `[B, 2 * bins]`."""
        who = self.speakers(numbers)
        return self.first(who), self.last(who)

    @torch.no_grad()
    def mean_speaker(self) -> LiteSynthesizer:
        """A decoder of its own for nobody in particular. What is above the speech that was learned from goes on as the
        spectrum ends below it, because random weights there would be louder."""
        voice = LiteSynthesizer(self.decoder.config)
        voice.load_state_dict(self.decoder.state_dict())
        first, last = self.tint(torch.arange(self.speakers.num_embeddings))
        voice.entry.bias.add_(first.mean(dim=0))
        voice.head.bias.add_(last.mean(dim=0))
        bins = voice.config.fft // 2 + 1
        top = round(HEARD_HZ / voice.config.sample_rate * voice.config.fft)
        for begin in (0, bins):
            voice.head.weight[begin + top : begin + bins] = voice.head.weight[begin + top]
            voice.head.bias[begin + top : begin + bins] = voice.head.bias[begin + top]
        return voice.eval()


def losses(
    decoder: LiteSynthesizer, batch: Any, loss: SpectralLoss, tint: tuple[Tensor, Tensor] | None, learns: bool
) -> tuple[Tensor, Tensor]:
    """(linear, logarithmic) part of the distance between the batch's waves and the decoder's."""
    loudness = over_speech(frame_decibels(batch.wave, decoder.sample_rate))
    if learns:
        loudness = in_a_room(loudness, batch.uniform("room"))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays(torch.device("cpu"))):
        filters = decoder.filters(batch.content, batch.f0_hz, loudness, tint)
    made = decoder.sound(batch.f0_hz, *filters, batch.normal("breath", batch.wave))
    linear, logarithmic = loss(made, batch.wave)
    return linear, logarithmic


@torch.no_grad()
def judged(
    decoder: LiteSynthesizer, unseen: list[Utterance], training: Training, loss: SpectralLoss
) -> dict[str, float]:
    """Losses on the middles of utterances that nobody learned from, said by the mean speaker."""
    cut = [(u, 2 * ((u.frames - training.frames) // 4), 0) for u in unseen]
    batch = collected(cut, training.frames, decoder.content_width, 0, tuple(range(len(cut))))
    linear, logarithmic = losses(decoder, batch, loss, None, learns=False)
    return {"spectrum": round(float(linear), 4), "log_spectrum": round(float(logarithmic), 4)}


class Run:
    """The state of a training, and the folder that keeps it."""

    def __init__(self, folder: Path, learn: list[Utterance], unseen: list[Utterance], training: Training) -> None:
        torch.set_num_threads(training.threads)
        torch.manual_seed(training.seed)
        self.folder, self.training = folder, training
        self.learn, self.unseen = ([u for u in each if u.frames >= training.frames] for each in (learn, unseen))
        config = LiteConfig(loudness=1)
        self.network = ManySpeakers(len({u.number for u in learn}), training, config)
        self.average = WeightAverage(self.network, training.average)
        self.loss = SpectralLoss(heard=2 * HEARD_HZ / config.sample_rate)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=training.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.step, self.seconds = 0, 0.0
        if self._state.exists():
            self._resume()

    @property
    def _state(self) -> Path:
        return self.folder / "state.pt"

    def _resume(self) -> None:
        kept = torch.load(self._state, weights_only=True)
        # the length of a run decides when the rate falls: a longer one may go on from a state before that
        own, before = ({**held, "steps": 0} for held in (asdict(self.training), kept["training"]))
        fell = kept["step"] > (1 - self.training.cooling) * min(self.training.steps, kept["training"]["steps"])
        if own != before or (fell and kept["training"] != asdict(self.training)):
            raise SystemExit(f"{self._state} is of a run with other settings: give another folder, or remove it")
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(kept[name])
        self.step, self.seconds = kept["step"], kept["seconds"]

    def keep(self) -> None:
        """The whole state, under its name or not at all."""
        draft = self._state.with_suffix(".part")
        state = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        torch.save(state | {"step": self.step, "seconds": self.seconds, "training": asdict(self.training)}, draft)
        draft.replace(self._state)

    def go_on(self, minutes: float | None) -> bool:
        """Learn until all steps are done, or for so long; whether they are done."""
        began, before = time.monotonic(), self.seconds
        shown: list[float] = []
        while self.step < self.training.steps:
            shown.append(self._one_step())
            self.step += 1
            self.seconds = before + time.monotonic() - began
            over = minutes is not None and time.monotonic() - began > 60 * minutes
            if self.step % KEPT_EVERY == 0 or over or self.step == self.training.steps:
                self.keep()
                loss = round(sum(shown) / len(shown), 4)
                told = {"step": self.step, "seconds": round(self.seconds), "loss": loss}
                voice = self.voice()
                self._log(told | judged(voice, self.unseen, self.training, self.loss))
                shown = []
            if over:
                break
        return self.step == self.training.steps

    def voice(self) -> LiteSynthesizer:
        """The mean speaker by the mean of the last weights."""
        network = self.average.network
        assert isinstance(network, ManySpeakers)
        return network.mean_speaker()

    def _one_step(self) -> float:
        training = self.training
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * training.rate(self.step)
        decoder = self.network.decoder
        batch = crops(self.learn, training.batch, training.frames, decoder.content_width, training.seed, self.step)
        linear, logarithmic = losses(decoder, batch, self.loss, self.network.tint(batch.speakers), learns=True)
        self.optimizer.zero_grad(set_to_none=True)
        (linear + logarithmic).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.average.update(self.network)
        return float((linear + logarithmic).detach())

    def _log(self, line: dict[str, float]) -> None:
        print(json.dumps(line), flush=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def ship(run: Run, output: Path, encoder: dict[str, Any], data: str) -> None:
    """Write the mean speaker in half precision, and the sidecar that says what it is."""
    voice = run.voice()
    weights = {name: value.half() for name, value in voice.state_dict().items()}
    voice.load_state_dict({name: value.float() for name, value in weights.items()})
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{NAME}.safetensors"
    held = SafetensorsVoice("lite", weights, voice.config.as_dict(), encoder)
    checksum = write_safetensors(path, held, sample_rate=voice.sample_rate)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    sidecar = {
        "name": NAME,
        "version": VERSION,
        "config": voice.config.as_dict(),
        "sha256": checksum,
        "bytes": path.stat().st_size,
        "content_encoder": encoder,
        "data": data,
        "minutes_of_speech": round(sum(u.frames for u in run.learn) / 6000, 1),
        "speakers": len({u.speaker for u in run.learn}),
        "held_out_speakers": sorted({u.speaker for u in run.unseen}),
        "training": asdict(run.training),
        "training_seconds": round(run.seconds),
        "torch": torch.__version__,
        "measured": {"held_out": judged(voice, run.unseen, run.training, run.loss)},
    }
    (output / f"{NAME}.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(sidecar["measured"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path)
    parser.add_argument("work", type=Path, help="folder for the prepared speech, the state and the log")
    parser.add_argument("output", type=Path, help="folder for the weights and their sidecar")
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long; the same command goes on")
    parser.add_argument("--data", default=DATA, help="what the speech is and its licence, for the sidecar")
    arguments = parser.parse_args()

    training = Training(steps=arguments.steps)
    kept = arguments.work / "speech.npz"
    checksum = prepare(arguments.speech, kept, LiteConfig().sample_rate, training.seed)
    learn, unseen = read(kept, training.held_out_every)
    run = Run(arguments.work, learn, unseen, training)
    if run.go_on(arguments.minutes):
        ship(
            run, arguments.output, {"name": "voicewright-content-1", "checksum": checksum, "width": 768}, arguments.data
        )
    else:
        print(f"stopped at step {run.step} of {training.steps}: the same command goes on")


if __name__ == "__main__":
    main()
