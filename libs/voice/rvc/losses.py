"""What is RVC trained to make small? Least-squares adversarial, feature matching, mel and KL terms.

All losses are scalars `[]` in float32, 0 or more but for the KL estimate. A judgement is one discriminator's scores
`[b, n]` and its feature maps, `[b, c, n]` or of the judges of periods `[b, c, n, period]`; `real` and `made` name the
same judges in one order.
Source: HiFi-GAN (Kong et al. 2020) and VITS (Kim et al. 2021), with RVC's weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from libs.voice.recipe import difference
from libs.voice.rvc.discriminator import Judgement
from libs.voice.training_config import LossFunction

MEL_WEIGHT = 45.0


def discriminator_loss(real: list[Judgement], made: list[Judgement]) -> Tensor:
    """Σ over judges of mean (1 - D(y))² + mean D(ŷ)² (LSGAN, Mao et al. 2017)."""
    terms = [
        (1 - r.float()).square().mean() + m.float().square().mean() for (r, _), (m, _) in zip(real, made, strict=True)
    ]
    return torch.stack(terms).sum()


def adversarial_loss(made: list[Judgement]) -> Tensor:
    """Σ over judges of mean (1 - D(ŷ))²."""
    return torch.stack([(1 - scores.float()).square().mean() for scores, _ in made]).sum()


def feature_loss(real: list[Judgement], made: list[Judgement]) -> Tensor:
    """2 Σ over judges and layers of the mean absolute difference of feature maps."""
    terms = [
        F.l1_loss(m.float(), r.float().detach())
        for (_, real_maps), (_, made_maps) in zip(real, made, strict=True)
        for r, m in zip(real_maps, made_maps, strict=True)
    ]
    return 2 * torch.stack(terms).sum()


def mel_loss(real_mel: Tensor, made_mel: Tensor, kind: LossFunction = "l1") -> Tensor:
    """45 times the mean difference of log-mels `[b, mels, frames]`: absolute as in RVC, or of another `kind`."""
    return MEL_WEIGHT * difference(made_mel.float(), real_mel.float(), kind).mean()


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, mask: Tensor) -> Tensor:
    """KL divergence of posterior and prior, estimated from one sample; summed over channels, mean over real frames.

    All [b, inter, t]; mask [b, 1, t].
    """
    z_p, logs_q, m_p, logs_p, mask = (x.float() for x in (z_p, logs_q, m_p, logs_p, mask))
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2 * logs_p)
    return (kl * mask).sum() / mask.sum()
