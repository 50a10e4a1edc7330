"""How are few recordings made to seem more? Changes of what the network sees that leave what it should say as it is.

Per item, from the item's own seed: content gets noise of a tenth of its spread, because two takes of one sound never
have the same features; and the sound's polarity is turned in half of the cases, which nobody hears.
"""

from __future__ import annotations

import dataclasses

import torch

from libs.voice.batch import Batch

CONTENT_NOISE = 0.1


def augmented(batch: Batch) -> Batch:
    """The batch with other content and polarity; lengths, pitch and padding stay. A function of the batch's seeds."""
    frames = torch.arange(batch.content.shape[1], device=batch.content.device)
    real = (frames < batch.lengths[:, None])[:, :, None]
    count = real.sum(dim=(1, 2), keepdim=True) * batch.content.shape[2]
    mean = (batch.content * real).sum(dim=(1, 2), keepdim=True) / count
    spread = (((batch.content - mean) * real).square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    noise = batch.normal("content", batch.content) * real
    turned = torch.where(batch.uniform("polarity") < 0.5, -1.0, 1.0).to(batch.wave)
    return dataclasses.replace(
        batch, content=batch.content + CONTENT_NOISE * spread * noise, wave=batch.wave * turned[:, None]
    )
