"""A recording and small encoders for the tests of preparation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from libs.audio.encode import write_wav
from libs.voice import preparation
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch

SETTINGS = preparation.PreparationSettings(sample_rate=32000)


class BandEncoder:
    """A content encoder that needs no weights: 16 band levels; counts its calls."""

    name, width = "bands", 16

    def __init__(self, checksum: str = "a" * 64) -> None:
        self.checksum = checksum
        self.calls = 0

    def encode(self, wave16k: np.ndarray) -> np.ndarray:
        self.calls += 1
        frames = (len(wave16k) - 400) // 320 + 1
        windows = np.lib.stride_tricks.sliding_window_view(wave16k, 400)[::320][:frames]
        bands = np.abs(np.fft.rfft(windows, axis=1))[:, :192].reshape(frames, 16, 12).mean(axis=2)
        return np.log(bands + 1e-4).astype(np.float32)


def recording(path: Path, seconds: float = 8.0, rate: int = 22050) -> Path:
    """Two phrases with a pause between, as a file."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(150 + 30 * np.sin(2 * np.pi * 0.5 * time)) / rate
    wave = 0.1 * sum(np.sin(k * phase) / k for k in range(1, 12))
    wave[int(0.4 * len(wave)) : int(0.55 * len(wave))] = 0
    write_wav(path, wave.astype(np.float32), rate)
    return path


def prepared(tmp_path: Path) -> tuple[ExperimentFolders, preparation.RecordingResult]:
    folders = ExperimentFolders(tmp_path / "exp", 16)
    source = recording(tmp_path / "a.wav")
    result = preparation.prepare_recording(source, 0, folders, SETTINGS, BandEncoder(), Pitch())
    return folders, result


def files_of(folders: ExperimentFolders) -> dict[str, bytes]:
    return {str(p.relative_to(folders.root)): p.read_bytes() for f in folders.all() for p in sorted(f.iterdir())}
