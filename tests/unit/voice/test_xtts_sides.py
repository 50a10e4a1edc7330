"""What is left to learn from when the library's own tokenizer has looked at the texts too?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libs.audio.encode import write_wav
from libs.common.errors import DatasetTooShort
from libs.voice.xtts.sides import make_sides
from libs.voice.xtts.speech import MOST_TOKENS, SAMPLE_RATE, Clip


def clips_in(folder: Path, number: int) -> list[tuple[Clip, str]]:
    made = []
    for n in range(number):
        clip = Clip(f"smp_{n}", f"{n:064x}", f"{n}.wav", f"text {n}", 1.0)
        write_wav(folder / f"{clip.sha256}.wav", np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
        made.append((clip, clip.transcript))
    return made


def tokenize(text: str) -> list[int]:
    """As the library does: numbers, 1 for what it has no token for, or an error of whatever kind."""
    number = int(text.split()[1])
    if number == 3:
        raise IndexError("list index out of range\nwith more lines")
    return {4: [5, 1, 6], 5: [5] * (MOST_TOKENS + 1), 6: [5, 0]}.get(number, [5, 6, 7])


def test_what_the_tokenizer_cannot_write_is_left_out_with_the_reason(tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 9)
    (tmp_path / f"{7:064x}.wav").unlink()

    sides = make_sides(clips, tmp_path, tokenize, 0.2, seed=1)

    reasons = {each["name"]: each["reason"] for each in sides.refused}
    assert reasons.keys() == {"3.wav", "4.wav", "5.wav", "6.wav", "7.wav"}
    assert "list index out of range" in reasons["3.wav"]
    assert "no token" in reasons["4.wav"]
    assert f"{MOST_TOKENS} are possible" in reasons["5.wav"]
    assert reasons["7.wav"] == "its sound is gone"
    assert len(sides.names["learnt"] + sides.names["held_out"]) == 4


def test_when_all_are_bad_the_run_ends_at_once_and_names_them(tmp_path: Path) -> None:
    def nothing(text: str) -> list[int]:
        raise ValueError(f"no words for {text}")

    with pytest.raises(DatasetTooShort) as caught:
        make_sides(clips_in(tmp_path, 60), tmp_path, nothing, 0.2, seed=1)

    assert "0 clips are left" in caught.value.detail
    assert "0.wav: its text cannot be written in tokens: no words for text 0" in caught.value.detail
    assert len(caught.value.problem()["refused"]) == 50
