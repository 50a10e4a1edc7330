"""Do recordings that are prepared together become what each becomes alone, in bounded memory, and piece by piece?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from libs.audio.encode import write_wav
from libs.common.errors import BrokenAudio, Cancelled, UnsupportedAudio
from libs.voice import experiment, preparation
from libs.voice.content_small import SmallContentEncoder
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch
from libs.voice.rmvpe import RmvpeNetwork
from tests.unit.voice.test_preparation import SETTINGS, BandEncoder, files_of, recording


class TogetherEncoder(BandEncoder):
    """Notes how many seconds each call brings."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[float] = []

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        if waves:
            self.groups.append(sum(len(wave) for wave in waves) / 16_000)
        return [self.encode(wave) for wave in waves]


def recordings(folder: Path, seconds: Sequence[float]) -> list[tuple[int, Path]]:
    return [(number, recording(folder / f"{number}.wav", length)) for number, length in enumerate(seconds)]


def prepare(
    sources: list[tuple[int, Path]],
    folders: ExperimentFolders,
    encoder: BandEncoder,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[preparation.RecordingResult]:
    return preparation.prepare_recordings(sources, folders, SETTINGS, encoder, Pitch(), should_stop=should_stop)


def notes_of(folders: ExperimentFolders) -> set[str]:
    return {note.stem for note in (folders.root / ".prepared").glob("*.json")}


def test_a_long_recording_goes_through_the_encoder_a_minute_at_a_time(tmp_path: Path) -> None:
    folders, other = ExperimentFolders(tmp_path / "exp", 16), ExperimentFolders(tmp_path / "other", 16)
    source, encoder = recording(tmp_path / "a.wav", 130.0), TogetherEncoder()

    result = preparation.prepare_recording(source, 0, folders, SETTINGS, encoder, Pitch())
    one_by_one = preparation.prepare_recording(source, 0, other, SETTINGS, BandEncoder(), Pitch())

    assert 2 <= len(encoder.groups) <= 3
    assert max(encoder.groups) < 64
    assert result == one_by_one
    assert files_of(folders) == files_of(other)


def test_short_recordings_share_a_pass_and_become_what_they_become_alone(tmp_path: Path) -> None:
    folders, other = ExperimentFolders(tmp_path / "exp", 16), ExperimentFolders(tmp_path / "other", 16)
    sources, encoder = recordings(tmp_path, [4.0, 7.0, 3.0, 90.0, 5.0, 2.5]), TogetherEncoder()

    results = list(prepare(sources, folders, encoder))
    alone = [
        preparation.prepare_recording(source, number, other, SETTINGS, BandEncoder(), Pitch())
        for number, source in sources
    ]

    assert len(encoder.groups) == 2
    assert max(encoder.groups) < 64
    assert results == alone
    assert files_of(folders) == files_of(other)
    assert notes_of(folders) == {"0", "1", "2", "3", "4", "5"}


def test_real_networks_give_recordings_together_the_numbers_they_have_alone(tmp_path: Path) -> None:
    torch.manual_seed(2)
    torch.save(RmvpeNetwork(1, 2, 1, 4).state_dict(), tmp_path / "rmvpe.pt")
    encoder, pitch = SmallContentEncoder(), Pitch(tmp_path / "rmvpe.pt")
    folders, other = ExperimentFolders(tmp_path / "exp"), ExperimentFolders(tmp_path / "other")
    sources = recordings(tmp_path, [4.0, 7.0, 3.0])

    results = list(preparation.prepare_recordings(sources, folders, SETTINGS, encoder, pitch))
    for number, source in sources:
        preparation.prepare_recording(source, number, other, SETTINGS, encoder, pitch)

    names = [name for result in results for name in result.pieces]
    assert len(names) >= 6
    for name in names:
        ours, theirs = (where.piece(name) for where in (folders, other))
        assert [ours[i].read_bytes() for i in (0, 1)] == [theirs[i].read_bytes() for i in (0, 1)]
        f0, alone = (experiment.load_array(files[3]) for files in (ours, theirs))
        # an untrained network is unsure between neighbouring bins in a frame here and there
        assert np.mean(np.isclose(f0, alone, rtol=1e-4)) > 0.98
        np.testing.assert_allclose(experiment.load_array(ours[4]), experiment.load_array(theirs[4]), atol=3e-5)


def test_what_was_complete_when_a_call_was_stopped_is_not_made_again(tmp_path: Path) -> None:
    folders = ExperimentFolders(tmp_path / "exp", 16)
    sources, encoder = recordings(tmp_path, [40.0, 40.0, 40.0]), BandEncoder()

    running = prepare(sources, folders, encoder, lambda: len(notes_of(folders)) >= 1)
    with pytest.raises(Cancelled):
        list(running)
    complete = notes_of(folders)
    begun = {name.split("_")[0] for name in folders.names()}
    again = list(prepare(sources, folders, BandEncoder()))

    assert complete == {"0"}
    assert begun == {"0", "1"}
    assert [result.reused for result in again] == [True, False, False]
    assert {name for result in again for name in result.pieces} == set(folders.names())


def test_a_call_that_was_killed_leaves_whole_files_that_the_next_call_replaces(tmp_path: Path) -> None:
    folders, other = ExperimentFolders(tmp_path / "exp", 16), ExperimentFolders(tmp_path / "other", 16)
    sources = recordings(tmp_path, [40.0, 40.0, 40.0])

    running = prepare(sources, folders, BandEncoder())
    next(running)
    del running  # as a kill does: nothing after this point runs, and pieces of number 1 have no note
    killed = {name.split("_")[0] for name in folders.names()}
    again = list(prepare(sources, folders, BandEncoder()))
    list(prepare(sources, other, BandEncoder()))

    assert killed == {"0", "1"}
    assert notes_of(folders) == {"0", "1", "2"}
    assert [result.reused for result in again] == [True, False, False]
    assert files_of(folders) == files_of(other)


def test_a_bad_recording_is_named_after_those_before_it_are_complete(tmp_path: Path) -> None:
    folders = ExperimentFolders(tmp_path / "exp", 16)
    (tmp_path / "bad.wav").write_text("this is no sound " * 50)
    good = recordings(tmp_path, [4.0, 5.0, 3.0])

    with pytest.raises((UnsupportedAudio, BrokenAudio)):
        list(prepare([*good[:2], (7, tmp_path / "bad.wav"), good[2]], folders, BandEncoder()))

    assert notes_of(folders) == {"0", "1"}
    assert {name.split("_")[0] for name in folders.names()} == {"0", "1"}


def test_a_silent_recording_among_others_is_complete_with_no_piece(tmp_path: Path) -> None:
    folders = ExperimentFolders(tmp_path / "exp", 16)
    write_wav(tmp_path / "silence.wav", np.zeros(22050 * 3, dtype=np.float32), 22050)
    first, second = recordings(tmp_path, [4.0, 5.0])

    results = list(prepare([first, (5, tmp_path / "silence.wav"), second], folders, BandEncoder()))

    assert [(result.index, bool(result.pieces)) for result in results] == [(0, True), (5, False), (1, True)]
    assert notes_of(folders) == {"0", "1", "5"}
