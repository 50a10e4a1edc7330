"""How is an RVC network trained? One step: the discriminators learn, then the generator, as RVC does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.common.errors import ModelFileRefused
from libs.voice.device import pick_precision
from libs.voice.recipe import Batch, Scheduler, check_gradients, check_losses
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.discriminator import Discriminators
from libs.voice.rvc.files import export_dict, training_state
from libs.voice.rvc.layers import no_noise, noise_from, take_segments
from libs.voice.rvc.losses import (
    MEL_WEIGHT,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    kl_loss,
    mel_loss,
)
from libs.voice.rvc.spectral import linear_spectrogram, log_mel
from libs.voice.rvc.synthesizer import SynthesizerNetwork
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
        return {"epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch = int(state_dict["epoch"])


class RvcRecipe:
    """Generator and discriminators of one RVC preset; implements `libs.voice.recipe.Recipe`."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        config = config.resolved()
        preset = PRESETS[config.preset]
        self.name = config.preset
        self.network_config = CONFIGS[config.preset]
        self.sample_rate = self.network_config.sample_rate
        self.hop_length = self.network_config.hop_length
        self.content_width = self.network_config.content_width
        self.segment_frames = LONGEST_FRAMES
        self.device = device
        self.precision = pick_precision(device, config.precision)
        self.synthesizer = SynthesizerNetwork(self.network_config)
        self.judges = Discriminators(self.network_config.version, self.network_config.discriminator_width)
        if config.pretrained_generator is not None:
            _start_from(self.synthesizer, Path(config.pretrained_generator))
        if config.pretrained_discriminator is not None:
            _start_from(self.judges, Path(config.pretrained_discriminator))
        self.synthesizer.to(device)
        self.judges.to(device)
        rate = config.learning_rate if config.learning_rate is not None else preset.learning_rate
        decay = config.weight_decay if config.weight_decay is not None else preset.weight_decay
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            name: kind(module.parameters(), lr=rate, betas=BETAS, eps=EPSILON, weight_decay=decay)
            for name, module in self.modules().items()
        }
        self._schedulers = {name: EpochDecay(optimizer) for name, optimizer in self._optimizers.items()}

    def prepare(self, total_steps: int, steps_per_epoch: int) -> None:
        """RVC's schedule does not depend on the length of the run."""

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.synthesizer, "discriminator": self.judges}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return self._optimizers

    def schedulers(self) -> Mapping[str, Scheduler]:
        return self._schedulers

    def end_epoch(self) -> None:
        for scheduler in self._schedulers.values():
            scheduler.advance()

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of the discriminators and one of the generator; no clipping, as RVC."""
        c = self.network_config
        batch = _at_least(batch, c.segment_frames, c.hop_length)
        self.synthesizer.train()
        noise = noise_from(batch.generator)
        uniform = torch.rand(batch.content.shape[0], generator=batch.generator)
        spec = linear_spectrogram(batch.wave, c.filter_length, c.hop_length)
        with self._autocast():
            out = self.synthesizer(
                batch.content,
                batch.coarse if c.f0 else None,
                batch.f0_hz if c.f0 else None,
                spec,
                batch.lengths,
                batch.speakers,
                uniform=uniform,
                latent_noise=noise,
                source_noise=noise,
            )
        made = out.wave.float()
        real = take_segments(batch.wave.unsqueeze(1), out.starts * c.hop_length, c.segment_frames * c.hop_length)
        mel = mel_loss(
            self._mel(take_segments(spec, out.starts, c.segment_frames)),
            self._mel(linear_spectrogram(made[:, 0], c.filter_length, c.hop_length)),
        )
        kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask)
        check_losses({"mel": mel, "kl": kl})

        with self._autocast():
            real_judged, made_judged = self.judges.pair(real, made.detach())
        judge_loss = discriminator_loss(real_judged, made_judged)
        check_losses({"discriminator": judge_loss})
        self._update("discriminator", judge_loss)

        # the generator's pass needs gradients through the judges and none of their own
        self.judges.requires_grad_(False)
        try:
            with self._autocast():
                with torch.no_grad():
                    real_judged = self.judges(real)
                made_judged = self.judges(made)
            adversarial = adversarial_loss(made_judged)
            feature = feature_loss(real_judged, made_judged)
            total = adversarial + feature + mel + kl
            values = check_losses(
                {
                    "loss": total,
                    "mel": mel,
                    "kl": kl,
                    "adversarial": adversarial,
                    "feature": feature,
                    "discriminator": judge_loss,
                }
            )
            self._update("generator", total)
        finally:
            self.judges.requires_grad_(True)
        return values

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, float]:
        """Mean absolute log-mel difference of held-out speech and its conversion from content and pitch alone."""
        c = self.network_config
        self.synthesizer.eval()
        wave, _, _ = self.synthesizer.infer(
            batch.content,
            batch.lengths,
            batch.coarse if c.f0 else None,
            batch.f0_hz if c.f0 else None,
            batch.speakers,
            latent_noise=no_noise,
            source_noise=noise_from(batch.generator),
        )
        self.synthesizer.train()
        made, real = (self._mel(linear_spectrogram(x, c.filter_length, c.hop_length)) for x in (wave[:, 0], batch.wave))
        mask = torch.arange(real.shape[2], device=real.device) < batch.lengths[:, None]
        error = ((made - real).abs().mean(1) * mask).sum() / mask.sum()
        return {"loss": float(error), "mel": MEL_WEIGHT * float(error)}

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What RVC's exported file holds: half-precision weights without the posterior encoder, and its keys."""
        return export_dict(self.synthesizer)

    def _mel(self, spec: Tensor) -> Tensor:
        c = self.network_config
        return log_mel(spec, c.sample_rate, c.filter_length, c.n_mels)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def _update(self, name: str, loss: Tensor) -> None:
        optimizer = self._optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        check_gradients(self.modules()[name].parameters())
        optimizer.step()


def _at_least(batch: Batch, frames: int, hop: int) -> Batch:
    """Pad a batch whose longest item is shorter than the segment that is decoded."""
    missing = frames - batch.content.shape[1]
    if missing <= 0:
        return batch
    return Batch(
        F.pad(batch.content, (0, 0, 0, missing)),
        F.pad(batch.f0_hz, (0, missing)),
        F.pad(batch.coarse, (0, missing), value=1),
        F.pad(batch.wave, (0, missing * hop)),
        batch.lengths,
        batch.speakers,
        batch.step,
        batch.generator,
    )


def _start_from(module: nn.Module, path: Path) -> None:
    state = training_state(path)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = "; ".join(str(error).splitlines()[1:4])
        raise ModelFileRefused(f"{path.name} does not fit this preset: {first}") from error
