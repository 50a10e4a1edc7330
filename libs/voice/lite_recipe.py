"""How does the `lite` voice learn? The recipe that the shared training loop drives."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.common.errors import InvalidInput
from libs.voice.averaging import WeightAverage
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.lite_finish import ALONE, Finish
from libs.voice.lite_judges import WINDOWS, crops
from libs.voice.lite_loudness import frame_decibels, in_a_room, over_speech
from libs.voice.lite_speakers import TABLES, with_everybody
from libs.voice.lite_start import begin_with
from libs.voice.recipe import (
    Batch,
    Scheduler,
    added_up,
    apply_gradients,
    check_losses,
    difference,
    new_optimizer,
)
from libs.voice.team import Team
from libs.voice.training_config import PRESETS, LossFunction, TrainingConfig

RESOLUTIONS = (2048, 1024, 512, 256)
FLOOR = 1e-4
LARGEST_GRADIENT = 10.0
WARMUP_STEPS = 20
FINISH_RATE = 0.2
"""Of the learning rate: what has been learned is polished and not forgotten."""

TINT_RATE = 60.0
"""Of the learning rate, for what makes one speaker another: AdamW moves a number by about its rate in a step, and two
voices are several natural logs of magnitude apart (measured: docs/decisions/0165)."""

Spectra = dict[int, tuple[Tensor, Tensor]]
"""Magnitudes of what was made and of the truth, by the samples of the transform."""


class SpectralLoss(nn.Module):
    """Distance of STFT magnitudes at four resolutions: coarse in time and fine in pitch, and the other way round.

    Per resolution: L1 over the mean magnitude of the truth, plus L1 of natural logs with floor 1e-4 (the loss family of
    Engel et al. 2020, arXiv 2001.04643, and Yamamoto et al. 2020, arXiv 1910.11480). `kind` l2 or huber measures
    differences in another way. `heard`: the part of the spectrum, from 0 Hz up, that counts.
    """

    def __init__(
        self, resolutions: tuple[int, ...] = RESOLUTIONS, kind: LossFunction = "l1", heard: float = 1.0
    ) -> None:
        super().__init__()
        self.resolutions = resolutions
        self.kind = kind
        self.heard = heard
        for size in resolutions:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def magnitudes(self, wave: Tensor, size: int) -> Tensor:
        """`wave` `[B, N]` → STFT magnitudes `[B, bins, frames]`; bins: the part of `size // 2 + 1` that counts."""
        window: Tensor = getattr(self, f"window_{size}")
        spectrum = torch.stft(wave, size, size // 4, window=window, return_complex=True)
        spectrum = spectrum[:, : round(self.heard * (size // 2)) + 1]
        # The square root's slope at zero is infinite: a tiny constant keeps gradients finite in silence.
        return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)

    def levels(self, truth: Tensor) -> list[float]:
        """The mean magnitude of `truth` `[B, N]` at each resolution."""
        return [float(self.magnitudes(truth, size).mean()) for size in self.resolutions]

    def forward(self, made: Tensor, truth: Tensor, levels: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """`made`, `truth`: `[B, N]` → (linear part, logarithmic part), means over the resolutions; see `apart`."""
        return self.apart(self.spectra(made, truth), levels)

    def spectra(self, made: Tensor, truth: Tensor) -> Spectra:
        """Of `[B, N]` both: what `apart` compares."""
        return {size: (self.magnitudes(made, size), self.magnitudes(truth, size)) for size in self.resolutions}

    def apart(self, spectra: Spectra, levels: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """The linear and the logarithmic part of the distance, scalars `[]`.

        `levels`: mean magnitudes that the linear part is measured by; default: those of the truth. A part of a batch is
        given those of the whole.
        """
        any_of_them = next(iter(spectra.values()))[0]
        linear, logarithmic = any_of_them.new_zeros(()), any_of_them.new_zeros(())
        for number, (got, wanted) in enumerate(spectra.values()):
            level = wanted.mean().clamp(min=1e-3) if levels is None else max(levels[number], 1e-3)
            linear = linear + difference(got, wanted, self.kind).mean() / level
            logs = difference(torch.log(got + FLOOR), torch.log(wanted + FLOOR), self.kind)
            logarithmic = logarithmic + logs.mean()
        return linear / len(self.resolutions), logarithmic / len(self.resolutions)


class LiteRecipe:
    """Implements the Recipe protocol: AdamW with a cosine schedule, and a finish against judges with one of its own."""

    name = "lite"
    segment_frames = 150

    def __init__(
        self, config: TrainingConfig, device: torch.device, team: Team | None = None, speakers: int = 1
    ) -> None:
        """`config` is resolved first; weights are drawn from torch's global stream unless it names a file of them.

        Raises InvalidInput for such a file that does not fit, and for one of a discriminator: `lite` has none.
        """
        config = config.resolved()
        if config.pretrained_discriminator is not None:
            raise InvalidInput(
                "lite has no discriminator; leave it out or choose an RVC preset", field="pretrained_discriminator"
            )
        preset = PRESETS[config.preset]
        self.device = device
        self.team = team or Team()
        self.dropout = config.dropout
        self.synthesizer = LiteSynthesizer(
            LiteConfig(
                sample_rate=preset.sample_rate, content_width=preset.content_width, loudness=1, speakers=speakers
            )
        )
        start = config.pretrained_generator
        self._bases = {} if start is None else {"generator": begin_with(self.synthesizer, Path(start))}
        self.synthesizer.to(device)
        self.sample_rate = preset.sample_rate
        self.hop_length = self.synthesizer.hop_length
        self.content_width = preset.content_width
        self.loss = SpectralLoss(kind=config.loss_function).to(device)
        self.half = config.precision == "bf16" or (config.precision == "auto" and bf16_pays(device))
        rate = config.learning_rate or preset.learning_rate
        decay = preset.weight_decay if config.weight_decay is None else config.weight_decay
        self.optimizer = new_optimizer(
            _groups(self.synthesizer, rate, decay),
            config,
            rate=rate,
            decay=decay,
            betas=(0.9, 0.99),
            epsilon=1e-8,
        )
        self.average = WeightAverage(self.synthesizer, config.ema_decay) if config.ema_decay else None
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)
        # drawn after the voice's own weights: these are the same without judges
        self.finish = Finish(config, device, self.team) if config.adversarial_steps else None
        self._finish_of = config.adversarial_steps_of
        self._first = self._total = sys.maxsize

    def prepare(self, total_steps: int, steps_per_epoch: int) -> None:
        """A cosine down to a hundredth, after a short rise; once for the plain steps and once for the finish."""
        self.finish_from(total_steps - self._finish_of(total_steps), total_steps)

        def rate(step: int) -> float:
            if step < self._first or self.finish is None:
                return _rise_and_fall(step, self._first)
            return FINISH_RATE * _rise_and_fall(step - self._first, self._total - self._first)

        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def finish_from(self, step: int, total_steps: int) -> None:
        """See `libs.voice.recipe.Recipe`."""
        self._first, self._total = step, total_steps

    def is_finishing(self, step: int) -> bool:
        """Whether the judges take part in that step."""
        return self.finish is not None and step >= self._first

    @property
    def voice(self) -> LiteSynthesizer:
        """The network that is judged and exported: the average where there is one."""
        kept = self.average.network if self.average is not None else self.synthesizer
        assert isinstance(kept, LiteSynthesizer)
        return kept

    def modules(self) -> dict[str, nn.Module]:
        """All that holds weights."""
        own: dict[str, nn.Module] = {"generator": self.synthesizer}
        judges = {} if self.finish is None else {"judges": self.finish.judges}
        return own | judges | ({"average": self.average} if self.average is not None else {})

    def bases(self) -> dict[str, dict[str, str]]:
        """The file of weights that it began with, if any."""
        return self._bases

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """All that holds an optimiser's state."""
        judges = {} if self.finish is None else {"judges": self.finish.optimizer}
        return {"generator": self.optimizer, **judges}

    def schedulers(self) -> Mapping[str, Scheduler]:
        """Moved once per step."""
        return {"generator": self.scheduler}

    def step(self, *parts: Batch) -> dict[str, float]:
        """One optimisation step; raises BadStep when a loss or a gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        finish = self.finish if self.is_finishing(parts[0].step) else None
        levels = heard = None
        if len(parts) > 1 or self.team.size > 1:
            levels = self._together(parts, lambda part: self.loss.levels(part.wave))
        if finish is not None:
            finish.optimizer.zero_grad(set_to_none=True)
            if levels is not None:
                judged = finish.levels
                heard = self._together(parts, lambda part: judged(self._judged(part)))
        told = self.team.together(lambda: [self._learn(part, levels, finish, heard) for part in parts])
        values = added_up(self.team, told)
        if finish is not None:
            finish.check()  # both before either moves: a bad step changes nothing
        norm = apply_gradients(self.team, self.synthesizer, self.optimizer, LARGEST_GRADIENT)
        if finish is not None:
            finish.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update(self.synthesizer)
        return values | {"gradient_norm": norm}

    def _together(self, parts: Sequence[Batch], measure: Callable[[Batch], list[float]]) -> list[float]:
        """Means over parts, as those of the whole batch of all processes."""
        means = self.team.together(lambda: [[part.share * each for each in measure(part)] for part in parts])
        return self.team.sum([sum(column) for column in zip(*means, strict=True)])

    def _judged(self, part: Batch) -> list[Tensor]:
        places = part.uniform("judged")
        return [crops(self.loss.magnitudes(part.wave, size), places) for size in WINDOWS]

    def _learn(
        self, part: Batch, levels: Sequence[float] | None, finish: Finish | None, heard: Sequence[float] | None
    ) -> dict[str, float]:
        if self.dropout:
            torch.manual_seed(part.seeds[0])
        losses, spectra = self._losses(self.synthesizer, part, levels)
        losses = {name: part.share * value for name, value in losses.items()}
        values = check_losses(losses)
        total = losses["loss"]
        if finish is not None:
            places = part.uniform("judged")
            made, real = ([crops(spectra[size][side], places) for size in WINDOWS] for side in (0, 1))
            alone = (part.step - self._first) * ALONE < self._total - self._first
            answer, told = finish.hear(real, made, part.share, heard, alone=alone)
            total, values = total + answer, values | told
        total.backward()  # type: ignore[no-untyped-call]
        return values

    def end_epoch(self) -> None:
        """The schedule moves per step: nothing to do."""

    def validate(self, batch: Batch) -> dict[str, float]:
        """The same losses without learning."""
        with torch.no_grad():
            return check_losses(self._losses(self.voice, batch)[0])

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights by name and the configuration that `libs.voice.lite.LiteConfig` takes, with `kind` lite."""
        state = self.voice.state_dict()
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        weights |= {name: with_everybody(weights[name]) for name in TABLES if name in weights}
        return weights, {"kind": "lite", **self.voice.config.as_dict()}

    def _losses(
        self, network: LiteSynthesizer, batch: Batch, levels: Sequence[float] | None = None
    ) -> tuple[dict[str, Tensor], Spectra]:
        noise = batch.normal("breath", batch.wave)
        content, loudness = batch.content, over_speech(frame_decibels(batch.wave, self.sample_rate))
        if torch.is_grad_enabled():
            loudness = in_a_room(loudness, batch.uniform("room"))
            if self.dropout:
                content = F.dropout(content, self.dropout)
        tint = network.tint(batch.speakers)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            harmonic, breath = network.filters(content, batch.f0_hz, loudness, tint)
        made = network.sound(batch.f0_hz, harmonic, breath, noise)
        spectra = self.loss.spectra(made, batch.wave)
        linear, logarithmic = self.loss.apart(spectra, levels)
        return {"loss": linear + logarithmic, "spectrum": linear, "log_spectrum": logarithmic}, spectra


def _groups(network: LiteSynthesizer, rate: float, decay: float) -> list[dict[str, Any]]:
    """The parameters that all speakers share, and those of their own with their rate; both fade as fast."""
    if network.tints is None:
        return [{"params": list(network.parameters())}]
    own = list(network.tints.parameters())
    shared = [each for each in network.parameters() if not any(each is mine for mine in own)]
    return [{"params": shared}, {"params": own, "lr": TINT_RATE * rate, "weight_decay": decay / TINT_RATE}]


def _rise_and_fall(step: int, total: int) -> float:
    """A factor of the learning rate: up over the first steps, and by a cosine down to a hundredth at `total`."""
    rise = min(1.0, (step + 1) / WARMUP_STEPS)
    return rise * (0.505 + 0.495 * math.cos(math.pi * min(step / max(total, 1), 1.0)))


def bf16_pays(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively: the network is then several times faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # torch has no public name for these; a version without them trains in float32.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(bool(ask()) for ask in asked if ask is not None)
