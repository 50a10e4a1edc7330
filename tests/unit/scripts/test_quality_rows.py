"""The figures of `make quality`: means with intervals that know speakers, differences by recording, bands, a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import quality
from scripts.quality_rows import Rows, bands, differences, interval, means, picture, table


def row(recording: str, speaker: str, **figures: float | None) -> dict[str, Any]:
    usual = {"similarity_target": 0.8, "similarity_source": 0.5, "f0_correlation": 0.99, "f0_rmse_cents": 30.0}
    usual |= {"voicing_error": 0.03, "phone_agreement": 0.4, "dnsmos": 3.1}
    return {"recording": recording, "speaker": speaker} | usual | figures


def test_an_interval_is_that_of_the_mean_where_every_recording_has_a_speaker_of_its_own() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 100)

    found = interval(values.tolist(), [str(i) for i in range(100)])

    assert found == pytest.approx(1.96 * float(values.std()) / 10, rel=0.1)
    assert found == interval(values.tolist(), [str(i) for i in range(100)])


def test_recordings_of_few_speakers_are_worth_less_than_their_number() -> None:
    values = [0.3] * 10 + [0.5] * 10 + [0.7] * 10

    few = interval(values, ["a"] * 10 + ["b"] * 10 + ["c"] * 10)
    many = interval(values, [str(i) for i in range(30)])

    assert few > 2 * many


def test_a_mean_leaves_out_what_was_not_measured() -> None:
    found = means([row("1", "a", phone_agreement=0.2), row("2", "b", phone_agreement=None)])

    assert found["recordings"] == 2
    assert found["phone_agreement"] == 0.2
    assert found["similarity_target"] == 0.8
    assert found["plus_minus"]["similarity_target"] == 0.0


def test_differences_are_of_one_recording_in_two_voices() -> None:
    speakers = {"1": "a", "2": "a", "3": "b"}
    rows: Rows = {
        "old": [row(name, who, phone_agreement=0.1 * int(name)) for name, who in speakers.items()],
        "new": [row(name, who, phone_agreement=0.1 * int(name) + 0.05) for name, who in reversed(speakers.items())],
    }

    found = differences(rows, "old", "new")

    assert found["phone_agreement"] == pytest.approx(0.05)
    assert found["plus_minus"]["phone_agreement"] == pytest.approx(0.0, abs=1e-9)
    assert found["similarity_target"] == 0.0


def test_bands_are_of_pairs_within_and_between_speakers() -> None:
    one, other = np.eye(2, dtype=np.float32)
    between = np.float32(np.sqrt(0.5)) * (one + other)

    found = bands({"a": [one, one], "b": [other, other], "c": [between]})

    assert found["same_speaker"] == 1.0
    assert found["other_speaker"] == pytest.approx((4 * 0 + 4 * np.sqrt(0.5)) / 8, abs=1e-3)


def test_table_and_picture_hold_every_row(tmp_path: Path) -> None:
    summary = {kind: means([row("1", "a"), row("2", "b", similarity_target=0.7)]) for kind in ("copy", "converted")}

    told = table(summary)
    picture(summary, tmp_path / "quality.png")

    lines = told.splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| copy | 2 | 0.750 ± 0.0")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_an_opinion_has_an_interval_and_where_there_is_none_the_table_says_why(tmp_path: Path) -> None:
    heard = {"copy": means([row("1", "a", dnsmos=2.9), row("2", "b", dnsmos=3.3)])}
    unheard = {"copy": means([row("1", "a", dnsmos=None), row("2", "b", dnsmos=None)])}

    told, untold = table(heard), table(unheard, {"dnsmos": "its tool is not here"})
    picture(unheard, tmp_path / "quality.png")

    assert "| DNSMOS |" in told.splitlines()[0]
    assert told.splitlines()[2].endswith("| 3.100 ± 0.200 |")
    assert untold.splitlines()[2].endswith("| – |")
    assert untold.splitlines()[-1] == "DNSMOS was not measured: its tool is not here."
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_differences_leave_out_a_figure_that_one_of_the_reports_lacks() -> None:
    before = row("1", "a")
    del before["dnsmos"]

    found = differences({"old": [before], "new": [row("1", "a")]}, "old", "new")

    assert "dnsmos" not in found
    assert found["phone_agreement"] == 0.0


@pytest.mark.parametrize(("clips", "named"), [(3, "--target"), (4, "--sources")])
def test_folders_that_cannot_be_measured_are_refused_with_what_they_hold(tmp_path, capsys, clips, named):
    for number in range(clips):
        (tmp_path / "target").mkdir(exist_ok=True)
        (tmp_path / "target" / f"{number}.wav").touch()

    with pytest.raises(SystemExit):
        quality.main(
            ["--target", str(tmp_path / "target"), "--sources", str(tmp_path), "--output", str(tmp_path / "out")]
        )

    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
