"""Does `convert --job` keep its sources safe, and can results be had again?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libs.client.api import Client
from libs.client.terminal import Exit
from tests.unit.client.stand_in_gateway import Gateway, frame, problem
from tests.unit.client.test_cli import said


def converted(gateway: Gateway, *names: str, **job: Any) -> None:
    """A job with a sound of every name."""
    gateway.job(kind="conversion", status="completed", **job)
    for number, name in enumerate(names, 1):
        sound = b"RIFF" + name.encode() * 100
        gateway.sounds[str(number)] = sound
        result = {"number": number, "name": name, "file": name, "state": "converted", "size_bytes": len(sound)}
        gateway.results.append(result)


def asked(gateway: Gateway, route: str) -> int:
    return sum(path == route for _, path, _ in gateway.seen)


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_conversion_that_would_replace_its_sources_is_refused_and_nothing_is_sent(
    voicewright, gateway, tmp_path, as_folder
):
    source = tmp_path / "talks" / "a.WAV"
    source.parent.mkdir()
    source.write_bytes(b"the only copy")
    there = source.parent / ".." / "talks"

    given = str(source.parent if as_folder else source)
    result = voicewright("convert", given, "--voice", "anna", "--job", "-o", str(there))

    assert result.exit_code == 2
    assert "a.WAV would be replaced by its conversion" in said(result).replace("│ │ ", "")
    assert gateway.seen == []
    assert source.read_bytes() == b"the only copy"


def test_a_recording_is_never_the_output_of_its_own_conversion(voicewright, gateway, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"the only copy")

    result = voicewright("convert", str(tmp_path / "a.wav"), "--voice", "anna", "-o", str(tmp_path / "." / "a.wav"))

    assert result.exit_code == 2
    assert gateway.seen == []


def test_a_sound_whose_name_leads_to_a_source_is_not_written(voicewright, gateway, tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"the only copy")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").symlink_to(tmp_path / "a.mp3")
    converted(gateway, "a.wav")
    gateway.job = lambda **_: gateway.jobs["job_1"]
    gateway.feed = [[frame(1, "state", {"status": "completed"})]]

    result = voicewright("convert", str(tmp_path / "a.mp3"), "--voice", "anna", "--job", "-o", str(tmp_path / "out"))

    assert result.exit_code == Exit.partly, said(result)
    assert "stays as it is" in said(result)
    assert (tmp_path / "out" / "a.wav").read_bytes() == b"the only copy"
    assert asked(gateway, "/convert/jobs/job_1/results") == 1


def test_results_are_saved_again_and_what_is_there_is_neither_fetched_nor_replaced(voicewright, gateway, tmp_path):
    converted(gateway, "a.wav", "b.wav", "c.wav")
    (tmp_path / "a.wav").write_bytes(gateway.sounds["1"])
    (tmp_path / "b.wav").write_bytes(b"a recording of somebody")

    result = voicewright("jobs", "save", "job_1", "-o", str(tmp_path))
    fetched = [asked(gateway, f"/convert/jobs/job_1/results/{number}") for number in (1, 2, 3)]
    kept = (tmp_path / "b.wav").read_bytes()
    again = voicewright("jobs", "save", "job_1", "-o", str(tmp_path), "--overwrite")

    assert result.exit_code == Exit.partly
    assert f"{tmp_path}/b.wav is another file and stays as it is." in said(result)
    assert "2 of 3 recordings" in said(result)
    assert fetched == [0, 0, 1]
    assert kept == b"a recording of somebody"
    assert (again.exit_code, (tmp_path / "b.wav").read_bytes()) == (0, gateway.sounds["2"])


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"kind": "training", "status": "completed"}, Exit.refused, "only conversions and speech have sounds"),
        ({"kind": "conversion", "status": "running"}, Exit.refused, "jobs follow job_1"),
        ({"kind": "conversion", "status": "cancelled"}, Exit.job_cancelled, "job_1 cancelled"),
    ],
)
def test_a_job_without_results_to_save_says_why(voicewright, gateway, tmp_path, fields, code, words):
    gateway.job(**fields)

    result = voicewright("jobs", "save", "job_1", "-o", str(tmp_path / "out"))

    assert result.exit_code == code
    assert words in said(result)
    assert not (tmp_path / "out").exists()


def test_sounds_that_are_not_kept_any_more_and_failures_are_told(voicewright, gateway, tmp_path):
    converted(gateway)
    gateway.results += [
        {"number": 1, "name": "a.mp3", "state": "expired"},
        {"number": 2, "name": "b.mp3", "state": "failed", "problem": problem(415, "No sound", "b is text")},
    ]

    result = voicewright("jobs", "save", "job_1", "-o", str(tmp_path))

    assert result.exit_code == Exit.partly
    assert "1 sounds are not kept any more" in said(result)
    assert "b.mp3: No sound: b is text" in said(result)


def test_a_connection_that_breaks_leaves_no_half_file_and_says_how_to_go_on(voicewright, gateway, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"speech")
    out = tmp_path / "out of doors"
    converted(gateway, "a.wav")
    gateway.job = lambda **_: gateway.jobs["job_1"]
    gateway.feed = [[frame(1, "state", {"status": "completed"})]]
    gateway.cut_sounds = 1

    result = voicewright("convert", str(tmp_path / "a.wav"), "--voice", "anna", "--job", "-o", str(out))
    left = list(out.iterdir())
    second = voicewright("jobs", "save", "job_1", "-o", str(out))

    assert result.exit_code == Exit.unreachable
    assert f"voicewright jobs save job_1 -o '{out}'" in said(result)
    assert "broke" in said(result)
    assert left == []
    assert (second.exit_code, (out / "a.wav").read_bytes()) == (0, gateway.sounds["1"])


def test_ctrl_c_names_the_command_that_saves_the_results(voicewright, gateway, tmp_path: Path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"speech")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "wait", interrupted)
    result = voicewright("convert", str(tmp_path / "a.wav"), "--voice", "anna", "--job", "-o", str(tmp_path / "out"))

    assert result.exit_code == 130
    assert f"voicewright jobs save job_1 -o {tmp_path}/out" in said(result)
