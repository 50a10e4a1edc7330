"""Is a preparation whole after a kill, a full disk or broken sound, and how much memory does a long recording take?"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from libs.common.errors import RecordingTooLong
from libs.voice import preparation
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch
from tests.unit.voice.preparing import SETTINGS, BandEncoder, files_of, prepared, recording

SLOW_PREPARATION = """
import sys, time, resource, signal
from pathlib import Path
from libs.voice import preparation
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch
from tests.unit.voice.preparing import SETTINGS, BandEncoder

class Slow(Pitch):
    def f0(self, wave16k, method):
        print("piece", flush=True)
        time.sleep(float(sys.argv[3]))
        return super().f0(wave16k, method)

if len(sys.argv) > 4:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
folders = ExperimentFolders(Path(sys.argv[2]), 16)
preparation.prepare_recording(Path(sys.argv[1]), 0, folders, SETTINGS, BandEncoder(), Slow())
"""


def run(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_PREPARATION, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_preparation_leaves_no_half_file_and_is_finished_by_the_next(tmp_path: Path) -> None:
    folders, _ = prepared(tmp_path)
    killed = ExperimentFolders(tmp_path / "killed", 16)
    process = run(tmp_path / "a.wav", killed.root, 0.3)
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    left = files_of(killed)

    result = preparation.prepare_recording(tmp_path / "a.wav", 0, killed, SETTINGS, BandEncoder(), Pitch())

    whole = files_of(folders)
    assert left
    assert all(whole[name] == data for name, data in left.items() if not Path(name).name.startswith("."))
    assert not result.reused
    assert files_of(killed) == whole


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    source = recording(tmp_path / "a.wav")
    folders = ExperimentFolders(tmp_path / "full", 16)

    _, errors = run(source, folders.root, 0, 100_000).communicate(timeout=60)

    assert "StorageFull" in errors
    assert files_of(folders) == {}


@pytest.mark.parametrize("kind", ["array", "wave"])
def test_each_kind_of_file_names_a_full_disk(tmp_path: Path, kind: str) -> None:
    code = (
        "import resource, sys, numpy as np; from pathlib import Path; from libs.voice import experiment\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "values = np.zeros(50_000, np.float32); path = Path(sys.argv[2]) / 'x'\n"
        "experiment.save_array(path, values) if sys.argv[1] == 'array' else experiment.save_wave(path, values, 16000)\n"
    )

    ended = subprocess.run([sys.executable, "-c", code, kind, tmp_path], capture_output=True, text=True, timeout=60)

    assert "libs.common.errors.StorageFull: x could not be written" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_sound_that_breaks_in_its_middle_leaves_no_piece(tmp_path: Path) -> None:
    source = recording(tmp_path / "a.wav", 20.0)
    folders = ExperimentFolders(tmp_path / "exp", 16)
    broken = dataclasses.replace(SETTINGS, limit_seconds=15.0)
    seen = []

    class Watching(BandEncoder):
        def encode(self, wave16k: np.ndarray) -> np.ndarray:
            seen.append(len(wave16k))
            return super().encode(wave16k)

    preparation.GROUP_SAMPLES, whole = 16_000, preparation.GROUP_SAMPLES
    try:
        with pytest.raises(RecordingTooLong):
            preparation.prepare_recording(source, 0, folders, broken, Watching(), Pitch())
    finally:
        preparation.GROUP_SAMPLES = whole

    assert seen
    assert folders.names() == []
    assert not any(files_of(folders))


LONG_PREPARATION = """
import resource, sys
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from libs.voice import preparation
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch
from tests.unit.voice.preparing import BandEncoder

class NoPitch(Pitch):
    def f0(self, wave16k, method):
        return np.full(len(wave16k) // 160 + 1, 100.0, np.float32)

settings = preparation.PreparationSettings(sample_rate=16000)
folders = ExperimentFolders(Path(sys.argv[2]), 16)
result = preparation.prepare_recording(Path(sys.argv[1]), 0, folders, settings, BandEncoder(), NoPitch())
print(len(result.pieces), result.seconds_in, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def prepared_in_a_child(source: Path, folder: Path) -> tuple[int, float, int]:
    """Pieces, seconds, and the child's greatest memory in MiB."""
    command = [sys.executable, "-c", LONG_PREPARATION, str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    pieces, seconds, megabytes = done.stdout.split()
    return int(pieces), float(seconds), int(megabytes)


def long_recording(path: Path, minutes: int) -> Path:
    """Speech-like bursts and pauses at 8 kHz, written minute by minute."""
    draw = np.random.default_rng(0)
    gate = np.repeat([1.0, 1.0, 1.0, 0.0, 1.0, 1.0], 80_000)
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        for _ in range(minutes):
            file.write(0.1 * gate * draw.standard_normal(480_000))
    return path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hours_take_no_more_memory_than_ten_minutes(tmp_path: Path) -> None:
    short = prepared_in_a_child(long_recording(tmp_path / "short.wav", 10), tmp_path / "short")
    long = prepared_in_a_child(long_recording(tmp_path / "long.wav", 120), tmp_path / "long")

    assert (short[1], long[1]) == (600.0, 7200.0)
    assert long[0] == pytest.approx(12 * short[0], rel=0.02)
    # two hours are 460 MB at the model's rate, and 920 MB filtered
    assert long[2] < short[2] + 40
