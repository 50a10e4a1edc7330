"""How is an RVC network trained? One step: the discriminators learn, then the generator, as RVC does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.voice.averaging import WeightAverage
from libs.voice.device import pick_precision
from libs.voice.recipe import (
    Batch,
    Scheduler,
    added_up,
    apply_gradients,
    check_losses,
    new_optimizer,
)
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.discriminator import Discriminators
from libs.voice.rvc.files import export_dict
from libs.voice.rvc.layers import no_noise, take_segments
from libs.voice.rvc.losses import MEL_WEIGHT, adversarial_loss, discriminator_loss, feature_loss, kl_loss, mel_loss
from libs.voice.rvc.pretrained import begin_with
from libs.voice.rvc.spectral import linear_spectrogram, log_mel
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.team import Team
from libs.voice.training_config import PRESETS, TrainingConfig

LONGEST_FRAMES = 900
DECAY_PER_EPOCH = 0.999875
BETAS = (0.8, 0.99)
EPSILON = 1e-9


class EpochDecay:
    """Learning rate x 0.999875 per epoch; a function of the number of epochs alone."""

    def __init__(self, optimizer: torch.optim.Optimizer, gamma: float = DECAY_PER_EPOCH) -> None:
        self.optimizer = optimizer
        self.gamma = gamma
        self.epoch = 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def advance(self) -> None:
        """One epoch is over."""
        self.epoch += 1
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.gamma**self.epoch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the epochs that are over."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The way back of `state_dict`."""
        self.epoch = int(state_dict["epoch"])


@dataclass(frozen=True)
class Passed:
    """The generator's forward pass of one part: segments `[b, 1, n]` of both sounds, and the losses without judges."""

    real: Tensor
    made: Tensor
    mel: Tensor
    kl: Tensor


class RvcRecipe:
    """Generator and discriminators of one RVC preset; implements `libs.voice.recipe.Recipe`."""

    def __init__(self, config: TrainingConfig, device: torch.device, team: Team | None = None) -> None:
        config = config.resolved()
        preset = PRESETS[config.preset]
        self.name = config.preset
        self.network_config = dataclasses.replace(CONFIGS[config.preset], f0=config.f0, dropout=config.dropout)
        self.sample_rate = self.network_config.sample_rate
        self.hop_length = self.network_config.hop_length
        self.content_width = self.network_config.content_width
        self.segment_frames = LONGEST_FRAMES
        self.device = device
        self.team = team or Team()
        self.precision = pick_precision(device, config.precision)
        self.loss_function = config.loss_function
        self.synthesizer = SynthesizerNetwork(self.network_config)
        self.judges = Discriminators(self.network_config.version, self.network_config.discriminator_width)
        own: dict[str, nn.Module] = {"generator": self.synthesizer, "discriminator": self.judges}
        self._bases: dict[str, dict[str, str]] = {}
        if config.pretrained_generator is not None:
            path = Path(config.pretrained_generator)
            self._bases["generator"] = begin_with(self.synthesizer, path, "generator")
        if config.pretrained_discriminator is not None:
            path = Path(config.pretrained_discriminator)
            self._bases["discriminator"] = begin_with(self.judges, path, "discriminator")
        self.synthesizer.to(device)
        self.judges.to(device)
        self.average = WeightAverage(self.synthesizer, config.ema_decay) if config.ema_decay else None
        rate = config.learning_rate if config.learning_rate is not None else preset.learning_rate
        decay = config.weight_decay if config.weight_decay is not None else preset.weight_decay
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            name: new_optimizer(module.parameters(), config, rate=rate, decay=decay, betas=BETAS, epsilon=EPSILON)
            for name, module in own.items()
        }
        self._schedulers = {name: EpochDecay(optimizer) for name, optimizer in self._optimizers.items()}
        self._judged: tuple[int, dict[str, float]] | None = None

    def prepare(self, total_steps: int, steps_per_epoch: int) -> None:
        """RVC's schedule does not depend on the length of the run."""

    def finish_from(self, step: int, total_steps: int) -> None:
        """RVC has no finish: its judges take part from the first step on."""

    def is_finishing(self, step: int) -> bool:
        """Never."""
        return False

    @property
    def voice(self) -> SynthesizerNetwork:
        """The network that is judged and exported: the average where there is one."""
        kept = self.average.network if self.average is not None else self.synthesizer
        assert isinstance(kept, SynthesizerNetwork)
        return kept

    def modules(self) -> dict[str, nn.Module]:
        """All that holds weights."""
        own: dict[str, nn.Module] = {"generator": self.synthesizer, "discriminator": self.judges}
        return own | ({"average": self.average} if self.average is not None else {})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """All that holds an optimiser's state."""
        return self._optimizers

    def schedulers(self) -> Mapping[str, Scheduler]:
        """Moved once per epoch."""
        return self._schedulers

    def bases(self) -> dict[str, dict[str, str]]:
        """The pretrained files that the networks began with, by module: `file` and `sha256`."""
        return self._bases

    def end_epoch(self) -> None:
        """Both learning rates fall."""
        for scheduler in self._schedulers.values():
            scheduler.advance()

    def step(self, *parts: Batch) -> dict[str, float]:
        """One update of the discriminators and one of the generator; no clipping, as RVC.

        A batch in one part goes through the generator once. Of several parts only one is in memory at a time: all are
        made for the judges without gradients, and made again, the same, for the generator.
        """
        c = self.network_config
        padded = [_at_least(part, c.segment_frames, c.hop_length) for part in parts]
        self.synthesizer.train()
        kept: Passed | None = None
        # the judges have learnt already when memory ran out after them and the step is asked for again
        if self._judged is None or self._judged[0] != padded[0].step:
            self._optimizers["discriminator"].zero_grad(set_to_none=True)
            kept, told = self.team.together(lambda: self._teach_judges(padded))
            values = added_up(self.team, told)
            apply_gradients(self.team, self.judges, self._optimizers["discriminator"])
            self._judged = (padded[0].step, values)
        judged = self._judged[1]
        self._optimizers["generator"].zero_grad(set_to_none=True)
        # the generator's pass needs gradients through the judges and none of their own
        self.judges.requires_grad_(False)
        try:
            told = self.team.together(lambda: self._teach_generator(padded, kept))
        finally:
            self.judges.requires_grad_(True)
        values = added_up(self.team, told)
        apply_gradients(self.team, self.synthesizer, self._optimizers["generator"])
        if self.average is not None:
            self.average.update(self.synthesizer)
        self._judged = None  # a trial makes steps of one number several times, and each is a whole one
        return values | judged

    def _teach_judges(self, parts: Sequence[Batch]) -> tuple[Passed | None, list[dict[str, float]]]:
        """The judges' gradients; returns the generator's pass with its graph when there is one part only."""
        alone = len(parts) == 1
        told = []
        for part in parts:
            with torch.set_grad_enabled(alone):
                passed = self._forward(part)
            with self._autocast():
                real_judged, made_judged = self.judges.pair(passed.real, passed.made.detach())
            loss = part.share * discriminator_loss(real_judged, made_judged)
            told.append(check_losses({"discriminator": loss}))
            loss.backward()  # type: ignore[no-untyped-call]
        return (passed if alone else None), told

    def _teach_generator(self, parts: Sequence[Batch], kept: Passed | None) -> list[dict[str, float]]:
        told = []
        for part in parts:
            passed = kept if kept is not None else self._forward(part)
            with self._autocast():
                with torch.no_grad():
                    real_judged = self.judges(passed.real)
                made_judged = self.judges(passed.made)
            adversarial = part.share * adversarial_loss(made_judged)
            feature = part.share * feature_loss(real_judged, made_judged)
            mel, kl = part.share * passed.mel, part.frames_share * passed.kl
            total = adversarial + feature + mel + kl
            told.append(
                check_losses({"loss": total, "mel": mel, "kl": kl, "adversarial": adversarial, "feature": feature})
            )
            total.backward()  # type: ignore[no-untyped-call]
        return told

    def _forward(self, batch: Batch) -> Passed:
        c = self.network_config
        if c.dropout:  # both passes of a part must drop the same values
            torch.manual_seed(batch.seeds[0])
        spec = linear_spectrogram(batch.wave, c.filter_length, c.hop_length)
        with self._autocast():
            out = self.synthesizer(
                batch.content,
                batch.coarse if c.f0 else None,
                batch.f0_hz if c.f0 else None,
                spec,
                batch.lengths,
                batch.speakers,
                uniform=batch.uniform("segment"),
                latent_noise=lambda like: batch.normal("latent", like),
                source_noise=lambda like: batch.normal("source", like),
            )
        made = out.wave.float()
        real = take_segments(batch.wave.unsqueeze(1), out.starts * c.hop_length, c.segment_frames * c.hop_length)
        real_mel = self._mel(take_segments(spec, out.starts, c.segment_frames))
        made_mel = self._mel(linear_spectrogram(made[:, 0], c.filter_length, c.hop_length))
        mel = mel_loss(real_mel, made_mel, self.loss_function)
        kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask)
        check_losses({"mel": mel, "kl": kl})
        return Passed(real, made, mel, kl)

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, float]:
        """Mean absolute log-mel difference of held-out speech and its conversion from content and pitch alone.

        Raises BadStep when it is not finite.
        """
        c = self.network_config
        network = self.voice.eval()
        wave, _, _ = network.infer(
            batch.content,
            batch.lengths,
            batch.coarse if c.f0 else None,
            batch.f0_hz if c.f0 else None,
            batch.speakers,
            latent_noise=no_noise,
            source_noise=lambda like: batch.normal("source", like),
        )
        made, real = (self._mel(linear_spectrogram(x, c.filter_length, c.hop_length)) for x in (wave[:, 0], batch.wave))
        mask = torch.arange(real.shape[2], device=real.device) < batch.lengths[:, None]
        error = ((made - real).abs().mean(1) * mask).sum() / mask.sum()
        return check_losses({"loss": error, "mel": MEL_WEIGHT * error})

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What RVC's exported file holds: half-precision weights without the posterior encoder, and its keys."""
        return export_dict(self.voice)

    def _mel(self, spec: Tensor) -> Tensor:
        c = self.network_config
        return log_mel(spec, c.sample_rate, c.filter_length, c.n_mels)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)


def _at_least(batch: Batch, frames: int, hop: int) -> Batch:
    """Pad a batch whose longest item is shorter than the segment that is decoded."""
    missing = frames - batch.content.shape[1]
    if missing <= 0:
        return batch
    return dataclasses.replace(
        batch,
        content=F.pad(batch.content, (0, 0, 0, missing)),
        f0_hz=F.pad(batch.f0_hz, (0, missing)),
        coarse=F.pad(batch.coarse, (0, missing), value=1),
        wave=F.pad(batch.wave, (0, missing * hop)),
    )
