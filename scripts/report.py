"""What did the demo make, honestly? Measures of the result beside those of what it can be compared with, and a picture.

Rows: the source untouched · copy-synthesis of the source · converted · an unrelated clip of the target as control.
Copy-synthesis is the source through the voice's own synthesis with nothing learned in between: pulses at the source's
F0 and white noise, filtered to the source's own smoothed spectrum. Phones and melody that are missing there, no voice
of this kind can keep. The control is the target's real voice saying something else: its similarity is the goal, its
phone agreement is what chance gives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from libs.audio.decode import decode
from libs.audio.resample import resample
from libs.voice.artefact import load_synthesizer
from libs.voice.conversion.loudness import below_full_scale, mix_loudness
from libs.voice.evaluation import measure
from libs.voice.likeness import best_embedding
from libs.voice.lite import QUIETEST, LiteSynthesizer, glide, pulses
from libs.voice.opinion import opinions_are_available
from libs.voice.pitch import Pitch

Wave = NDArray[np.float32]
RATE = 16_000
VOICED_UP_TO = 5_000.0  # Hz; above it, voiced speech is rather noise than harmonics
COLUMNS = {
    "similarity_target": "like target",
    "similarity_source": "like source",
    "f0_correlation": "F0 correlation",
    "voiced_ratio": "voiced",
    "phone_agreement": "phones kept",
    "dnsmos": "DNSMOS (1-5)",
}


@dataclass
class Measured:
    """Rows of measures and the curves of the picture."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    waves: dict[str, Wave] = field(default_factory=dict)
    f0: dict[str, NDArray[np.floating]] = field(default_factory=dict)


def read(path: Path) -> Wave:
    """Mono float32 at 16 kHz."""
    sound = decode(path)
    return resample(sound.wave, sound.sample_rate, RATE)


def best_shift(source: Path, recordings: tuple[Path, ...] | list[Path]) -> int:
    """Whole semitones that bring the source's middle pitch to the target's; 0 when one of them is never voiced."""
    pitch = Pitch(threads=2)

    def middle(waves: list[Wave]) -> float | None:
        f0 = np.concatenate([pitch.f0(wave) for wave in waves])
        return float(np.median(np.log2(f0[f0 > 0]))) if (f0 > 0).any() else None

    before, after = middle([read(source)]), middle([read(path) for path in recordings[:6]])
    return 0 if before is None or after is None else round(12 * (after - before))


def smooth(log_magnitudes: torch.Tensor, quefrencies: int) -> torch.Tensor:
    """Log spectra `[bins, T]` → their envelopes: the first `quefrencies` cepstral values."""
    full = torch.cat((log_magnitudes, log_magnitudes[1:-1].flip(0)))
    cepstrum = torch.fft.rfft(full, dim=0).real
    cepstrum[quefrencies:] = 0
    envelope: torch.Tensor = torch.fft.irfft(cepstrum.to(torch.complex64), n=full.shape[0], dim=0)
    return envelope[: log_magnitudes.shape[0]]


def copy_synthesis(wave: Wave, f0: NDArray[np.floating], synthesizer: LiteSynthesizer) -> Wave:
    """`wave` at 16 kHz and its F0 in Hz per 10 ms → the same through pulses, noise and filters; 16 kHz.

    The filters are the smoothed log spectrum of the sound less that of the excitation. Voiced frames are harmonic up
    to 5 kHz and noise above; unvoiced frames are noise. It is as loud as `wave`, and below full scale.
    """
    rate, hop, fft = synthesizer.sample_rate, synthesizer.hop_length, synthesizer.config.fft
    sound = torch.from_numpy(resample(wave, RATE, rate))[None]
    frames = min(len(f0), sound.shape[1] // hop)
    pitch = torch.from_numpy(np.asarray(f0[:frames], dtype=np.float32))[None]
    sound = sound[:, : frames * hop]
    noise = torch.randn(1, frames * hop, generator=torch.Generator().manual_seed(0))
    # Unvoiced frames have no pulses: the envelope of the pulses is taken where a steady voice would be.
    steady = torch.where(pitch > 0, pitch, pitch[pitch > 0].mean() if (pitch > 0).any() else torch.tensor(200.0))
    train = pulses(*glide(steady, hop), rate)
    window = torch.hann_window(fft)

    def envelope(signal: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(signal, fft, hop, window=window, pad_mode="constant", return_complex=True)[0, :, :frames]
        return smooth(torch.log(spectrum.abs() + 1e-5), rate // 400)  # 2.5 ms: under a period of most voices

    shape = envelope(sound)
    bins = torch.linspace(0, rate / 2, shape.shape[0])[:, None]
    voiced = (pitch > 0)[0][None, :]
    nothing = torch.full_like(shape, QUIETEST)
    harmonic = torch.where(voiced & (bins <= VOICED_UP_TO), shape - envelope(train), nothing)
    breath = torch.where(voiced & (bins <= VOICED_UP_TO), nothing, shape - envelope(noise))
    with torch.inference_mode():
        made = synthesizer.sound(pitch, harmonic[None], breath[None], noise)[0]
    # Between harmonics pulses are emptier than a voice, so the filters come out too strong, the more the higher it is.
    return resample(below_full_scale(mix_loudness(wave, RATE, made.numpy(), rate, 0.0)), rate, RATE)


def measured(
    source: Path, converted: Path, control: Path, recordings: tuple[Path, ...] | list[Path], weights: Path, shift: float
) -> Measured:
    """All rows. `weights`: the voice's file; copy-synthesis is left out, and said so, for voices other than `lite`."""
    found = Measured()
    pitch, embedding = Pitch(threads=2), best_embedding()
    reference = np.concatenate([read(path) for path in recordings[:8]])
    before = read(source)
    found.waves = {"source": before, "converted": read(converted)}
    results: dict[str, tuple[Wave | None, float]] = {"source": (before, 0.0)}
    synthesizer = load_synthesizer(weights)
    if isinstance(synthesizer, LiteSynthesizer):
        results["copy-synthesis of the source"] = (copy_synthesis(before, pitch.f0(before), synthesizer), 0.0)
    else:
        results["copy-synthesis of the source"] = (None, 0.0)
    results["converted"] = (found.waves["converted"], shift)
    results["unrelated clip of the target"] = (read(control), 0.0)
    for name, (result, by) in results.items():
        if result is None:
            found.rows[name] = {"not_measured": "only the lite voice has a synthesis without learned parts"}
            continue
        found.rows[name] = measure(
            before, result, reference, pitch.f0, shift=by, embedding=embedding, with_opinion=opinions_are_available()
        )
    found.f0 = {name: pitch.f0(wave) for name, wave in found.waves.items()}
    return found


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Whole or not at all."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def draw(path: Path, found: Measured, losses: list[tuple[int, float]], title: str) -> None:
    """Spectrograms of source and result, F0 before and after, and the loss curve, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(13, 8), layout="constrained")
    for axis, name in zip(axes[0], ("source", "converted"), strict=True):
        wave = found.waves[name]
        axis.specgram(
            wave + 1e-7 * np.random.default_rng(0).standard_normal(len(wave)), NFFT=512, Fs=RATE, noverlap=384
        )
        axis.images[0].set_clim(-120, -20)
        axis.set(title=name, xlabel="s", ylabel="Hz")
    for name, f0 in found.f0.items():
        axes[1, 0].plot(np.arange(len(f0)) / 100, np.where(f0 > 0, f0, np.nan), label=name, linewidth=1)
    axes[1, 0].set(title="F0", xlabel="s", ylabel="Hz", yscale="log")
    axes[1, 0].legend()
    if losses:
        axes[1, 1].plot(*zip(*losses, strict=True), linewidth=1)
    axes[1, 1].set(title="training loss", xlabel="step", yscale="log" if losses else "linear")
    figure.suptitle(title)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, format="png", dpi=100)
    pyplot.close(figure)
    draft.replace(path)
