"""Is sound that is sent while it is made a file that others read?"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from libs.audio.decode import decode
from libs.audio.growing import GrowingSound, SentFormat
from libs.common.errors import BrokenAudio
from libs.common.media_types import MEDIA_TYPES

RATE = 24_000
NOISE = np.random.default_rng(0).standard_normal(3 * RATE)
TONE = (0.4 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE) + 0.05 * NOISE).astype(np.float32)


@pytest.mark.parametrize("format", [name for name in get_args(SentFormat) if name != "pcm"])
def test_what_was_sent_piece_by_piece_decodes_to_the_sound(format: SentFormat, tmp_path: Path) -> None:
    sound = GrowingSound(RATE, format)
    sent = [sound.write(part) for part in np.array_split(TONE, 7)]
    sent.append(sound.finish())
    file = tmp_path / f"sent.{format}"
    file.write_bytes(b"".join(sent))

    heard = decode(file, limit_seconds=10)

    assert heard.seconds == pytest.approx(3.0, abs=0.15)
    assert np.sqrt(np.mean(heard.wave**2)) == pytest.approx(np.sqrt(np.mean(TONE**2)), rel=0.1)
    assert sum(map(bool, sent[:-1])) >= 2  # it did not wait for the end
    assert format in MEDIA_TYPES


def test_pcm_is_the_samples_alone_with_peaks_cut() -> None:
    sound = GrowingSound(RATE, "pcm")

    content = sound.write(np.array([0.0, 0.5, 2.0, -2.0], dtype=np.float32)) + sound.finish()

    assert np.frombuffer(content, dtype="<i2").tolist() == [0, 16384, 32767, -32768]


@pytest.mark.parametrize("format", get_args(SentFormat))
def test_values_that_are_no_numbers_are_refused(format: SentFormat) -> None:
    with pytest.raises(BrokenAudio):
        GrowingSound(RATE, format).write(np.array([np.nan], dtype=np.float32))
