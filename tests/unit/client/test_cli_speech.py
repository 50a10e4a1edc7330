"""Does `voicewright say` send what was asked, and leave a whole file or none?"""

from __future__ import annotations

import json

from tests.unit.client.stand_in_gateway import frame
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


def test_all_texts_of_a_file_are_said_as_one_job_and_their_sounds_saved(voicewright, gateway, tmp_path):
    texts = tmp_path / "texts.csv"
    texts.write_bytes(b"name,text\na,Good morning.\nb,Good night.\n")
    for number, name in (("1", "a"), ("2", "b")):
        gateway.sounds[number] = b"RIFF" + name.encode()
        result = {"number": int(number), "name": name, "file": f"{name}.mp3", "state": "said", "size_bytes": 5}
        gateway.results.append(result)
    gateway.feed = [[frame(1, "state", {"status": "completed"})]]
    opened = gateway.job
    gateway.job = lambda **fields: opened(**fields | {"id": "job_1", "status": "completed"})

    result = voicewright(
        "say", "--batch", str(texts), "--voice", "linda", "--format", "mp3", "-o", str(tmp_path / "out")
    )
    again = voicewright("jobs", "save", "job_1", "-o", str(tmp_path / "again"))

    assert result.exit_code == 0, said(result)
    kind, body, query = gateway.texts
    assert (kind, body) == ("text/csv", texts.read_bytes())
    assert query == {"voice": "linda", "format": "mp3"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "a.mp3": b"RIFFa",
        "b.mp3": b"RIFFb",
    }
    assert "2 of 2 texts are in" in said(result)
    assert again.exit_code == 0, said(again)
    assert (tmp_path / "again" / "b.mp3").exists()


def test_a_text_and_a_batch_at_once_neither_or_no_voice_are_wrong_use(voicewright, gateway, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("Good morning.\n")

    results = [
        voicewright("say", "Hello.", "--batch", str(texts), "--voice", "linda", "-o", str(tmp_path / "x")),
        voicewright("say", "--voice", "linda", "-o", str(tmp_path / "x.wav")),
        voicewright("say", "Hello.", "-o", str(tmp_path / "x.wav")),
        voicewright("say", "--batch", str(texts), "--voice", "linda", "-o", str(texts)),
        voicewright("say", "--batch", str(tmp_path / "none.txt"), "-o", str(tmp_path / "x")),
    ]

    assert [result.exit_code for result in results] == [2] * 5
    assert gateway.seen == []


def test_the_voice_of_a_recording_says_a_text_with_its_speakers_consent(voicewright, gateway, tmp_path):
    clip = tmp_path / "anna.wav"
    clip.write_bytes(b"RIFF her voice")
    target = tmp_path / "out.flac"
    said_so = {"--speaker": "Anna Berg", "--consent": "She agreed by e-mail.", "--language": "en"}
    asked = ["say", "Hello.", "--reference", str(clip), "-o", str(target)]

    result = voicewright(*asked, *(part for pair in said_so.items() for part in pair))
    wrong = [
        voicewright(*asked, *(part for name, value in said_so.items() if name != left for part in (name, value)))
        for left in said_so
    ]
    wrong.append(voicewright(*asked, "--voice", "linda"))

    assert result.exit_code == 0, result.output
    sent = target.read_bytes()
    for words in (b"her voice", b"Anna Berg", b"She agreed by e-mail.", b"Hello.", b"flac"):
        assert words in sent
    assert "of Anna Berg" in said(result)
    assert [each.exit_code for each in wrong] == [2] * 4
    assert len(gateway.seen) == 1
