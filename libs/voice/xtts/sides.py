"""What does a run learn from, and by what is it judged? The checked clips, once more through the library's tokenizer.

Whatever its dataset would drop in silence is refused here with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.common.errors import DatasetTooShort
from libs.voice.memory import first_line
from libs.voice.xtts.batches import Clips
from libs.voice.xtts.speech import FEWEST_CLIPS, MOST_TOKENS, PARTS, Clip, split

Tokenize = Callable[[str], list[int]]
STOP, UNKNOWN = 0, 1
MOST_NAMED = 50
LONGEST_REFERENCE = 12.0


@dataclass(frozen=True)
class Sides:
    """Both sides of the split; `names` are their checksums, `refused` what was left out, `reference` says the voice."""

    learnt: Clips
    judged: Clips
    names: dict[str, list[str]]
    refused: list[dict[str, str]]
    reference: list[Clip]


def make_sides(clips: Sequence[tuple[Clip, str]], wavs: Path, tokenize: Tokenize, share: float, seed: int) -> Sides:
    """The clips that can be learnt from, split. `wavs`: the folder of `<checksum>.wav`; `share` is held out.

    Raises DatasetTooShort with the reasons when fewer than two clips are left.
    """
    tokens: dict[str, list[int]] = {}
    refused: list[dict[str, str]] = []
    for clip, text in clips:
        numbers, reason = _tokens(wav_of(wavs, clip), text, tokenize)
        if reason:
            refused.append({"sample_id": clip.sample_id, "name": clip.name, "code": "tokens", "reason": reason})
        else:
            tokens[clip.sha256] = numbers
    usable = [clip for clip, _ in clips if clip.sha256 in tokens]
    if len(usable) < FEWEST_CLIPS:
        named = "; ".join(f"{each['name']}: {each['reason']}" for each in refused[:3])
        raise DatasetTooShort(
            f"{len(usable)} clips are left to learn from, and {FEWEST_CLIPS} are needed at least. {named}",
            actions=("Mend the clips that are named, or upload others.",),
            refused=refused[:MOST_NAMED],
        )
    both = split(usable, share, seed)
    learnt, judged = (Clips([(wav_of(wavs, clip), tokens[clip.sha256]) for clip in side], seed) for side in both)
    names = {"learnt": [clip.sha256 for clip in both[0]], "held_out": [clip.sha256 for clip in both[1]]}
    return Sides(learnt, judged, names, refused, _reference(both[0]))


def wav_of(wavs: Path, clip: Clip) -> Path:
    """Where the sound of a clip lies: beside the check that cut it out, or in the dataset's folder `wavs`."""
    return clip.wav or wavs / f"{clip.sha256}.wav"


def _tokens(wav: Path, text: str, tokenize: Tokenize) -> tuple[list[int], str]:
    """The tokens of a text, or why the clip cannot be used."""
    if not wav.is_file():
        return [], "its sound is gone"
    try:
        numbers = tokenize(text)
    except Exception as error:  # the library has no errors of its own: a missing package, a letter, a number
        return [], f"its text cannot be written in tokens: {first_line(error)}"
    if STOP in numbers or UNKNOWN in numbers:
        return [], "its text has characters that the network has no token for"
    if len(numbers) > MOST_TOKENS:
        return [], f"its text has {len(numbers)} tokens; {MOST_TOKENS} are possible"
    return numbers, ""


def _reference(clips: Sequence[Clip]) -> list[Clip]:
    """The clips that say how the speaker sounds: the longest ones, up to 12 s together, and one in any case."""
    chosen: list[Clip] = []
    for clip in sorted(clips, key=lambda each: (-(each.seconds or 0.0), each.sha256)):
        if not chosen or sum(each.seconds or 0.0 for each in chosen) + (clip.seconds or 0.0) <= LONGEST_REFERENCE:
            chosen.append(clip)
    return chosen


def read_checked(path: Path) -> list[tuple[Clip, str]]:
    """The clips of a dataset's check, each with its text; parts of long recordings lie beside it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [
        (
            Clip(
                each["sample_id"],
                each["sha256"],
                each["name"],
                each["text"],
                float(each["seconds"]),
                path.parent / PARTS / f"{each['sha256']}.wav" if each.get("part") else None,
            ),
            str(each["text"]),
        )
        for each in content["clips"]
    ]
