"""How good is the `lite` voice? Trains on one speaker, converts others who took no part, and measures.

    python -m scripts.quality --target $VOICE_CORPUS/ljspeech --sources $VOICE_CORPUS/librispeech --output var/quality

Sources are a folder per speaker; one that is the target is left out. Writes into the output folder `report.json` (each
row: the mean over the recordings with its 95 % interval, and each recording), `table.md` and `quality.png`.

The first voice (`--seconds` or `--steps` of training on all speech) gets all rows. `--minutes 1 10`, `--speech 30 60`,
`--against-judges 300`, `--compare-random`, `--hubert FILE` and `--voice NAME=FILE` add voices to compare with it. What
is already trained in the output folder is used again, so rows can be added later.

On a machine with other work a minute of training means little: `--steps-per-minute 290` counts each minute as so many
steps (what two quiet cores make of them, docs/models.md), and the figures are the same whatever else the cores do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from libs.audio.encode import write_wav
from libs.audio.resample import resample
from libs.voice.artefact import load_synthesizer
from libs.voice.chain import Converter
from libs.voice.content import ContentEncoder, load_content_encoder
from libs.voice.content_small import SmallContentEncoder
from libs.voice.evaluation import measure, phone_agreement
from libs.voice.likeness import NeuralEmbedding
from libs.voice.lite import LiteSynthesizer
from libs.voice.opinion import opinions_are_available
from libs.voice.phones import frame_phones
from libs.voice.pitch import Pitch
from scripts.quality_rows import Rows, bands, differences, means, picture, table
from scripts.quality_voices import Making, make, read_16k, recordings

Wave = NDArray[np.float32]
HELD_OUT = 3
INDEX_RATES = (0.0, 0.5, 1.0)
FIRST = "converted, index 0"
NO_OPINION = "speechmos, which holds DNSMOS, is not installed: it comes with the extra `quality`"


def mean_log_f0(waves: Iterable[Wave], pitch: Pitch) -> float:
    """Mean of log2 F0 over voiced frames: how high a speaker speaks, in octaves."""
    f0 = np.concatenate([pitch.f0(wave) for wave in waves])
    return float(np.log2(f0[f0 > 0]).mean())


class Remembering(NeuralEmbedding):
    """Hears each wave once: reference and sources come back in every row."""

    def __init__(self) -> None:
        self._known: dict[bytes, Wave] = {}

    def embed(self, wave16k: Wave) -> Wave:
        """See `libs.voice.likeness.NeuralEmbedding`."""
        key = hashlib.sha256(wave16k.tobytes()).digest()
        if key not in self._known:
            self._known[key] = super().embed(wave16k)
        return self._known[key]


def other_speakers(sources: Path, target: Path) -> list[Path]:
    """The folders of `sources`, in their order, but for that of the target."""
    return sorted(each for each in sources.glob("*/") if each.resolve() != target.resolve())


class Judge:
    """Converts and measures; `rows` hold what was found, by kind of sound."""

    def __init__(self, target: Path, sources: Path, utterances: int, output: Path) -> None:
        self.output = output
        self.pitch, self.embedding = Pitch(), Remembering()
        self.with_opinion = opinions_are_available()
        self._phones: dict[tuple[str, str], NDArray[np.uint8]] = {}
        clips = recordings(target)
        self.held_out, self.learned = clips[:HELD_OUT], clips[HELD_OUT:]
        self.reference = np.concatenate([read_16k(clip) for clip in self.learned[:8]])
        self.rows: Rows = {}
        self.converting = self.spoken = 0.0
        height = mean_log_f0([self.reference], self.pitch)
        self.sources: list[tuple[str, str, Wave, float]] = []
        for speaker in other_speakers(sources, target):
            waves = {path.stem: read_16k(path) for path in recordings(speaker)[:utterances]}
            shift = float(round(12 * (height - mean_log_f0(waves.values(), self.pitch))))
            self.sources += [(speaker.name, name, wave, shift) for name, wave in waves.items()]

    def untouched(self) -> None:
        """What the measures say of real speech: the target's own, the sources', and a clip that says something else."""
        for clip in self.held_out:
            own = read_16k(clip)
            self._judge("target, another clip", own, own, "target", clip.stem)
        other = read_16k(self.held_out[0])
        for speaker, name, wave, _ in self.sources:
            self._judge("source, untouched", wave, wave, speaker, name)
            self._judge("unrelated clip of the target", wave, other, speaker, name)

    def copies(self, converter: Converter, kind: str) -> None:
        """Clips of the target that were not learned from, said by its own voice."""
        for clip in self.held_out:
            self._convert(converter, read_16k(clip), kind, "target", clip.stem, 0.0, 0.0)

    def conversions(self, converter: Converter, kind: str, index_rate: float = 0.0) -> None:
        """All sources in the voice of the target."""
        for speaker, name, wave, shift in self.sources:
            self._convert(converter, wave, kind, speaker, name, shift, index_rate)

    def speaker_bands(self) -> dict[str, float]:
        """See `scripts.quality_rows.bands`, over sources and target."""
        embedded = {"target": [self.embedding.embed(read_16k(clip)) for clip in self.held_out]}
        for speaker, _, wave, _ in self.sources:
            embedded.setdefault(speaker, []).append(self.embedding.embed(wave))
        return bands(embedded)

    def _convert(
        self, converter: Converter, source: Wave, kind: str, speaker: str, name: str, shift: float, index_rate: float
    ) -> None:
        began = time.monotonic()
        wave, rate = converter.convert(source, 16_000, pitch_shift=shift, index_rate=index_rate)
        self.converting, self.spoken = self.converting + time.monotonic() - began, self.spoken + len(source) / 16_000
        folder = self.output / "sounds"
        folder.mkdir(parents=True, exist_ok=True)
        write_wav(folder / f"{name}-{kind.replace(' ', '-')}.wav", wave, rate)
        self._judge(kind, source, resample(wave, rate, 16_000), speaker, name, shift)

    def _judge(self, kind: str, source: Wave, result: Wave, speaker: str, name: str, shift: float = 0.0) -> None:
        if (speaker, name) not in self._phones:
            self._phones[speaker, name] = frame_phones(source)
        row = measure(
            source,
            result,
            self.reference,
            self.pitch.f0,
            shift=shift,
            embedding=self.embedding,
            with_phones=False,
            with_opinion=self.with_opinion,
        )
        if not row["is_silent"] and row["is_finite"]:
            row["phone_agreement"] = phone_agreement(source, result, self._phones[speaker, name])
        self.rows.setdefault(kind, []).append({"recording": name, "speaker": speaker, "shift": shift, **row})


def counted(minutes: float, arguments: argparse.Namespace) -> int | None:
    """The steps that stand for so many minutes, None where the clock decides."""
    return round(minutes * arguments.steps_per_minute) if arguments.steps_per_minute else None


def further(arguments: argparse.Namespace) -> list[Making]:
    """The trainings beside the first one that were asked for."""
    usual = {"seconds": arguments.seconds, "steps": arguments.steps or counted(arguments.seconds / 60, arguments)}
    brief = usual
    if arguments.speech_minutes:
        brief = {"seconds": 60 * arguments.speech_minutes, "steps": counted(arguments.speech_minutes, arguments)}
    found = [Making(f"{speech:g} s of speech", speech=speech, **brief) for speech in arguments.speech]
    found += [
        Making(f"{minutes:g} min of training", 60 * minutes, counted(minutes, arguments))
        for minutes in arguments.minutes
    ]
    found += [Making(f"{steps} steps of training", arguments.seconds, steps) for steps in arguments.at_steps]
    for count in arguments.against_judges:
        steps = usual["steps"] + count if usual["steps"] else None
        found.append(Making(f"{count} steps against judges", arguments.seconds, steps, adversarial_steps=count))
    if arguments.compare_random:
        found.append(Making("from random weights", pretrained="none", **usual))
    return found


def given_voice(path: Path, judge: Judge, encoder: ContentEncoder, hubert: Path | None) -> Converter:
    """A trained voice of any kind: `lite` ones with the built-in content, RVC's with HuBERT's (`--hubert`)."""
    voice = load_synthesizer(path)
    if isinstance(voice, LiteSynthesizer):
        return Converter(voice, encoder, judge.pitch)
    if hubert is None:
        raise SystemExit(f"{path.name} is an RVC voice: give --hubert, the encoder that it understands")
    heard = load_content_encoder(hubert, version="v1" if voice.content_width == 256 else "v2")
    return Converter(voice, heard, judge.pitch)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True, help="folder of recordings of one speaker")
    parser.add_argument("--sources", type=Path, required=True, help="folder with a folder per speaker")
    parser.add_argument("--output", type=Path, default=Path("var/quality"))
    parser.add_argument("--seconds", type=float, default=300.0, help="of training")
    parser.add_argument("--steps", type=int, default=None, help="of training, instead of seconds")
    parser.add_argument("--steps-per-minute", type=float, default=None, help="count minutes of training in steps")
    parser.add_argument("--utterances", type=int, default=3, help="per source speaker")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--pretrained", choices=("auto", "none"), default="auto", help="of the first voice")
    parser.add_argument("--minutes", type=float, nargs="*", default=[], help="further voices: minutes of training")
    parser.add_argument("--at-steps", type=int, nargs="*", default=[], help="further voices: steps of training")
    parser.add_argument("--speech", type=float, nargs="*", default=[], help="further voices: seconds of target speech")
    parser.add_argument("--speech-minutes", type=float, default=None, help="of training for those, not the first's")
    parser.add_argument(
        "--against-judges", type=int, nargs="*", default=[], help="further voices: so many steps more, against judges"
    )
    parser.add_argument("--compare-random", action="store_true", help="a further voice from random weights")
    parser.add_argument("--voice", action="append", default=[], metavar="NAME=FILE", help="a further, trained voice")
    parser.add_argument("--content", type=Path, default=None, help="weights of scripts/pretrain instead of the shipped")
    parser.add_argument(
        "--hubert", type=Path, default=None, help="hubert_base.pt, for a further voice with its content"
    )
    arguments = parser.parse_args(given)
    if (found := len(recordings(arguments.target))) <= HELD_OUT:
        parser.error(f"--target: {arguments.target} holds {found} recordings; {HELD_OUT} are held out, so give more")
    if not any(recordings(each) for each in other_speakers(arguments.sources, arguments.target)):
        parser.error(f"--sources: {arguments.sources} holds no folder of another speaker's recordings")

    encoder = SmallContentEncoder(arguments.content)
    judge = Judge(arguments.target, arguments.sources, arguments.utterances, arguments.output)
    times: dict[str, Any] = {}

    def trained(making: Making, folder: str, content: ContentEncoder = encoder) -> Converter:
        work = arguments.output / folder
        converter, about = make(making, judge.learned, work, content, judge.pitch, arguments.threads, arguments.seed)
        times[making.name] = about
        return converter

    judge.untouched()
    steps = arguments.steps or counted(arguments.seconds / 60, arguments)
    first = Making("first", arguments.seconds, steps, pretrained=arguments.pretrained)
    converter = trained(first, "first")
    judge.copies(converter, "copy-synthesis")
    for index_rate in INDEX_RATES:
        judge.conversions(converter, f"converted, index {index_rate:g}", index_rate)
    factor = judge.converting / judge.spoken
    others: list[str] = []

    def tell() -> None:
        """What is known so far: a run of hours that is ended early has not been for nothing."""
        summary = {kind: means(found) for kind, found in judge.rows.items()}
        report = {
            "target": arguments.target.name,
            "steps_per_minute": arguments.steps_per_minute,
            "not_measured": {} if judge.with_opinion else {"dnsmos": NO_OPINION},
            "times": times["first"] | {"conversion_real_time_factor": round(factor, 4)},
            "voices": times,
            "bands": judge.speaker_bands(),
            "rows": summary,
            "first_less_others": {name: differences(judge.rows, f"{name}: converted", FIRST) for name in others},
            "recordings": judge.rows,
        }
        (arguments.output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        told = table(summary, report["not_measured"])
        (arguments.output / "table.md").write_text(told + "\n", encoding="utf-8")
        picture(summary, arguments.output / "quality.png")
        print(told)
        print(json.dumps({"times": report["times"], "bands": report["bands"]}))

    def compare(name: str, other: Converter) -> None:
        judge.copies(other, f"{name}: copy-synthesis")
        judge.conversions(other, f"{name}: converted")
        others.append(name)
        tell()

    tell()
    for making in further(arguments):
        compare(making.name, trained(making, making.name.replace(" ", "-")))
    if arguments.hubert:
        making = Making("HuBERT's content", arguments.seconds, steps)
        compare(making.name, trained(making, "hubert", load_content_encoder(arguments.hubert)))
    for text in arguments.voice:
        name, _, path = text.partition("=")
        compare(name, given_voice(Path(path), judge, encoder, arguments.hubert))


if __name__ == "__main__":
    main()
