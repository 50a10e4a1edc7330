"""How does the content encoder learn not only which phone is spoken but how? A second stage, after `encoder.py`.

    made=var/pretrain
    python -m scripts.pretrain.synthetic $made/synthetic.npz
    python -m scripts.pretrain.finer $VOICE_CORPUS/librispeech_many $made/labels.npz $made/synthetic.npz \\
        libs/voice/assets/voicewright-content.safetensors $made/finer

Starts from the weights of the first stage and adds `finer` outputs to the 42 phones. Four things teach them:

- a decoder that knows who speaks redraws the smoothed spectrum from them: articulation must be in them, the speaker
  need not be (the lookup of AutoVC, Qian et al. 2019, arXiv 1905.05879);
- two views of the same speech, with other formants, pitch and room, must give the same: the speaker must not be in them
  (ContentVec, Qian et al. 2022, arXiv 2204.09224);
- articulatory features of espeak-ng's speech in many languages, exactly known, and of the labelled phones are read from
  them by one linear layer;
- what is left when the phones are taken away must have no mean over a crop: no constant offset per speaker.

Resumable: a checkpoint every hundred steps; the same arguments and number of threads give the same file whether or not
the run was interrupted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_weights
from torch import Tensor, nn
from torch.nn import functional

from libs.voice.content_network import Block, ContentConfig, ContentNetwork
from scripts.pretrain.articulation import FEATURES
from scripts.pretrain.encoder import DATA, augment, decayed, ship
from scripts.pretrain.pieces import Crops, Piece, draw_pieces, of_real_speech, of_synthetic_speech, smoothing
from scripts.pretrain.probes import articulation_read, probe_features


@dataclass(frozen=True)
class FinerTraining:
    """The whole recipe; written into the sidecar. The first `frozen` blocks keep the weights of the first stage.

    `phones`, `articulation`, `redrawing`, `agreement` and `offset` are the weights of the losses in their sum.
    """

    steps: int = 1600
    frozen: int = 3
    real: int = 8
    synthetic: int = 4
    frames: int = 256
    learning_rate: float = 7e-4
    weight_decay: float = 0.05
    warmup: int = 100
    label_smoothing: float = 0.1
    dropout: float = 0.1
    average: float = 0.998
    bend: float = 0.1
    noise: float = 0.3
    phones: float = 1.0
    articulation: float = 3.0
    redrawing: float = 2.0
    agreement: float = 2.0
    offset: float = 1.0
    held_out_every: int = 12
    seed: int = 20260103
    threads: int = 1


class Redrawer(nn.Module):
    """Finer features, phones and the speaker's vector → the smoothed log-mel of that speaker `[B, bands, 2 N]`."""

    def __init__(self, config: ContentConfig, speakers: int, width: int = 192) -> None:
        super().__init__()
        self.bands = config.bands
        self.who = nn.Embedding(speakers, 64)
        self.entry = nn.Linear(config.finer + config.classes + 64, width)
        self.blocks = nn.ModuleList(Block(width, 2 * width, 5) for _ in range(3))
        self.exit = nn.Linear(width, 2 * config.bands)

    def forward(self, finer: Tensor, phones: Tensor, speaker: Tensor) -> Tensor:
        """`finer` `[B, finer, N]`, `phones` `[B, classes, N]`, `speaker` `[B]` numbers."""
        who = self.who(speaker)[:, :, None].expand(-1, -1, finer.shape[2])
        x = self.entry(torch.cat((finer, phones, who), dim=1).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        drawn: Tensor = self.exit(x.transpose(1, 2))
        return drawn.reshape(len(drawn), -1, self.bands).transpose(1, 2)


class Learner(nn.Module):
    """The encoder and all that only teaches it."""

    def __init__(self, config: ContentConfig, speakers: int, dropout: float) -> None:
        super().__init__()
        self.encoder = ContentNetwork(config, dropout)
        self.redrawer = Redrawer(config, speakers)
        self.read = nn.Linear(config.finer, len(FEATURES))
        self.typical: Tensor
        self.register_buffer("typical", torch.zeros(config.finer, config.classes))

    def losses(self, crops: Crops, training: FinerTraining, generator: torch.Generator) -> dict[str, Tensor]:
        """The five losses of a batch, each a scalar."""
        config = self.encoder.config
        views = torch.cat([augment(self._retuned(crops.mel, generator), generator, training.bend) for _ in "ab"])
        with torch.autocast("cpu", torch.bfloat16):
            out = self.encoder(views).float()
        logits, finer = out[:, : config.classes], out[:, config.classes :]
        likely = functional.log_softmax(logits, dim=1)
        labelled = crops.phones.sum(dim=1, keepdim=True)
        targets = crops.phones * (1 - training.label_smoothing) + labelled * training.label_smoothing / config.classes
        phones = -(targets.repeat(2, 1, 1) * likely).sum() / (2 * labelled.sum()).clamp(min=1)

        known = ~crops.articulation.isnan()
        read = self.read(finer.transpose(1, 2)).transpose(1, 2)
        wrong = functional.binary_cross_entropy_with_logits(
            read, crops.articulation.nan_to_num().repeat(2, 1, 1), reduction="none"
        )
        articulation = wrong[known.repeat(2, 1, 1)].mean()

        said = likely.exp().detach()
        noisy = finer + training.noise * torch.randn(finer.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            drawn = self.redrawer(noisy, said, crops.speaker.repeat(2))
        redrawing = (drawn.float() - crops.smooth.repeat(2, 1, 1)).abs().mean()

        one, other = finer.chunk(2)
        agreement = (one - other).square().mean()
        rest = finer - torch.einsum("fc,bcn->bfn", self._typical_of(finer.detach(), said), said)
        offset = rest.mean(dim=2).square().mean()
        return {
            "phones": phones,
            "articulation": articulation,
            "redrawing": redrawing,
            "agreement": agreement,
            "offset": offset,
        }

    def _retuned(self, mel: Tensor, generator: torch.Generator) -> Tensor:
        """A part of the harmonics taken away, another for each crop: pitch must not matter."""
        kept = torch.rand(len(mel), 1, 1, generator=generator)
        return kept * mel + (1 - kept) * (smoothing(mel.shape[1]) @ mel)

    @torch.no_grad()
    def _typical_of(self, finer: Tensor, said: Tensor) -> Tensor:
        """Running mean of the finer features of each phone `[finer, classes]`."""
        weight = said.sum(dim=(0, 2))
        found = torch.einsum("bfn,bcn->fc", finer, said) / weight.clamp(min=1e-3)
        self.typical.lerp_(found, 0.02 * (weight / (weight + 1)).unsqueeze(0))
        return self.typical


def start_from(weights: Path, finer: int) -> tuple[ContentConfig, dict[str, Tensor]]:
    """Configuration and weights of the first stage, with room for the finer outputs."""
    content = weights.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(header["__metadata__"]["voicewright"])
    state = {name: value.float() for name, value in load_weights(content).items() if not name.startswith("finer.")}
    return ContentConfig(**(about["config"] | {"finer": finer})), state


class Run:
    """A training that can be stopped at any moment: all of its state is in one file."""

    def __init__(
        self, config: ContentConfig, start: dict[str, Tensor], speakers: int, training: FinerTraining, folder: Path
    ) -> None:
        torch.manual_seed(training.seed)
        torch.set_num_threads(training.threads)
        self.training, self.path = training, folder / "checkpoint.pt"
        self.generator = torch.Generator().manual_seed(training.seed)
        self.learner = Learner(config, speakers, training.dropout)
        missing = self.learner.encoder.load_state_dict(start, strict=False).missing_keys
        if any(not name.startswith("finer.") for name in missing):
            raise ValueError(f"the weights to start from lack {missing}")
        for part in (self.learner.encoder.entry, *self.learner.encoder.blocks[: training.frozen]):
            part.requires_grad_(False)
        self.average = ContentNetwork(config).requires_grad_(False).eval()
        self.average.load_state_dict(self.learner.encoder.state_dict())
        self.optimizer = torch.optim.AdamW(
            [weights for weights in self.learner.parameters() if weights.requires_grad],
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            betas=(0.9, 0.98),
        )
        self.step = 0
        self.seconds = 0.0
        self.shown: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._resume()

    def _resume(self) -> None:
        held = torch.load(self.path, weights_only=True)
        if held["training"] != asdict(self.training):
            raise ValueError(f"{self.path} is of another recipe: give another folder, or remove it")
        self.learner.load_state_dict(held["learner"])
        self.average.load_state_dict(held["average"])
        self.optimizer.load_state_dict(held["optimizer"])
        self.generator.set_state(held["generator"])
        torch.set_rng_state(held["dropout"])
        self.step, self.seconds, self.shown = held["step"], held["seconds"], held["shown"]

    def keep(self) -> None:
        """Write the checkpoint, whole or not at all."""
        draft = self.path.with_suffix(".part")
        held = {
            "training": asdict(self.training),
            "learner": self.learner.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "shown": self.shown,
        }
        torch.save(held, draft)
        draft.replace(self.path)

    def advance(self, real: list[Piece], synthetic: list[Piece]) -> None:
        """One step."""
        began = time.monotonic()
        training = self.training
        crops = draw_pieces(real, training.real, synthetic, training.synthetic, training.frames, self.generator)
        losses = self.learner.losses(crops, training, self.generator)
        total = torch.stack([getattr(training, name) * loss for name, loss in losses.items()]).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * decayed(self.step, training.warmup, training.steps)
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        share = min(training.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for held, new in zip(self.average.parameters(), self.learner.encoder.parameters(), strict=True):
                held.lerp_(new, 1 - share)
        for name, loss in losses.items():
            value = float(loss.detach())
            self.shown[name] = 0.98 * self.shown.get(name, value) + 0.02 * value
        self.step += 1
        self.seconds += time.monotonic() - began

    def measured(self, unseen: list[Piece], unseen_synthetic: list[Piece]) -> dict[str, float]:
        """On speakers and voices that were not learned from, rounded."""
        found = probe_features(self.average, unseen) | articulation_read(
            self.average, self.learner.read, unseen_synthetic
        )
        return {name: round(value, 4) for name, value in found.items()}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("synthetic", type=Path, help="of synthetic.py; …-unseen.npz lies beside it")
    parser.add_argument("start", type=Path, help="weights of the first stage")
    parser.add_argument("output", type=Path, help="folder for checkpoint, weights and their sidecar")
    parser.add_argument("--finer", type=int, default=64, help="outputs beside the phones")
    parser.add_argument("--stop", type=int, default=None, help="pause after this step; the schedule stays")
    for name in ("steps", "threads", "frozen"):
        parser.add_argument(f"--{name}", type=int, default=getattr(FinerTraining, name))
    for name in ("bend", "noise", "phones", "articulation", "redrawing", "agreement", "offset", "learning-rate"):
        field = name.replace("-", "_")
        parser.add_argument(f"--{name}", type=float, default=getattr(FinerTraining, field), dest=field)
    arguments = parser.parse_args(given)

    chosen = {name: value for name, value in vars(arguments).items() if name in FinerTraining.__dataclass_fields__}
    training = FinerTraining(**(chosen | {"synthetic": FinerTraining.synthetic}))
    config, start = start_from(arguments.start, arguments.finer)
    pieces, synthetic = (
        of_real_speech(arguments.speech, arguments.labels, config),
        of_synthetic_speech(arguments.synthetic),
    )
    unseen = pieces[:: training.held_out_every]
    real = [piece for number, piece in enumerate(pieces) if number % training.held_out_every]
    unseen_synthetic = of_synthetic_speech(arguments.synthetic.with_name(arguments.synthetic.stem + "-unseen.npz"))
    speakers = {name: number for number, name in enumerate(sorted({piece.speaker for piece in (*real, *synthetic)}))}
    for piece in (*real, *synthetic):
        piece.number = speakers[piece.speaker]
    run = Run(config, start, len(speakers), training, arguments.output)
    while run.step < min(training.steps, arguments.stop or training.steps):
        run.advance(real, synthetic)
        if run.step % 250 == 0 or run.step in (20, training.steps):
            losses = {name: round(value, 3) for name, value in run.shown.items()}
            print(f"step {run.step} {run.seconds:.0f} s {losses} {run.measured(unseen, unseen_synthetic)}", flush=True)
        if run.step % 100 == 0 or run.step in (arguments.stop, training.steps):
            run.keep()
    ship(
        run.average,
        arguments.output,
        {
            "data": f"{DATA}; espeak-ng speech made by scripts/pretrain/synthetic.py",
            "minutes_of_speech": round(sum(piece.mel.shape[1] for piece in real) / 6000, 1),
            "minutes_of_synthetic_speech": round(sum(piece.mel.shape[1] for piece in synthetic) / 6000, 1),
            "speakers": len({piece.speaker for piece in real}),
            "held_out_speakers": sorted({piece.speaker for piece in unseen}),
            "training": asdict(training),
            "steps_done": run.step,
            "training_seconds": round(run.seconds),
            "torch": torch.__version__,
            "measured": run.measured(unseen, unseen_synthetic),
        },
        version=2,
    )


if __name__ == "__main__":
    main()
