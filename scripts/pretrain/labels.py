"""What is said in a folder of speech, frame by frame? PocketSphinx labels for `encoder.py`.

    python -m scripts.pretrain.labels $VOICE_CORPUS/librispeech_many var/pretrain/labels.npz

Each file is judged in several views, as it is and resampled a little (pitch and formants move together, the words
stay), because one judgement of this judge is right in little more than half of the frames: where the views disagree
the encoder is told so. Writes per file an array `[views, frames]` of class numbers (`libs.voice.phones.PHONES`), 100
frames per second; the first view is the untouched file. Deterministic; spread over the cores; resumable: a file that
is already in the output is not judged again.
"""

from __future__ import annotations

import argparse
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from libs.voice.phones import frame_phones

SOUNDS = {".flac", ".wav", ".ogg"}
SPEEDS = (1.0, 0.9, 0.95, 1.05, 1.1)


def read_16k(path: Path) -> NDArray[np.float32]:
    """The file as mono float32 at 16 kHz."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = wave.mean(axis=1)
    return np.asarray(mono if rate == 16000 else soxr.resample(mono, rate, 16000), dtype=np.float32)


def views_of(wave: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`wave`: float32 `[T]` at 16 kHz → class numbers `[views, T // 160]`, all on the time of the untouched wave."""
    frames = len(wave) // 160
    views = []
    for speed in SPEEDS:
        judged = frame_phones(wave if speed == 1.0 else soxr.resample(wave, 16000 * speed, 16000).astype(np.float32))
        places = np.minimum(np.round(np.arange(frames) / speed).astype(int), len(judged) - 1)
        views.append(judged[places])
    return np.stack(views)


def _label(path: Path) -> NDArray[np.uint8]:
    return views_of(read_16k(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path, help="folder of wav, flac or ogg files, searched with its subfolders")
    parser.add_argument("output", type=Path, help=".npz to write")
    parser.add_argument("--processes", type=int, default=None, help="default: one per core")
    arguments = parser.parse_args()

    labels: dict[str, NDArray[np.uint8]] = {}
    if arguments.output.exists():
        with np.load(arguments.output, allow_pickle=False) as known:
            labels = dict(known)
    files = sorted(path for path in arguments.speech.rglob("*") if path.suffix.lower() in SOUNDS)
    todo = [path for path in files if str(path.relative_to(arguments.speech)) not in labels]
    began = time.monotonic()
    with Pool(arguments.processes) as pool:
        for path, found in zip(todo, pool.imap(_label, todo), strict=True):
            labels[str(path.relative_to(arguments.speech))] = found
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.output, allow_pickle=False, **labels)
    minutes = sum(found.shape[1] for found in labels.values()) / 6000
    agreement = np.mean([(found == found[0]).mean() for found in labels.values()])
    print(f"{len(labels)} files, {minutes:.1f} minutes of speech, labelled in {time.monotonic() - began:.0f} s;")
    print(f"the views agree with the first in {agreement:.2f} of the frames")


if __name__ == "__main__":
    main()
