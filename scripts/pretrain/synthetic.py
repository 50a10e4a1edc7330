"""Speech whose sounds are exactly known, in many languages and voices, made by espeak-ng for `finer.py`.

    python -m scripts.pretrain.synthetic var/pretrain/synthetic.npz --minutes 40

The words are made up, of syllables as each language spells them, so that every sound comes often and no text of
anybody is needed; the language's own rules pronounce them. Writes per utterance its log-mel (half precision) and its
articulation: the same arguments give the same.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from libs.voice.content_network import MEL_HOP, SAMPLE_RATE, WINDOW, log_mel, mel_filters
from scripts.pretrain.articulation import FEATURES, SILENT, parts_of
from scripts.pretrain.espeak import Said, say

Float32 = NDArray[np.float32]
PAUSE = 0.12
"""Seconds from which a phone without a name is a pause; a shorter one is a transition, of which nothing is known."""

LANGUAGES: dict[str, tuple[str, str]] = {
    "en-us": ("th sh ch j w wh r y", "a e i o u ee oo ou ay oy er ar"),
    "en": ("th sh ch j w h r y", "a e i o u ea oa ow igh air ir"),
    "de": ("sch ch z pf w j r st", "a e i o u ä ö ü ei eu au ie"),
    "fr": ("ch j gn r v z", "a é è i o u ou eu on an in oi"),
    "es": ("ñ ll rr j ch g z", "a e i o u ie ue ai"),  # codespell:ignore ue
    "it": ("gn gli sci ci gi z r", "a e i o u ia uo ai"),
    "pt-br": ("nh lh ch j rr x", "a e i o u ão em ei ou õe"),
    "pl": ("sz cz rz ś ć ż ł dz ch", "a e i o u y ą ę ó"),
    "nl": ("sch g z w r j", "a e i o u ui eu ij oe aa ee"),
    "sv": ("sj tj sk j r v", "a e i o u y å ä ö"),
    "fi": ("j h r v kk tt", "a e i o u y ä ö aa ii uu yy"),
    "tr": ("ş ç c y r z ğ", "a e i o u ı ö ü"),
    "cs": ("ř š č ž ch ň ď", "a e i o u á í ů ou"),
    "ro": ("ș ț j ci ge h r", "a e i o u ă â ea oa"),
    "hu": ("sz zs cs gy ny ty s", "a e i o u á é ö ü ő ű"),
}
"""Voice of espeak-ng → spellings of its own: onsets beside the common ones, and vowels."""

COMMON_ONSETS = "p t k b d g m n l s f v r"
CODAS = ("", "", "", "", "n", "s", "l", "r", "t", "m", "k")
UNSEEN_LANGUAGES = ("cs", "sv")
VARIANTS = (
    "", "m1", "m3", "m5", "m7", "f1", "f2", "f4", "klatt", "klatt2", "klatt3", "Andrea", "Annie", "Antonio", "Denis",
    "Diogo", "Gene", "Hugo", "Jacky", "Lee", "Marco", "Michael", "Mike", "Pablo", "Quincy", "Steph", "Zac", "Linda",
    "benjamin", "john",
)  # fmt: skip
UNSEEN_VARIANTS = ("m2", "f3", "f5", "klatt4", "Alicia", "Henrique")


@dataclass(frozen=True)
class Spoken:
    """`mel` `[bands, M]` at 10 ms; `articulation` `[N, FEATURES]` at 20 ms, NaN where nothing is known."""

    voice: str
    mel: Float32
    articulation: Float32


def made_up_words(language: str, chance: random.Random, count: int) -> str:
    """`count` words of one to three syllables as `language` spells them, with commas here and there."""
    own, vowels = LANGUAGES[language]
    onsets = (COMMON_ONSETS + " " + own + " " + own).split()
    words = []
    for _ in range(count):
        syllables = chance.choice((1, 2, 2, 3))
        word = "".join(
            chance.choice(onsets) + chance.choice(vowels.split()) + chance.choice(CODAS) for _ in range(syllables)
        )
        words.append(word + ("," if chance.random() < 0.15 else ""))
    return " ".join(words).rstrip(",") + "."


def articulation_of(said: Said, frames: int) -> Float32:
    """What the mouth does in each content frame `[frames, FEATURES]`; frame i is centred on 20 i + 12.5 ms."""
    times = (np.arange(frames) * 2 * MEL_HOP + WINDOW / 2) / SAMPLE_RATE
    known = np.full((frames, len(FEATURES)), np.nan, np.float32)
    named = [(first / said.sample_rate, ipa) for first, ipa in said.phones if not ipa.startswith(("(", "\1"))]
    ends = [start for start, _ in named[1:]] + [len(said.wave) / said.sample_rate]
    for (start, ipa), end in zip(named, ends, strict=True):
        parts = parts_of(ipa) if ipa else ([SILENT] if end - start >= PAUSE else [])
        for number, part in enumerate(parts):
            first = start + (end - start) * number / len(parts)
            last = start + (end - start) * (number + 1) / len(parts)
            known[(times >= first) & (times < last)] = part
    return known


def speak(language: str, variant: str, chance: random.Random) -> Spoken:
    """One utterance of a few seconds, at a chance speed, pitch and melody."""
    voice = f"{language}+{variant}" if variant else language
    said = say(
        made_up_words(language, chance, 9),
        voice,
        words_per_minute=chance.randrange(130, 230),
        pitch=chance.randrange(20, 90),
        melody=chance.randrange(20, 90),
    )
    wave = soxr.resample(said.wave, said.sample_rate, SAMPLE_RATE).astype(np.float32)
    mel = log_mel(torch.from_numpy(wave), mel_filters(80)).numpy()
    return Spoken(voice, mel, articulation_of(said, (mel.shape[1] - 1) // 2 + 1))


def make(minutes: float, seed: int, languages: tuple[str, ...], variants: tuple[str, ...]) -> list[Spoken]:
    """Utterances of at least `minutes` in all, languages and voices in turn."""
    chance = random.Random(seed)
    made: list[Spoken] = []
    frames = 0
    while frames < 6000 * minutes:
        number = len(made)
        made.append(speak(languages[number % len(languages)], chance.choice(variants), chance))
        frames += made[-1].mel.shape[1]
    return made


def write(path: Path, spoken: list[Spoken]) -> None:
    """One archive; an utterance's number and voice are its names."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for number, utterance in enumerate(spoken):
        arrays[f"{number:05} {utterance.voice} mel"] = utterance.mel.astype(np.float16)
        arrays[f"{number:05} {utterance.voice} articulation"] = utterance.articulation.astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part.npz")
    np.savez_compressed(draft, allow_pickle=False, **arrays)
    draft.replace(path)


def read(path: Path) -> list[Spoken]:
    """What `write` wrote."""
    with np.load(path, allow_pickle=False) as found:
        names = sorted(name.removesuffix(" mel") for name in found.files if name.endswith(" mel"))
        return [
            Spoken(
                name.split(" ")[1],
                found[f"{name} mel"].astype(np.float32),
                found[f"{name} articulation"].astype(np.float32),
            )
            for name in names
        ]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help=".npz to write; beside it …-unseen.npz, to measure with")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=20260102)
    arguments = parser.parse_args(given)

    learned = tuple(language for language in LANGUAGES if language not in UNSEEN_LANGUAGES)
    write(arguments.output, make(arguments.minutes, arguments.seed, learned, VARIANTS))
    unseen = arguments.output.with_name(arguments.output.stem + "-unseen.npz")
    tried = ("en-us", "de", "fr", "es", "it", *UNSEEN_LANGUAGES)
    write(unseen, make(max(arguments.minutes / 10, 0.5), arguments.seed + 1, tried, UNSEEN_VARIANTS))
    for path in (arguments.output, unseen):
        spoken = read(path)
        known = np.concatenate([~np.isnan(utterance.articulation[:, 0]) for utterance in spoken]).mean()
        minutes = sum(utterance.mel.shape[1] for utterance in spoken) / 6000
        print(f"{path.name}: {len(spoken)} utterances, {minutes:.1f} minutes, {known:.2f} of the frames known")


if __name__ == "__main__":
    main()
