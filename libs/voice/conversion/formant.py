"""How is the timbre of a source moved without its pitch? Its spectral envelope is stretched, its harmonics stay.

The envelope is the low part of the real cepstrum (Oppenheim & Schafer 1975; for voices Röbel & Rodet 2005). What
Applio reaches through the package stftpitchshift with a pitch factor of 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from libs.voice.conversion.settings import SAMPLE_RATE

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

FFT = 1024
STEP = 256
CONTEXT = FFT
"""Samples on each side that a sample's result depends on."""

FRAMES_AT_ONCE = 1024


def shift_formants(wave: Float32, timbre: float, quefrency_ms: float = 1.0) -> Float32:
    """Formants at `timbre` times their frequency. `wave` `[T]` at 16 kHz → float32 `[T]`; 1.0 changes nothing.

    `quefrency_ms`: what varies more slowly along the spectrum than this cepstral time counts as envelope; the period of
    the voice must be longer. Frames of 64 ms every 16 ms lie on a grid from sample 0, so that a stretch with CONTEXT
    samples around it, cut at a multiple of 256, gives the same as the whole.
    """
    if timbre == 1.0 or not len(wave):
        return wave
    # the root of a Hann window on both ways: together they add up to a constant
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT))
    padded = np.pad(wave.astype(np.float64), (FFT, FFT + -len(wave) % STEP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::STEP]
    out, weight = np.zeros(len(padded)), np.zeros(len(padded))
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        spectra = np.fft.rfft(frames[first : first + FRAMES_AT_ONCE] * window, axis=1)
        sounds = np.fft.irfft(spectra * _envelope_change(np.abs(spectra), timbre, quefrency_ms), axis=1) * window
        for number, sound in enumerate(sounds, first):
            out[number * STEP : number * STEP + FFT] += sound
            weight[number * STEP : number * STEP + FFT] += window**2
    return (out / np.maximum(weight, 1e-9))[FFT : FFT + len(wave)].astype(np.float32)


def _envelope_change(magnitudes: Float64, timbre: float, quefrency_ms: float) -> Float64:
    """Stretched envelope over envelope, `[n, 513]`. Beyond the band the envelope's edge is held."""
    keep = max(1, min(FFT // 2 - 1, round(quefrency_ms * SAMPLE_RATE / 1000)))
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitudes, 1e-9)), axis=1)
    cepstrum[:, keep : FFT - keep + 1] = 0.0
    envelope = np.fft.rfft(cepstrum, axis=1).real
    bins = np.arange(envelope.shape[1])
    position = np.minimum(bins / timbre, bins[-1])
    below = np.minimum(position.astype(np.int64), bins[-1] - 1)
    share = position - below
    moved = envelope[:, below] * (1 - share) + envelope[:, below + 1] * share
    # ±40 dB: a valley that lands on a peak must not turn the noise floor into sound
    return np.asarray(np.exp(np.clip(moved - envelope, -4.6, 4.6)))
