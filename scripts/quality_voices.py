"""How is a voice made that `scripts/quality.py` compares? Prepared, trained and indexed like any other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from libs.audio.decode import decode
from libs.audio.resample import resample
from libs.voice.artefact import load_synthesizer
from libs.voice.chain import Converter
from libs.voice.content import ContentEncoder, card_of
from libs.voice.experiment import ExperimentFolders, load_array, write_filelist
from libs.voice.pitch import Pitch
from libs.voice.preparation import PreparationSettings, ensure_mute, prepare_recording
from libs.voice.retrieval import RetrievalIndex, build_index, index_of
from libs.voice.training import TrainingInputs, train
from libs.voice.training_config import PRESETS, TrainingConfig

Wave = NDArray[np.float32]
SOUNDS = {".flac", ".wav", ".ogg", ".mp3"}


@dataclass(frozen=True)
class Making:
    """One training. `speech`: seconds of the target that are learned from, None for all; `steps` go before `seconds`;
    `pretrained`: auto or none, and `adversarial_steps` as in TrainingConfig."""

    name: str
    seconds: float
    steps: int | None = None
    speech: float | None = None
    pretrained: str = "auto"
    adversarial_steps: int = 0


def recordings(folder: Path) -> list[Path]:
    """All sounds under `folder`, in order of name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS)


def read_16k(path: Path) -> Wave:
    """Mono at 16 kHz."""
    sound = decode(path)
    return resample(sound.wave, sound.sample_rate, 16_000)


def as_much(clips: Sequence[Path], seconds: float | None) -> list[Path]:
    """The first clips that together last `seconds`, or all."""
    chosen: list[Path] = []
    length = 0.0
    for clip in clips:
        if seconds is not None and length >= seconds:
            break
        sound = decode(clip)
        length += len(sound.wave) / sound.sample_rate
        chosen.append(clip)
    return chosen


def prepare(clips: Sequence[Path], work: Path, encoder: ContentEncoder, pitch: Pitch) -> ExperimentFolders:
    """The experiment of `clips`, under `work`; what is prepared already is used again."""
    rate = PRESETS["lite"].sample_rate
    folders = ExperimentFolders(work / "experiment", encoder.width)
    for number, clip in enumerate(clips):
        prepare_recording(clip, number, folders, PreparationSettings(sample_rate=rate), encoder, pitch)
    write_filelist(folders, mute=ensure_mute(work / "mute", rate, encoder))
    return folders


def indexed(folders: ExperimentFolders) -> RetrievalIndex:
    """The retrieval index of an experiment."""
    features = [load_array(folders.features / f"{name}.npy") for name in folders.names()]
    return index_of(build_index(np.asarray(feature, dtype=np.float32) for feature in features))


def make(
    making: Making, clips: Sequence[Path], work: Path, encoder: ContentEncoder, pitch: Pitch, threads: int, seed: int
) -> tuple[Converter, dict[str, Any]]:
    """Prepare, train, index: the converter of the voice, and how it came to be (times in seconds).

    `train_processor` is what this process used of all cores while it trained, which other work changes less than the
    clock's time. A voice that is already trained under `work` is used again.
    """
    began = time.monotonic()
    folders = prepare(as_much(clips, making.speech), work, encoder, pitch)
    prepared = time.monotonic()
    config = TrainingConfig(
        preset="lite",
        train_seconds=None if making.steps else making.seconds,
        total_steps=making.steps,
        validation_split=0.1,
        early_stopping_patience=0,
        threads=threads,
        seed=seed,
        pretrained=making.pretrained,
        adversarial_steps=making.adversarial_steps,
    )
    busy = time.process_time()
    result = train(
        TrainingInputs(experiment=folders.root, run=work / "run", encoder=encoder.checksum),
        config,
        lambda progress: print(f"\r{progress.phase} {progress.step}/{progress.total_steps} {progress.loss}", end=""),
    )
    print()
    trained, busy = time.monotonic(), time.process_time() - busy
    index = indexed(folders)
    about = {
        "prepare": round(prepared - began, 1),
        "train": round(result.seconds, 1),
        "train_processor": round(busy, 1),
        "index": round(time.monotonic() - trained, 1),
        "steps": result.steps,
        "voice_step": result.voice_step,
        "adversarial_steps": result.adversarial_steps,
        "losses": result.losses,
        "held_out_loss": result.best_loss,
        "bases": result.bases,
        "content_encoder": card_of(encoder),
    }
    return Converter(load_synthesizer(result.voice), encoder, pitch, index), about
