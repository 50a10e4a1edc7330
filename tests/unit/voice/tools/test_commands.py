"""The tools are commands on this machine, too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from libs.voice.tools.__main__ import main
from tests.unit.voice.voice_files import discriminator, index_file, rvc_voice, tiny_network, training_file


def test_each_tool_is_a_command_with_a_json_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice, other = rvc_voice(tmp_path / "a.pth"), rvc_voice(tmp_path / "b.pth", tiny_network(1))
    index, checkpoint = index_file(tmp_path / "a.index"), training_file(tmp_path / "G_1.pth")

    def answer(*arguments: object) -> dict[str, object]:
        assert main([str(argument) for argument in arguments]) == 0
        given: dict[str, object] = json.loads(capsys.readouterr().out)
        return given

    assert answer("inspect", voice)["sample_rate"] == 16_000
    assert answer("verify", voice, "--index", index)["index_rows"] == 60
    assert answer("merge", voice, other, tmp_path / "m.pth", "--share", 0.3)["written"] == str(tmp_path / "m.pth")
    assert answer("convert", voice, tmp_path / "a.safetensors", "--form", "safetensors")
    assert answer("extract", checkpoint, tmp_path / "x.pth", "--speaker", 1)
    assert answer("inspect", tmp_path / "x.pth")["speakers"] == 1
    assert answer("pack", "rvc", voice, tmp_path / "a.zip", "--index", index)
    assert answer("unpack", tmp_path / "a.zip", tmp_path / "out")["model"] == str(tmp_path / "out" / "a.pth")


def test_a_refusal_has_its_reason_on_stderr_and_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = training_file(tmp_path / "D_1.pth", discriminator())

    assert main(["verify", str(path)]) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert "is a discriminator" in told.err
    assert "Give the G_ file" in told.err


def test_the_module_runs_by_its_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "libs.voice.tools", "inspect", str(tmp_path / "none.pth")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "there is no model file none.pth" in done.stderr
