"""Is a file that is read in blocks the same sound as the file read whole?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libs.audio.decode import decode
from libs.audio.resample import resample
from libs.audio.stream import MonoStream
from libs.common.errors import RecordingTooLong, UnsupportedAudio
from tests.factories_audio import tone, write_float_wav


@pytest.mark.parametrize("rate", [16_000, 22_050, 40_000])
@pytest.mark.parametrize("block", [100, 5000, 65_536])
def test_the_blocks_together_are_the_whole_file_bit_by_bit(rate: int, block: int, tmp_path: Path) -> None:
    wave = np.stack([6 * tone(3.1, 220.0, rate=22_050), 9 * tone(3.1, 330.0, rate=22_050)])
    path = write_float_wav(tmp_path / "stereo.wav", wave.astype(np.float32))
    whole = decode(path)

    stream = MonoStream(path, rate)
    found = np.concatenate(list(stream.blocks(block)))

    assert np.abs(found).max() > 1.2  # what passes full scale is kept
    assert found.tobytes() == resample(whole.wave, 22_050, rate).tobytes()
    assert (stream.seconds, stream.truncated) == (whole.seconds, whole.truncated)


def test_a_file_that_is_too_long_or_no_sound_is_refused_as_when_read_whole(tmp_path: Path) -> None:
    path = write_float_wav(tmp_path / "tone.wav", tone(3.0, 220.0, rate=22_050))
    (tmp_path / "text.wav").write_text("no sound")

    with pytest.raises(RecordingTooLong):
        list(MonoStream(path, 16_000, limit_seconds=2.0).blocks())
    with pytest.raises(UnsupportedAudio):
        list(MonoStream(tmp_path / "text.wav", 16_000).blocks())
