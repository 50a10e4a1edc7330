"""How does the `lite` voice learn? The recipe that the shared training loop drives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.recipe import Batch, Scheduler, check_gradients, check_losses
from libs.voice.training_config import PRESETS, TrainingConfig

RESOLUTIONS = (2048, 1024, 512, 256)
FLOOR = 1e-4
LARGEST_GRADIENT = 10.0
WARMUP_STEPS = 20


class SpectralLoss(nn.Module):
    """Distance of STFT magnitudes at four resolutions: coarse in time and fine in pitch, and the other way round.

    Per resolution: L1 over the mean magnitude of the truth, plus L1 of natural logs with floor 1e-4 (the loss family of
    Engel et al. 2020, arXiv 2001.04643, and Yamamoto et al. 2020, arXiv 1910.11480).
    """

    def __init__(self, resolutions: tuple[int, ...] = RESOLUTIONS) -> None:
        super().__init__()
        self.resolutions = resolutions
        for size in resolutions:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def magnitudes(self, wave: Tensor, size: int) -> Tensor:
        """`wave` `[B, N]` → STFT magnitudes `[B, size // 2 + 1, frames]`, scaled to the amplitude of a sine."""
        window: Tensor = getattr(self, f"window_{size}")
        spectrum = torch.stft(wave, size, size // 4, window=window, return_complex=True)
        # The square root's slope at zero is infinite: a tiny constant keeps gradients finite in silence.
        return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)

    def forward(self, made: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """`made`, `truth`: `[B, N]` → (linear part, logarithmic part), each the mean over the resolutions."""
        linear, logarithmic = made.new_zeros(()), made.new_zeros(())
        for size in self.resolutions:
            got, wanted = self.magnitudes(made, size), self.magnitudes(truth, size)
            linear = linear + (got - wanted).abs().mean() / wanted.mean().clamp(min=1e-3)
            logarithmic = logarithmic + (torch.log(got + FLOOR) - torch.log(wanted + FLOOR)).abs().mean()
        return linear / len(self.resolutions), logarithmic / len(self.resolutions)


class LiteRecipe:
    """Implements the Recipe protocol: AdamW with a cosine schedule, no adversary."""

    name = "lite"
    segment_frames = 150

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        """`config` is resolved first; weights are drawn from torch's global stream."""
        config = config.resolved()
        preset = PRESETS[config.preset]
        self.device = device
        self.synthesizer = LiteSynthesizer(
            LiteConfig(sample_rate=preset.sample_rate, content_width=preset.content_width)
        ).to(device)
        self.sample_rate = preset.sample_rate
        self.hop_length = self.synthesizer.hop_length
        self.content_width = preset.content_width
        self.loss = SpectralLoss().to(device)
        self.half = config.precision == "bf16" or (config.precision == "auto" and bf16_pays(device))
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self.optimizer: torch.optim.Optimizer = kind(
            self.synthesizer.parameters(),
            lr=config.learning_rate or preset.learning_rate,
            weight_decay=preset.weight_decay if config.weight_decay is None else config.weight_decay,
            betas=(0.9, 0.99),
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)

    def prepare(self, total_steps: int, steps_per_epoch: int) -> None:
        """A cosine down to a hundredth over the whole run, after a short rise."""

        def rate(step: int) -> float:
            rise = min(1.0, (step + 1) / WARMUP_STEPS)
            return rise * (0.505 + 0.495 * math.cos(math.pi * min(step / max(total_steps, 1), 1.0)))

        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def modules(self) -> dict[str, nn.Module]:
        """All that holds weights."""
        return {"generator": self.synthesizer}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """All that holds an optimiser's state."""
        return {"generator": self.optimizer}

    def schedulers(self) -> Mapping[str, Scheduler]:
        """Moved once per step."""
        return {"generator": self.scheduler}

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimisation step; raises BadStep when a loss or a gradient is not finite."""
        losses = self._losses(batch)
        values = check_losses(losses)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        values["gradient_norm"] = check_gradients(self.synthesizer.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.scheduler.step()
        return values

    def end_epoch(self) -> None:
        """The schedule moves per step: nothing to do."""

    def validate(self, batch: Batch) -> dict[str, float]:
        """The same losses without learning."""
        with torch.no_grad():
            return check_losses(self._losses(batch))

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights by name and the configuration that `libs.voice.lite.LiteConfig` takes, with `kind` lite."""
        state = self.synthesizer.state_dict()
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        return weights, {"kind": "lite", **self.synthesizer.config.as_dict()}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        noise = torch.randn(batch.wave.shape, generator=batch.generator).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            harmonic, breath = self.synthesizer.filters(batch.content, batch.f0_hz)
        made = self.synthesizer.sound(batch.f0_hz, harmonic, breath, noise)
        linear, logarithmic = self.loss(made, batch.wave)
        return {"loss": linear + logarithmic, "spectrum": linear, "log_spectrum": logarithmic}


def bf16_pays(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively: the network is then several times faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # torch has no public name for these; a version without them trains in float32.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(bool(ask()) for ask in asked if ask is not None)
