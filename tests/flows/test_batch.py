"""Does a batch as large as the customer's go in whole? 102 MP3 files of a minute each, through gateway and ingest."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
import soundfile

from tests.factories_audio import Wave, speech
from tests.flows.conftest import Platform

# Slow: two requests of 102 minutes of sound, which ingest decodes and writes again.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILES, SECONDS, RATE = 102, 60, 22_050
FRAME = 576  # samples of one MPEG-2 layer III frame


def mp3_frames(wave: Wave) -> list[bytes]:
    """`wave` as MP3 frames of which each stands alone: without the bit reservoir none needs the one before."""
    encoder = av.CodecContext.create("libmp3lame", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = RATE, "mono", "fltp", 48_000
    encoder.options = {"reservoir": "0"}
    packets = []
    for start in range(0, len(wave) - FRAME + 1, FRAME):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + FRAME], format="fltp", layout="mono")
        frame.sample_rate = RATE
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in packets]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Different cuts of one long speech, encoded once: each begins a second later than the one before."""
    frames = mp3_frames(speech(float(FILES + SECONDS + 1), "en-us+f3", rate=RATE))
    folder = tmp_path_factory.mktemp("batch")
    paths = [folder / f"recording {number:03}.mp3" for number in range(FILES)]
    for number, path in enumerate(paths):
        start = number * RATE // FRAME
        path.write_bytes(b"".join(frames[start : start + round(SECONDS * RATE / FRAME)]))
    assert len({path.read_bytes() for path in paths}) == FILES
    return paths


def test_102_files_of_a_minute_are_samples_and_a_repeat_adds_nothing(platform: Platform, batch: list[Path]) -> None:
    dataset = platform.client.ensure_dataset("a large batch")

    first = platform.client.upload(batch, dataset.id)
    kept = platform.client.samples(dataset.id)
    second = platform.client.upload(batch, dataset.id)

    assert first.rejected == second.rejected == []
    assert len(kept) == FILES
    assert sorted(sample.name for sample in kept) == [path.name for path in batch]
    assert {sample.status for sample in kept} == {"ready"}
    assert [sample.duration_seconds for sample in kept] == [pytest.approx(SECONDS, abs=0.1)] * FILES
    assert not any(sample.duplicate for sample in first.samples)
    assert all(sample.duplicate for sample in second.samples)
    assert {sample.id for sample in platform.client.samples(dataset.id)} == {sample.id for sample in kept}
    found = platform.client.find_dataset(dataset.id)
    assert found is not None
    assert found.item_count == FILES
    assert found.duration_seconds == pytest.approx(FILES * SECONDS, abs=0.1 * FILES)
    wavs = list((platform.stack.root / "data" / "uploads" / dataset.slug / "wavs").glob("*.wav"))
    assert len(wavs) == FILES
    assert {soundfile.info(wav).frames for wav in wavs} <= set(range(59 * RATE, 61 * RATE))
