"""How loud is each frame, against the level of the speech around it?

A posterior says which phone it is; loudness says how it is spoken: where a plosive is closed, how strong a fricative
is. It tells little about who speaks once the level of the recording is taken out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

HEARD_HZ = 8000.0
"""Sources come at 16 kHz: a target of a higher rate is measured on the same part of its spectrum."""

SPEECH_WITHIN_DB = 20.0
QUIETEST_SPEECH_DB = -55.0
"""A recording whose speech is quieter counts as silence, and is not raised to the level of speech."""

UNIT_DB = 20.0
RANGE = (-2.5, 1.0)


def frame_decibels(wave: Tensor, sample_rate: int) -> Tensor:
    """RMS per 10 ms in dB of full scale, over 40 ms around each frame, below 8 kHz, not under -100 dB.

    `wave` float32 `[B, T * hop]` → `[B, T]`: `libs.voice.conversion.loudness.frame_loudness` for a batch of any rate.
    """
    hop = sample_rate // 100
    if sample_rate > 2 * HEARD_HZ:
        spectrum = torch.fft.rfft(wave)
        spectrum[:, round(HEARD_HZ / sample_rate * wave.shape[1]) + 1 :] = 0
        wave = torch.fft.irfft(spectrum, n=wave.shape[1])
    power = functional.avg_pool1d(functional.pad(wave.square(), (2 * hop, 2 * hop))[:, None], 4 * hop, hop)[:, 0]
    return 10 * torch.log10(power[:, : wave.shape[1] // hop].clamp(min=1e-10))


def over_speech(decibels: Tensor) -> Tensor:
    """dB of full scale `[B, T]` → dB over the mean level of the speech in it."""
    return decibels - speech_level(decibels)


def speech_level(decibels: Tensor) -> Tensor:
    """dB of full scale `[B, T]` → the mean of the speech in it `[B, 1]`, at least -55 dB.

    Speech: the frames within 20 dB of the loudest (the idea of ITU-T P.56, with a relative threshold).
    """
    speech = (decibels >= decibels.amax(dim=1, keepdim=True) - SPEECH_WITHIN_DB).to(decibels.dtype)
    level = (decibels * speech).sum(dim=1, keepdim=True) / speech.sum(dim=1, keepdim=True)
    return level.clamp(min=QUIETEST_SPEECH_DB)


def in_a_room(decibels: Tensor, chance: Tensor) -> Tensor:
    """dB over speech `[B, T]` as they are where pauses are not silent: a floor 20 to 60 dB under the speech is added.

    `chance` `[B]` in 0…1 chooses the floor. Who learns only from a quiet room is lost in a noisy one.
    """
    floor = -(20.0 + 40.0 * chance.to(decibels))[:, None]
    return 10 * torch.log10(10 ** (decibels / 10) + 10 ** (floor / 10))


def as_read(decibels: Tensor) -> Tensor:
    """dB over speech, of any shape → what the network reads: 20 dB are 1, between -2.5 and 1."""
    return (decibels / UNIT_DB).clamp(*RANGE)
