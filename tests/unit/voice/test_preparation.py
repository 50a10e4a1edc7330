"""Does a recording become RVC's five folders, whole, once, and the same each time, and is what is missing named?"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from libs.audio.encode import write_wav
from libs.common.errors import BrokenAudio, Cancelled, DatasetEmpty, InvalidInput, UnsupportedAudio
from libs.voice import experiment, preparation
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch
from tests.unit.voice.preparing import SETTINGS, BandEncoder, files_of, prepared, recording


class BrokenEncoder(BandEncoder):
    """Gives NaN, as a half-precision encoder can."""

    def encode(self, wave16k: np.ndarray) -> np.ndarray:
        return super().encode(wave16k) * np.nan


def test_a_recording_becomes_five_folders_that_fit_each_other(tmp_path: Path) -> None:
    folders, result = prepared(tmp_path)

    assert [f.name for f in folders.all()] == ["0_gt_wavs", "1_16k_wavs", "2a_f0", "2b_f0nsf", "3_feature16"]
    assert folders.names() == list(result.pieces)
    assert len(result.pieces) >= 2
    assert 6 < result.seconds_kept < 9.5
    for name in result.pieces:
        gt, low, coarse_path, f0_path, features_path = folders.piece(name)
        assert soundfile.info(gt).samplerate == 32000
        assert soundfile.info(gt).subtype == "FLOAT"
        low_length = soundfile.info(low).frames
        coarse, f0 = experiment.load_array(coarse_path), experiment.load_array(f0_path)
        features = experiment.load_array(features_path)
        assert (coarse.dtype, f0.dtype, features.dtype) == (np.int64, np.float32, np.float32)
        assert coarse.shape == f0.shape == (low_length // 160 + 1,)
        assert features.shape == ((low_length - 400) // 320 + 1, 16)
        assert 120 < np.median(f0[f0 > 0]) < 180
    write_count = experiment.write_filelist(folders)
    assert write_count == len(result.pieces)
    assert experiment.validate_experiment(folders, sample_rate=32000) == []


def test_preparing_again_computes_nothing_and_gives_the_same_result(tmp_path: Path) -> None:
    folders, first = prepared(tmp_path)
    before = files_of(folders)
    encoder = BandEncoder()

    again = preparation.prepare_recording(tmp_path / "a.wav", 0, folders, SETTINGS, encoder, Pitch())

    assert again.reused
    assert again.pieces == first.pieces
    assert encoder.calls == 0
    assert files_of(folders) == before


def test_preparing_into_another_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folders, _ = prepared(tmp_path)
    other = ExperimentFolders(tmp_path / "other", 16)

    preparation.prepare_recording(tmp_path / "a.wav", 0, other, SETTINGS, BandEncoder(), Pitch())

    assert files_of(other) == files_of(folders)


def test_a_call_that_was_stopped_is_finished_by_the_next(tmp_path: Path) -> None:
    folders, _ = prepared(tmp_path)
    source = recording(tmp_path / "b.wav")
    encoder = BandEncoder()

    with pytest.raises(Cancelled):
        preparation.prepare_recording(
            source, 1, folders, SETTINGS, encoder, Pitch(), should_stop=lambda: encoder.calls >= 1
        )
    result = preparation.prepare_recording(source, 1, folders, SETTINGS, encoder, Pitch())

    assert not result.reused
    assert {name for name in folders.names() if name.startswith("1_")} == set(result.pieces)


def test_a_missing_file_or_another_encoder_or_setting_makes_the_pieces_anew(tmp_path: Path) -> None:
    folders, first = prepared(tmp_path)
    source = tmp_path / "a.wav"
    folders.piece(first.pieces[0])[4].unlink()
    longer = preparation.PreparationSettings(32000, pieces=preparation.PieceSettings(seconds=10.0))

    repaired = preparation.prepare_recording(source, 0, folders, SETTINGS, BandEncoder(), Pitch())
    folders.piece(first.pieces[0])[0].write_bytes(b"")
    refilled = preparation.prepare_recording(source, 0, folders, SETTINGS, BandEncoder(), Pitch())
    re_encoded = preparation.prepare_recording(source, 0, folders, SETTINGS, BandEncoder("b" * 64), Pitch())
    fewer = preparation.prepare_recording(source, 0, folders, longer, BandEncoder("b" * 64), Pitch())

    assert not repaired.reused
    assert not refilled.reused
    assert not re_encoded.reused
    assert len(fewer.pieces) < len(first.pieces)
    assert folders.names() == list(fewer.pieces)


def test_a_new_recording_under_the_same_number_replaces_the_old_one_only(tmp_path: Path) -> None:
    folders, _ = prepared(tmp_path)
    second = recording(tmp_path / "b.wav", 4.0)
    tenth = preparation.prepare_recording(second, 10, folders, SETTINGS, BandEncoder(), Pitch())
    first = preparation.prepare_recording(second, 1, folders, SETTINGS, BandEncoder(), Pitch())

    recording(tmp_path / "b.wav", 3.0)
    renewed = preparation.prepare_recording(second, 1, folders, SETTINGS, BandEncoder(), Pitch())

    assert renewed.seconds_in < first.seconds_in
    assert {n for n in folders.names() if n.startswith("10_")} == set(tenth.pieces)


def test_silence_has_no_pieces_and_no_file_list(tmp_path: Path) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(22050 * 3, dtype=np.float32), 22050)
    folders = ExperimentFolders(tmp_path / "exp", 16)

    result = preparation.prepare_recording(tmp_path / "silence.wav", 0, folders, SETTINGS, BandEncoder(), Pitch())

    assert result.pieces == ()
    assert result.dropped == {}
    with pytest.raises(DatasetEmpty):
        experiment.write_filelist(folders)


def test_pieces_of_a_file_are_kept_up_to_two_and_a_half_times_full_scale_and_dropped_above(tmp_path: Path) -> None:
    wave, rate = soundfile.read(recording(tmp_path / "a.wav"), dtype="float32")
    wave /= np.abs(wave).max()
    results, highest = [], 0.0
    for number, scale in enumerate((1.4, 3.5)):  # the high-pass moves phases, and peaks with them
        write_wav(tmp_path / "hot.wav", np.float32(scale) * wave, rate, "FLOAT")
        folders = ExperimentFolders(tmp_path / str(number), 16)
        results.append(
            preparation.prepare_recording(tmp_path / "hot.wav", 0, folders, SETTINGS, BandEncoder(), Pitch())
        )
        for name in results[-1].pieces:
            highest = max(highest, float(np.abs(soundfile.read(folders.piece(name)[0])[0]).max()))

    # a peak of p becomes 0.675 + p / 4: a piece that was cut at full scale would stay below 0.925
    assert len(results[0].pieces) >= 2
    assert results[0].dropped == {}
    assert highest > 1.0
    assert results[1].pieces == ()
    assert results[1].dropped["level"] >= 2


def test_features_that_are_not_finite_are_never_stored(tmp_path: Path) -> None:
    folders = ExperimentFolders(tmp_path / "exp", 16)

    result = preparation.prepare_recording(
        recording(tmp_path / "a.wav"), 0, folders, SETTINGS, BrokenEncoder(), Pitch()
    )

    assert result.pieces == ()
    assert result.dropped["content"] >= 2
    assert folders.names() == []


def test_a_piece_below_one_content_frame_is_dropped_by_name() -> None:
    time = np.arange(640) / 32000
    reasons: list[str] = []

    pieces = list(
        preparation.prepare_blocks(
            [0.3 * np.sin(2 * np.pi * 400 * time)], SETTINGS, BandEncoder(), Pitch(), on_drop=reasons.append
        )
    )

    assert pieces == []
    assert reasons == ["short"]


def test_files_that_are_no_sound_are_refused_and_leave_no_piece(tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("hello")
    (tmp_path / "empty.wav").write_bytes(b"")
    folders = ExperimentFolders(tmp_path / "exp", 16)

    for name in ("text.mp3", "empty.wav"):
        with pytest.raises((UnsupportedAudio, BrokenAudio)):
            preparation.prepare_recording(tmp_path / name, 0, folders, SETTINGS, BandEncoder(), Pitch())

    assert folders.names() == []


def test_settings_and_widths_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"16000…48000"):
        preparation.PreparationSettings(sample_rate=8000)
    with pytest.raises(InvalidInput, match="768"):
        preparation.prepare_recording(
            tmp_path / "a.wav", 0, ExperimentFolders(tmp_path, 768), SETTINGS, BandEncoder(), Pitch()
        )


def test_filled_pitch_has_no_gap_when_it_is_asked_for(tmp_path: Path) -> None:
    folders = ExperimentFolders(tmp_path / "exp", 16)
    wanted = preparation.PreparationSettings(sample_rate=32000, fill_unvoiced=True)

    result = preparation.prepare_recording(recording(tmp_path / "a.wav"), 0, folders, wanted, BandEncoder(), Pitch())

    for name in result.pieces:
        assert (experiment.load_array(folders.piece(name)[3]) > 0).all()


def test_the_file_list_has_rvcs_form_with_mute_lines_and_true_paths(tmp_path: Path) -> None:
    folders, result = prepared(tmp_path)
    mute = preparation.ensure_mute(tmp_path / "mute", 32000, BandEncoder())

    count = experiment.write_filelist(folders, mute=mute, speaker_id=3)

    text = folders.filelist.read_text()
    lines = [line.split("|") for line in text.split("\n")]
    assert count == len(result.pieces)
    assert len(lines) == count + 2
    assert not text.endswith("\n")
    assert all(len(fields) == 5 and fields[4] == "3" for fields in lines)
    assert all(os.path.isabs(field) and os.path.isfile(field) for fields in lines for field in fields[:4])
    assert sum("mute32k.wav" in fields[0] for fields in lines) == 2
    one = next(fields for fields in lines if fields[0].endswith("/0_0.wav"))
    tails = [field.rsplit("/", 2)[-2:] for field in one[:4]]
    assert tails == [
        ["0_gt_wavs", "0_0.wav"],
        ["3_feature16", "0_0.npy"],
        ["2a_f0", "0_0.wav.npy"],
        ["2b_f0nsf", "0_0.wav.npy"],
    ]


def test_the_file_list_says_whose_each_recording_is_and_everybody_has_mute_lines(tmp_path: Path) -> None:
    folders = ExperimentFolders(tmp_path / "exp", 16)
    for number in (0, 1, 10):
        preparation.prepare_recording(
            recording(tmp_path / f"{number}.wav"), number, folders, SETTINGS, BandEncoder(), Pitch()
        )
    mute = preparation.ensure_mute(tmp_path / "mute", 32000, BandEncoder())

    experiment.write_filelist(folders, mute=mute, speakers={10: 2})

    lines = [line.split("|") for line in folders.filelist.read_text().split("\n")]
    said = {(Path(fields[0]).name.split("_")[0], fields[4]) for fields in lines if "mute" not in fields[0]}
    assert said == {("0", "0"), ("1", "0"), ("10", "2")}
    assert sorted(fields[4] for fields in lines if "mute" in fields[0]) == ["0", "0", "2", "2"]
    assert experiment.validate_experiment(folders) == []


def test_a_file_list_without_pitch_has_three_fields_and_may_be_relative(tmp_path: Path) -> None:
    folders, _ = prepared(tmp_path)

    experiment.write_filelist(folders, has_f0=False, relative_to=folders.root)

    first = folders.filelist.read_text().split("\n")[0].split("|")
    assert len(first) == 3
    assert first[0].startswith("0_gt_wavs/")
    assert experiment.validate_experiment(folders) == []


def test_a_path_that_would_break_the_file_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a|b").mkdir()
    folders, _ = prepared(tmp_path / "a|b")

    with pytest.raises(InvalidInput, match="rename"):
        experiment.write_filelist(folders)


def test_the_mute_piece_is_rvcs_with_the_encoders_own_silence(tmp_path: Path) -> None:
    encoder = BandEncoder()

    mute = preparation.ensure_mute(tmp_path, 40000, encoder)
    again = preparation.ensure_mute(tmp_path, 40000, encoder)
    other = preparation.ensure_mute(tmp_path, 40000, BandEncoder("b" * 64))

    gt, features, coarse, f0 = mute.files()
    wave, rate = soundfile.read(gt)
    assert gt.name == "mute40k.wav"
    assert (len(wave), rate, wave.any()) == (120000, 40000, False)
    assert experiment.load_array(features).shape == (149, 16)
    np.testing.assert_array_equal(experiment.load_array(coarse), np.ones(301))
    np.testing.assert_array_equal(experiment.load_array(f0), np.zeros(301))
    assert again == mute
    assert encoder.calls == 1
    assert other.files()[1] != features


def test_validation_names_each_thing_that_is_missing_or_does_not_fit(tmp_path: Path) -> None:
    folders, result = prepared(tmp_path)
    experiment.write_filelist(folders)
    first, second = result.pieces[:2]
    gt, _, coarse, f0, features = folders.piece(first)
    features.unlink()
    _, low, other_coarse, other_f0, other_features = folders.piece(second)
    experiment.save_array(other_coarse, experiment.load_array(other_coarse) * 0)
    experiment.save_array(other_f0, np.full(experiment.load_array(other_f0).shape, np.nan, dtype=np.float32))
    experiment.save_array(other_features, np.zeros((3, 16), dtype=np.float32))

    problems = experiment.validate_experiment(folders, sample_rate=40000)

    found = {(p.code, p.path) for p in problems}
    assert ("file_missing", f"3_feature16/{first}.npy") in found
    assert ("range", f"2a_f0/{second}.wav.npy") in found
    assert ("not_finite", f"2b_f0nsf/{second}.wav.npy") in found
    assert ("shape", f"3_feature16/{second}.npy") in found
    assert ("wrong_rate", f"0_gt_wavs/{second}.wav") in found
    assert ("filelist", "filelist.txt") in found
    assert all(p.detail for p in problems)


def test_validation_of_an_empty_or_damaged_folder_says_what_to_do(tmp_path: Path) -> None:
    folders = ExperimentFolders(tmp_path / "none", 16)
    missing = experiment.validate_experiment(folders)
    folders.create()
    empty = experiment.validate_experiment(folders)
    full, result = prepared(tmp_path)
    full.piece(result.pieces[0])[2].write_bytes(b"\x93NUMPY damaged")

    damaged = experiment.validate_experiment(full)

    assert {p.code for p in missing} == {"folder_missing"}
    assert len(missing) == 5
    assert [p.code for p in empty] == ["empty", "file_missing"]
    assert ("unreadable", f"2a_f0/{result.pieces[0]}.wav.npy") in {(p.code, p.path) for p in damaged}


def test_a_folder_of_rvc_with_its_hyphen_is_read(tmp_path: Path) -> None:
    folders, result = prepared(tmp_path)
    folders.f0.rename(folders.root / "2b-f0nsf")

    experiment.write_filelist(folders)

    assert folders.f0.name == "2b-f0nsf"
    assert folders.names() == list(result.pieces)
    assert experiment.validate_experiment(folders) == []
    assert "2b-f0nsf" in folders.filelist.read_text()


def test_an_array_that_carries_code_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(ValueError, match="pickle"):
        experiment.load_array(tmp_path / "evil.npy")
