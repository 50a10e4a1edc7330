"""The preprocessor as a real process: does it write down whose each piece is, and prepare anew when that changes?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from libs.common.events import InputFile
from tests.factories_audio import make_recordings, write_float_wav
from tests.integration.voice_services.platform import Platform, prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def said(inputs: tuple[InputFile, ...], *speakers: int) -> tuple[InputFile, ...]:
    return tuple(item.model_copy(update={"speaker": one}) for item, one in zip(inputs, speakers, strict=True))


def speakers_of(filelist: Path) -> tuple[dict[str, set[str]], Counter[str]]:
    """Whose the pieces of each recording are, by its number, and how many silent lines each speaker has."""
    of_recording: dict[str, set[str]] = {}
    silent: Counter[str] = Counter()
    for line in filelist.read_text().splitlines():
        name, speaker = Path(line.split("|")[0]).name, line.rsplit("|", 1)[1]
        if name.startswith("mute"):
            silent[speaker] += 1
        else:
            of_recording.setdefault(name.split("_")[0], set()).add(speaker)
    return of_recording, silent


async def test_each_piece_is_its_recordings_speakers_and_a_change_is_prepared_anew(
    here: Platform, tmp_path: Path
) -> None:
    inputs = here.place("anna", make_recordings(tmp_path / "in", 3, 4.0))
    ordered = tuple(sorted(inputs, key=lambda item: item.sha256))
    here.start("preprocessor", PREPROCESS_PROCESSES=1)

    plain = await here.send(prepare("job_1", ordered), "prepared", seconds=120)
    several = await here.send(prepare("job_2", said(ordered, 0, 1, 4)), "prepared", seconds=120)
    again = await here.send(prepare("job_3", said(ordered, 0, 1, 4)[::-1]), "prepared", seconds=120)
    other = await here.send(prepare("job_4", said(ordered, 1, 1, 4)), "prepared", seconds=120)
    back = await here.send(prepare("job_5", said(ordered, 0, 0, 0)), "prepared", seconds=120)

    events = (plain, several, again, other, back)
    assert [event.reused for event in events] == [False, False, True, False, True]
    files = [here.paths.in_data(here.manifest(event).folder) / "filelist.txt" for event in events]
    assert speakers_of(files[0]) == ({"0": {"0"}, "1": {"0"}, "2": {"0"}}, {"0": 2})
    assert speakers_of(files[1]) == ({"0": {"0"}, "1": {"1"}, "2": {"4"}}, {"0": 2, "1": 2, "4": 2})
    assert speakers_of(files[3]) == ({"0": {"1"}, "1": {"1"}, "2": {"4"}}, {"1": 2, "4": 2})
    assert files[2] == files[1]
    assert files[4] == files[0]
    data = [here.manifest(event).data for event in events]
    assert [found.get("speakers") for found in data] == [None, [0, 1, 4], [0, 1, 4], [1, 4], None]
    assert [[r.get("speaker") for r in found["recordings"]] for found in data[:2]] == [[None] * 3, [None, 1, 4]]
    assert "speaker" not in json.dumps(data[0])
    # what only names who speaks changes nothing that is learnt from
    pieces = [
        {Path(f).name: e.sha256 for f, e in here.manifest(event).files.items() if "0_gt_wavs" in f} for event in events
    ]
    assert pieces[1] == pieces[3] == pieces[0]


async def test_a_speaker_of_whom_nothing_can_be_learnt_is_named(here: Platform, tmp_path: Path) -> None:
    silence = write_float_wav(tmp_path / "silence.wav", np.zeros(8 * 22_050, np.float32))
    inputs = here.place("anna", [*make_recordings(tmp_path / "in", 1, 6.0), silence])
    here.start("preprocessor", PREPROCESS_PROCESSES=1)

    failed = await here.send(prepare("job_1", said(inputs, 0, 3)), "step_failed", seconds=120)
    together = await here.send(prepare("job_2", said(inputs, 3, 3)), "prepared", seconds=120)

    assert failed.problem["code"] == "insufficient_audio_quality"
    assert (failed.problem["field"], failed.problem["speakers"]) == ("speaker_id", [3])
    assert "speaker 3" in failed.problem["detail"]
    assert failed.problem["suggested_actions"]
    assert here.manifest(together).data["speakers"] == [3]
