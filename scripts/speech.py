"""Which speech does the demo use? Your folder, the recordings of $VOICE_CORPUS, or speech that espeak-ng makes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts import processes

SOUND = frozenset({".wav", ".mp3", ".m4a", ".mp4", ".ogg", ".opus", ".webm", ".flac"})
SENTENCES = 64  # of about 3.5 seconds: more than three minutes
TARGET_VOICE, SOURCE_VOICE = "en-us+f3", "en-gb+m3"

_WHO = (
    "the old sailor", "my younger sister", "every third visitor", "a tired postman", "our new neighbour",
    "the shy biologist", "that noisy orchestra", "a curious child", "the mayor of the town",
    "nobody in the village",
)  # fmt: skip
_DOES = (
    "watched", "measured", "would gladly exchange", "remembered", "painted", "quietly followed", "forgot about",
    "never believed", "pushed aside", "described",
)  # fmt: skip
_WHAT = (
    "the yellow bicycle", "a jar of cherries", "those enormous clouds", "the broken church bell", "six heavy boxes",
    "an unusual theory", "the voice on the radio", "a bridge of stone", "their favourite jacket",
    "the northern lights",
)  # fmt: skip
_WHEN = (
    "before the thunder began", "while the coffee was boiling", "on a windy Thursday", "without asking why",
    "just after sunrise", "as if nothing had happened", "under the chestnut trees", "during the long journey home",
    "for the very first time", "and then laughed about it",
)  # fmt: skip


@dataclass(frozen=True)
class Speech:
    """Recordings of one voice to learn, one clip of it that stays unheard, and a recording to convert."""

    described: str
    recordings: tuple[Path, ...]
    control: Path
    source: Path
    name: str

    @property
    def fingerprint(self) -> str:
        """Eight characters that stand for the content of the recordings."""
        digest = hashlib.sha256()
        for path in self.recordings:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:8]


def sounds_of(folder: Path) -> list[Path]:
    """The sound files in `folder` and below, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in SOUND)


def sentences(seed: int, count: int) -> list[str]:
    """Different plain sentences, the same for the same `seed`."""
    chance = random.Random(seed)
    made = set[str]()
    while len(made) < count:
        made.add(" ".join(chance.choice(words) for words in (_WHO, _DOES, _WHAT, _WHEN)).capitalize() + ".")
    return sorted(made, key=lambda text: hashlib.sha256(text.encode()).digest())


def speak(text: str, voice: str, target: Path, *, speed: int = 155, pitch: int = 50) -> None:
    """`text` as a WAV file, said by espeak-ng; `speed` in words per minute, `pitch` 0-99."""
    program = processes.find_program("espeak-ng")
    if program is None:
        raise FileNotFoundError("espeak-ng is not installed: run scripts/install, or give recordings with VOICE=folder")
    draft = target.with_suffix(".part")
    subprocess.run([program, "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(draft), "--", text], check=True)
    draft.replace(target)


def synthetic(folder: Path) -> tuple[list[Path], Path]:
    """Recordings of one espeak-ng voice with varied melody, and one of another voice; made once."""
    folder.mkdir(parents=True, exist_ok=True)
    recordings = []
    for number, text in enumerate(sentences(1, SENTENCES)):
        path = folder / f"target-{number:03}.wav"
        if not path.exists():
            speak(text, TARGET_VOICE, path, speed=140 + 5 * (number % 7), pitch=42 + 3 * (number % 6))
        recordings.append(path)
    source = folder / "source.wav"
    if not source.exists():
        speak(" ".join(sentences(2, 3)), SOURCE_VOICE, source)
    return recordings, source


def choose(root: Path, voice: Path | None = None, environment: Mapping[str, str] = os.environ) -> Speech:
    """The speech for a demo in `root`: from the folder `voice`, otherwise from `VOICE_CORPUS` in `environment`.

    The recording to convert comes from the corpus whenever there is one. Raises ValueError when a folder holds too
    little.
    """
    corpus = Path(environment["VOICE_CORPUS"]) if environment.get("VOICE_CORPUS") else None
    if corpus is not None and not (corpus / "ljspeech").is_dir():
        raise ValueError(f"VOICE_CORPUS is {corpus}, and there is no folder ljspeech in it")
    if voice is not None:
        recordings = sounds_of(voice)
        described, name = f"your recordings in {voice}", voice.resolve().name
        if len(recordings) < 2:
            raise ValueError(f"{voice} holds {len(recordings)} sound files; 2 are needed: one is kept apart to compare")
    elif corpus is not None:
        recordings = sounds_of(corpus / "ljspeech")
        described, name = "LJ Speech from $VOICE_CORPUS", "LJ Speech"
    else:
        recordings, source = synthetic(root / "speech")
        described, name = f"speech made by espeak-ng (voice {TARGET_VOICE})", "espeak-ng"
    # A rather short one is kept apart: long enough to know the voice, and little is lost for learning.
    control = sorted(recordings, key=lambda path: path.stat().st_size)[len(recordings) // 3]
    learned = tuple(path for path in recordings if path != control)
    if corpus is not None:
        source = _from_corpus(corpus)
        described += f", said by a LibriSpeech speaker ({source.stem})"
    else:
        source = synthetic(root / "speech")[1]
        described += f", said by espeak-ng's {SOURCE_VOICE}"
    return Speech(described, learned, control, source, name)


def _from_corpus(corpus: Path) -> Path:
    """A LibriSpeech utterance that is neither short nor long: the one whose size is the median of its speaker's."""
    speaker = sorted(folder for folder in (corpus / "librispeech").iterdir() if folder.is_dir())[0]
    found = sorted(sounds_of(speaker), key=lambda path: path.stat().st_size)
    return found[len(found) // 2]
