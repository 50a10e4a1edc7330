"""What can be measured of a recording while it streams past? Levels, clipping, noise, bandwidth, loudness.

Memory is bounded: per 20 ms of sound one float, per 100 ms another, and one spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

CLIP_LEVEL = 0.999
CLIP_RUN = 3
"""So many samples in a row at full scale are a clipped peak; fewer occur in undamaged sound."""

FRAME_SECONDS = 0.020
LOUDNESS_STEP = 0.1
SPECTRUM_SIZE = 2048
FLOOR_DB = -120.0
BANDWIDTH_DROP_DB = 70.0
SILENT_DBFS = -60.0
DIGITAL_SILENCE_DBFS = -90.0
SNR_RANGE = (0.0, 80.0)


@dataclass
class Channels:
    """Sums over the source's channels, before they are mixed."""

    peak: float = 0.0
    samples: int = 0
    clipped: int = 0
    clipped_runs: int = 0
    sums: Floats = field(default_factory=lambda: np.zeros(0))
    squares: Floats = field(default_factory=lambda: np.zeros(0))
    _runs: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def feed(self, samples: Wave) -> None:
        """Take a block `[channels, n]`."""
        channels = samples.shape[0]
        if not self.sums.size:
            self.sums, self.squares = np.zeros(channels), np.zeros(channels)
            self._runs = np.zeros(channels, np.int64)
        peak = max(float(samples.max()), -float(samples.min()))
        self.peak = max(self.peak, peak)
        self.samples += samples.size
        self.sums += samples.sum(axis=1, dtype=np.float64)
        self.squares += np.einsum("cn,cn->c", samples, samples)
        if peak < CLIP_LEVEL and not self._runs.any():
            return
        for channel in range(channels):
            flags = np.abs(samples[channel]) >= CLIP_LEVEL
            self.clipped += int(flags.sum())
            self._count_runs(channel, flags)

    def _count_runs(self, channel: int, flags: npt.NDArray[np.bool_]) -> None:
        """Count runs of `CLIP_RUN` and more; one that goes on from the last block is counted once."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        carried = int(self._runs[channel])
        self._runs[channel] = 0
        for index, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            before = carried if start == 0 else 0
            if before + length >= CLIP_RUN and before < CLIP_RUN:
                self.clipped_runs += 1
            if index == len(starts) - 1 and start + length == len(flags):
                self._runs[channel] = before + length


class Frames:
    """Mean squares of the mono mix in frames of 20 ms, and the average spectrum of those that are not silent."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.length = max(1, round(FRAME_SECONDS * sample_rate))
        self._energies: list[Floats] = []
        self._rest = np.zeros(0, np.float32)
        self._window = np.hanning(SPECTRUM_SIZE).astype(np.float32)
        self._power = np.zeros(SPECTRUM_SIZE // 2 + 1)

    def feed(self, mono: Wave) -> None:
        """Take a block `[n]`."""
        wave = np.concatenate([self._rest, mono]) if self._rest.size else mono
        count = len(wave) // self.length
        whole = wave[: count * self.length].reshape(count, self.length)
        self._rest = wave[count * self.length :].copy()
        self._energies.append(np.einsum("fn,fn->f", whole, whole, dtype=np.float64) / self.length)
        blocks = len(mono) // SPECTRUM_SIZE
        if blocks:
            # neighbours are enough for an average: no overlap
            spectrum = np.fft.rfft(mono[: blocks * SPECTRUM_SIZE].reshape(blocks, SPECTRUM_SIZE) * self._window)
            self._power += np.einsum("bf,bf->f", spectrum.real, spectrum.real, dtype=np.float64)
            self._power += np.einsum("bf,bf->f", spectrum.imag, spectrum.imag, dtype=np.float64)
        elif not self._power.any() and len(mono):
            padded = np.zeros(SPECTRUM_SIZE, np.float32)
            padded[: len(mono)] = mono * np.hanning(len(mono))
            self._power += np.abs(np.fft.rfft(padded)) ** 2

    def levels(self) -> Floats:
        """Level of each frame in dBFS (a full-scale square wave is 0 dBFS), not below -120."""
        energies = np.concatenate(self._energies) if self._energies else np.zeros(0)
        if not energies.size and self._rest.size:
            energies = np.array([float(np.mean(np.square(self._rest, dtype=np.float64)))])
        return np.asarray(10 * np.log10(np.maximum(energies, 10 ** (FLOOR_DB / 10))))

    def bandwidth(self) -> float:
        """The highest frequency in Hz at which the smoothed average spectrum is within 70 dB of its maximum.

        Material that was sampled up from 8 kHz ends near 4 kHz, whatever its file says.
        """
        smooth = np.convolve(self._power, np.ones(5) / 5, "same")
        # DC and hum below 50 Hz say nothing about the recording's bandwidth
        first = max(1, int(50 * SPECTRUM_SIZE / self.sample_rate))
        top = float(smooth[first:].max(initial=0.0))
        if top <= 0.0:
            return 0.0
        above = np.flatnonzero(smooth[first:] > top * 10 ** (-BANDWIDTH_DROP_DB / 10))
        return float((above[-1] + first) * self.sample_rate / SPECTRUM_SIZE)


class Loudness:
    """Integrated loudness in LUFS of a mono wave, after ITU-R BS.1770-4.

    The two K-weighting filters are applied as one finite impulse response in blocks (overlap-save): the slower of them
    is 38 Hz wide and has decayed by more than 100 dB after 0.12 s.
    """

    def __init__(self, sample_rate: int) -> None:
        self._step = max(1, round(LOUDNESS_STEP * sample_rate))
        taps = int(0.12 * sample_rate)
        self._size = 1 << max(12, int(np.ceil(np.log2(taps * 6))))
        self._advance = self._size - taps
        impulse = _k_weighting_impulse(sample_rate, taps)
        self._response = np.fft.rfft(impulse, self._size).astype(np.complex64)
        self._waiting: Wave = np.zeros(taps, np.float32)
        self._taps = taps
        self._rest: Wave = np.zeros(0, np.float32)
        self._steps: list[Floats] = []

    def feed(self, mono: Wave) -> None:
        """Take a block `[n]`."""
        self._waiting = np.concatenate([self._waiting, mono])
        count = (len(self._waiting) - self._taps) // self._advance
        if count:
            self._filter(count)

    def integrated(self) -> float | None:
        """LUFS; None for less than 0.4 s or when all of it lies below the absolute gate. Ends the measurement."""
        left = len(self._waiting) - self._taps
        if left:
            self._waiting = np.concatenate([self._waiting, np.zeros(self._advance - left, np.float32)])
            self._filter(1, left)
        steps = np.concatenate(self._steps) if self._steps else np.zeros(0)
        if len(steps) < 4:
            return None
        blocks = np.convolve(steps, np.ones(4) / 4, "valid")
        loud = blocks[_lufs(blocks) > -70.0]
        if not loud.size:
            return None
        loud = loud[_lufs(loud) > _lufs(float(loud.mean())) - 10.0]
        return float(_lufs(float(loud.mean())))

    def _filter(self, count: int, keep: int | None = None) -> None:
        starts = np.arange(count) * self._advance
        pieces = np.lib.stride_tricks.sliding_window_view(self._waiting, self._size)[starts]
        filtered = np.fft.irfft(np.fft.rfft(pieces) * self._response, self._size)[:, self._taps :]
        out = np.asarray(filtered, dtype=np.float32)
        wave: Wave = out.reshape(-1)[: keep if keep is not None else None]
        self._waiting = self._waiting[count * self._advance :].copy()
        wave = np.concatenate([self._rest, wave])
        steps = len(wave) // self._step
        whole = wave[: steps * self._step].reshape(steps, self._step)
        self._rest = wave[steps * self._step :].copy()
        self._steps.append(np.einsum("sn,sn->s", whole, whole, dtype=np.float64) / self._step)


def speech_levels(levels: Floats) -> tuple[float | None, float, int]:
    """(SNR in dB or None, silence ratio 0…1, frames that hold sound) from the levels of 20 ms frames in dBFS.

    The SNR follows the frame-energy method of NIST's `stnr`: noise is what the quiet frames hold (the mean power up to
    the 10th percentile, digital silence left out), speech what the frames well above it hold beyond that. Measured
    with white noise on read speech: within 2 dB up to 30 dB, where the recording itself is that clean. A recording
    without pauses has no noise to listen to and is estimated low.
    """
    if not levels.size:
        return None, 1.0, 0
    sounding = levels[levels > DIGITAL_SILENCE_DBFS]
    audible = int((levels > SILENT_DBFS).sum())
    if not sounding.size:
        return None, 1.0, 0
    quiet = float(np.percentile(sounding, 10))
    loud = float(np.percentile(sounding, 95))
    # quiet frames of a steady noise lie 1-2 dB below its mean
    noise_power = float(np.mean(10 ** (sounding[sounding <= quiet] / 10))) * 10**0.1
    threshold = max(SILENT_DBFS, loud - 30.0, min(quiet + 4.0, loud - 10.0))
    active = sounding[sounding > threshold]
    silence = 1.0 - active.size / levels.size
    if not active.size:
        return None, silence, audible
    speech_power = float(np.mean(10 ** (active / 10))) - noise_power
    if sounding.size < 10:
        return None, silence, audible
    snr = 10 * np.log10(max(speech_power, 1e-12) / noise_power)
    return float(np.clip(snr, *SNR_RANGE)), silence, audible


def _lufs(power: Floats | float) -> Floats:
    return np.asarray(-0.691 + 10 * np.log10(np.maximum(power, 1e-20)))


def _k_weighting_impulse(sample_rate: int, taps: int) -> Floats:
    """Impulse response `[taps]` of BS.1770's high shelf (+4 dB above 1.7 kHz) and high-pass (38 Hz).

    The standard gives coefficients for 48 kHz; these are the analogue prototypes behind them, by bilinear transform.
    """
    impulse = np.zeros(taps)
    impulse[0] = 1.0
    size = 1 << int(np.ceil(np.log2(taps * 8)))
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)

    k = np.tan(np.pi * 1681.974450955533 / sample_rate)
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    q = 0.7071752369554196
    a0 = 1 + k / q + k * k
    shelf = (high + band * k / q + k * k) + 2 * (k * k - high) * z + (high - band * k / q + k * k) * z**2
    shelf /= a0 + 2 * (k * k - 1) * z + (1 - k / q + k * k) * z**2

    k = np.tan(np.pi * 38.13547087602444 / sample_rate)
    q = 0.5003270373238773
    a0 = 1 + k / q + k * k
    highpass = (1 - 2 * z + z**2) / (1 + (2 * (k * k - 1) * z + (1 - k / q + k * k) * z**2) / a0)
    return np.asarray(np.fft.irfft(shelf * highpass, size)[:taps])
