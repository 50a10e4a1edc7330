"""Does `voicewright say` send what was asked, and leave a whole file or none?"""

from __future__ import annotations

import json

from tests.unit.client.test_cli import said


def test_a_text_is_said_into_the_format_of_the_files_name(voicewright, gateway, tmp_path):
    target = tmp_path / "out.mp3"

    result = voicewright("say", "Good morning 🙂", "--voice", "linda", "-o", str(target), "--language", "en")

    assert result.exit_code == 0, result.output
    asked = json.loads(target.read_bytes().removeprefix(b"RIFF"))
    assert asked == {"text": "Good morning 🙂", "voice": "linda", "language": "en", "format": "mp3"}
    assert "1 signs were left out" in said(result)


def test_what_can_be_turned_reaches_the_gateway_and_a_text_may_come_through_a_pipe(voicewright, gateway, tmp_path):
    wanted = {"--speed": "1.5", "--temperature": "0.3", "--seed": "7", "--through": "anna", "--pitch-shift": "-2"}
    options = [part for pair in wanted.items() for part in pair]

    result = voicewright(
        "say", "-", "--voice", "linda", "-o", str(tmp_path / "x.wav"), *options, input="From a file.\n"
    )

    assert result.exit_code == 0, result.output
    asked = gateway.seen[-1][2]
    assert (asked["text"], asked["speed"], asked["temperature"]) == ("From a file.\n", 1.5, 0.3)
    assert (asked["seed"], asked["through"], asked["pitch_shift"]) == (7, "anna", -2)


def test_a_refused_text_leaves_no_file(voicewright, gateway, tmp_path):
    result = voicewright("say", " ", "--voice", "linda", "-o", str(tmp_path / "x.wav"))

    assert result.exit_code == 1
    assert "the text is empty" in said(result)
    assert list(tmp_path.glob("*.wav")) == []


def test_an_output_that_no_format_fits_is_wrong_use(voicewright, gateway, tmp_path):
    aiff = voicewright("say", "Hello.", "--voice", "linda", "-o", str(tmp_path / "x.aiff"))
    nowhere = voicewright("say", "Hello.", "--voice", "linda", "-o", str(tmp_path / "no" / "x.wav"))

    assert (aiff.exit_code, nowhere.exit_code) == (2, 2)
    assert gateway.seen == []
