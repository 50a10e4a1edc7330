"""How good is the `lite` voice? Trains on one speaker, converts others who took no part, and measures.

    python scripts/quality.py --target $VOICE_CORPUS/ljspeech --sources $VOICE_CORPUS/librispeech --output var/quality

Writes `report.json` there: one row per kind of sound (the mean over the recordings, and each recording), times, and
what was used. Sources are a folder per speaker. A voice that is already trained in the output folder is used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from libs.audio.decode import decode
from libs.audio.encode import write_wav
from libs.audio.resample import resample
from libs.voice.artefact import load_synthesizer
from libs.voice.chain import Converter
from libs.voice.content import card_of, load_content_encoder
from libs.voice.content_small import SmallContentEncoder
from libs.voice.evaluation import measure
from libs.voice.experiment import ExperimentFolders, load_array, write_filelist
from libs.voice.likeness import NeuralEmbedding
from libs.voice.pitch import Pitch
from libs.voice.preparation import PreparationSettings, ensure_mute, prepare_recording
from libs.voice.retrieval import build_index, index_of
from libs.voice.training import TrainingInputs, train
from libs.voice.training_config import PRESETS, TrainingConfig

Wave = NDArray[np.float32]
SOUNDS = {".flac", ".wav", ".ogg", ".mp3"}
HELD_OUT = 3
INDEX_RATES = (0.0, 0.5, 1.0)


def recordings(folder: Path) -> list[Path]:
    """All sounds under `folder`, in order of name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS)


def read_16k(path: Path) -> Wave:
    """Mono at 16 kHz."""
    sound = decode(path)
    return resample(sound.wave, sound.sample_rate, 16_000)


def mean_log_f0(waves: Iterable[Wave], pitch: Pitch) -> float:
    """Mean of log2 F0 over voiced frames: how high a speaker speaks, in octaves."""
    f0 = np.concatenate([pitch.f0(wave) for wave in waves])
    return float(np.log2(f0[f0 > 0]).mean())


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the rows of every number that is there."""
    found: dict[str, Any] = {"recordings": len(rows)}
    for name in rows[0]:
        values = [row[name] for row in rows if isinstance(row[name], float)]
        if values:
            found[name] = round(statistics.fmean(values), 4)
    return found


def make_voice(clips: list[Path], work: Path, pitch: Pitch, arguments: argparse.Namespace) -> tuple[Converter, Any]:
    """Prepare, train, index: the converter of the voice, and times in seconds."""
    encoder = SmallContentEncoder(arguments.content) if arguments.content else load_content_encoder(arguments.hubert)
    rate = PRESETS["lite"].sample_rate
    folders = ExperimentFolders(work / "experiment", encoder.width)
    began = time.monotonic()
    for number, clip in enumerate(clips):
        prepare_recording(clip, number, folders, PreparationSettings(sample_rate=rate), encoder, pitch)
    write_filelist(folders, mute=ensure_mute(work / "mute", rate, encoder))
    prepared = time.monotonic()
    config = TrainingConfig(
        preset="lite",
        train_seconds=None if arguments.steps else arguments.seconds,
        total_steps=arguments.steps,
        validation_split=0.1,
        threads=arguments.threads,
        seed=arguments.seed,
    )
    result = train(
        TrainingInputs(experiment=folders.root, run=work / "run"),
        config,
        lambda progress: print(f"\r{progress.phase} {progress.step}/{progress.total_steps} {progress.loss}", end=""),
    )
    print()
    trained = time.monotonic()
    features = [load_array(folders.features / f"{name}.npy") for name in folders.names()]
    index = index_of(build_index(np.asarray(feature, dtype=np.float32) for feature in features))
    times = {
        "prepare": prepared - began,
        "train": trained - prepared,
        "index": time.monotonic() - trained,
        "steps": result.steps,
        "losses": result.losses,
        "content_encoder": card_of(encoder),
    }
    return Converter(load_synthesizer(result.voice), encoder, pitch, index), times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True, help="folder of recordings of one speaker")
    parser.add_argument("--sources", type=Path, required=True, help="folder with a folder per speaker")
    parser.add_argument("--output", type=Path, default=Path("var/quality"))
    parser.add_argument("--seconds", type=float, default=300.0, help="of training")
    parser.add_argument("--steps", type=int, default=None, help="of training, instead of seconds")
    parser.add_argument("--utterances", type=int, default=3, help="per source speaker")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--content", type=Path, default=None, help="weights of scripts/pretrain instead of the shipped")
    parser.add_argument("--hubert", type=Path, default=None, help="hubert_base.pt, for the same with its features")
    arguments = parser.parse_args()

    pitch, embedding = Pitch(), NeuralEmbedding()
    clips = recordings(arguments.target)
    held_out, learned = clips[:HELD_OUT], clips[HELD_OUT:]
    converter, times = make_voice(learned, arguments.output, pitch, arguments)
    reference = np.concatenate([read_16k(clip) for clip in learned[:8]])
    target_height = mean_log_f0([reference], pitch)
    rows: dict[str, list[dict[str, Any]]] = {}
    converting = spoken = 0.0

    def judge(kind: str, source: Wave, result: Wave, name: str, shift: float = 0.0) -> None:
        row = measure(source, result, reference, pitch.f0, shift=shift, embedding=embedding)
        rows.setdefault(kind, []).append({"recording": name, "shift": shift, **row})

    def convert(source: Wave, kind: str, name: str, shift: float, index_rate: float) -> None:
        nonlocal converting, spoken
        began = time.monotonic()
        wave, rate = converter.convert(source, 16_000, pitch_shift=shift, index_rate=index_rate)
        converting, spoken = converting + time.monotonic() - began, spoken + len(source) / 16_000
        folder = arguments.output / "sounds"
        folder.mkdir(exist_ok=True)
        write_wav(folder / f"{name}-{kind.replace(' ', '-')}.wav", wave, rate)
        judge(kind, source, resample(wave, rate, 16_000), name, shift)

    for clip in held_out:
        own = read_16k(clip)
        judge("target, another clip", own, own, clip.stem)
        convert(own, "copy-synthesis", clip.stem, 0.0, 0.0)
    for speaker in sorted(folder for folder in arguments.sources.iterdir() if folder.is_dir()):
        waves = {path.stem: read_16k(path) for path in recordings(speaker)[: arguments.utterances]}
        shift = float(round(12 * (target_height - mean_log_f0(waves.values(), pitch))))
        for name, wave in waves.items():
            judge("source, untouched", wave, wave, name)
            judge("unrelated clip of the target", wave, read_16k(held_out[0]), name)
            for index_rate in INDEX_RATES:
                convert(wave, f"converted, index {index_rate:g}", name, shift, index_rate)

    report = {
        "times": times | {"conversion_real_time_factor": converting / spoken},
        "rows": {kind: means(found) for kind, found in rows.items()},
        "recordings": rows,
    }
    (arguments.output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shown = ("similarity_target", "similarity_source", "f0_correlation", "f0_rmse_cents", "phone_agreement")
    print(f"{'':30}", *(f"{name:>18}" for name in shown))
    for kind, found in report["rows"].items():
        print(f"{kind:30}", *(f"{found.get(name, float('nan')):18.3f}" for name in shown))
    print(json.dumps(report["times"]))


if __name__ == "__main__":
    main()
