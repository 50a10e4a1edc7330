"""Does the command line do what it says, and end with a code that scripts can use?"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from libs.client.terminal import Exit, describe, seconds
from scripts.processes import free_port
from tests.unit.client.stand_in_gateway import frame, problem


def said(result) -> str:
    """Both streams, with the terminal's line breaks taken out."""
    return " ".join((result.output + (result.stderr or "")).split())


def test_login_keeps_the_token_in_a_file_of_its_owner_alone(voicewright, tmp_path):
    result = voicewright("login", "--email", "anna@example.com", token=None, input="right\n")

    file = tmp_path / "config" / "voicewright" / "credentials.json"
    assert result.exit_code == 0, result.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["access_token"] == "good"
    assert "right" not in file.read_text()
    assert voicewright("whoami", token=None).exit_code == 0


def test_a_renewed_token_is_kept_for_the_next_command(voicewright, gateway, tmp_path):
    voicewright("login", "--email", "anna@example.com", token=None, input="right\n")
    gateway.valid_tokens.clear()

    assert voicewright("whoami", token=None).exit_code == 0

    file = tmp_path / "config" / "voicewright" / "credentials.json"
    assert json.loads(file.read_text())["refresh_token"] == "next"


def test_a_stored_token_is_never_sent_to_another_address(voicewright, gateway):
    voicewright("login", "--email", "anna@example.com", token=None, input="right\n")
    other = gateway.url.replace("127.0.0.1", "localhost")

    result = voicewright("whoami", token=None, url=other)

    assert result.exit_code == Exit.sign_in


def test_logout_forgets_the_token(voicewright, tmp_path):
    voicewright("login", "--email", "anna@example.com", token=None, input="right\n")

    result = voicewright("logout", token=None)

    file = tmp_path / "config" / "voicewright" / "credentials.json"
    assert result.exit_code == 0
    assert json.loads(file.read_text())["access_token"] is None
    assert voicewright("whoami", token=None).exit_code == Exit.sign_in


def test_a_wrong_password_ends_with_the_sign_in_code(voicewright):
    result = voicewright("login", "--email", "anna@example.com", "--password", "wrong", token=None)

    assert result.exit_code == Exit.sign_in
    assert "e-mail or password is wrong" in said(result)


def test_no_platform_at_the_address_ends_with_its_own_code(voicewright):
    result = voicewright("login", "--email", "a@b.c", "--password", "x", url=f"http://127.0.0.1:{free_port()}")

    assert result.exit_code == Exit.unreachable
    assert "Is the platform running" in said(result)


def test_users_are_added_and_listed(voicewright):
    result = voicewright("users", "add", "ben@example.com", "--role", "viewer", input="a long phrase\na long phrase\n")

    assert result.exit_code == 0, result.output
    assert "ben@example.com" in voicewright("users", "list").output


def test_a_key_is_printed_alone_and_once_listed_without_its_secret_and_taken_back(voicewright, gateway):
    made = voicewright("keys", "create", "door", "--scope", "use", "--scope", "look", "--forever")
    listed, as_json = voicewright("keys", "list"), voicewright("keys", "list", "--json")
    gone = voicewright("keys", "revoke", "key_0")
    nothing = voicewright("keys", "create", "door")

    assert made.exit_code == 0, said(made)
    assert made.stdout == "vwk_secret_words\n"
    assert gateway.seen[0][2] == {"name": "door", "scopes": ["use", "look"], "lifetime_days": None}
    assert "vwk_secret" in listed.output
    assert "vwk_secret_words" not in listed.output + as_json.output
    assert (gone.exit_code, gateway.access_keys) == (0, [])
    assert nothing.exit_code == 2


def test_a_folder_is_uploaded_with_its_sound_files_only_and_rejects_are_named(voicewright, gateway, tmp_path):
    folder = tmp_path / "with space"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.wav", "bad.mp3", "dull.wav", "deeper/ä ö.flac"):
        (folder / name).write_bytes(b"sound")
    (folder / "notes.txt").write_text("not sound")

    result = voicewright("upload", str(folder), "--dataset", "Anna")

    assert result.exit_code == Exit.partly
    assert len(gateway.uploads) == 4
    assert "dull.wav: There is nothing above 4.0 kHz." in said(result)
    assert "bad.mp3: This is no sound: bad.mp3 is text. Send sound." in said(result)
    assert "3 of 4 files are in dataset anna" in said(result)


def test_an_upload_says_whose_voice_it_is_and_what_there_is_of_each_speaker(voicewright, gateway, tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"sound")
    shares = [{"speaker_id": 0, "recordings": 1, "seconds": 30}, {"speaker_id": 2, "recordings": 2, "seconds": 61.5}]
    gateway.datasets = [{"id": "dst_0", "slug": "anna", "name": "Anna", "user_id": "usr_1", "speakers": shares}]

    named = voicewright("upload", str(tmp_path), "--dataset", "Anna", "--speaker-id", "2")
    plain = voicewright("upload", str(tmp_path / "a.wav"), "--dataset", "Anna")
    wrong = [voicewright("upload", str(tmp_path), "--dataset", "Anna", "--speaker-id", n) for n in ("109", "-1", "x")]

    assert (named.exit_code, plain.exit_code) == (0, 0), named.output + plain.output
    assert gateway.speakers == ["2", "2"]
    assert len(gateway.uploads) == 3
    assert "Speaker 0: 1 recordings, 30 s. Speaker 2: 2 recordings" in said(named)
    assert [result.exit_code for result in wrong] == [2, 2, 2]
    assert "--speaker-id" in wrong[0].output


def test_many_files_go_into_one_new_dataset(voicewright, gateway, tmp_path):
    for number in range(102):
        (tmp_path / f"{number:03}.mp3").write_bytes(b"sound")

    result = voicewright("upload", str(tmp_path), "--dataset", "Anna", "--parallel", "8")

    assert result.exit_code == 0, result.output
    assert len(gateway.datasets) == 1
    assert sorted(gateway.uploads) == [f"{number:03}.mp3" for number in range(102)]


def test_an_upload_that_breaks_off_says_what_was_kept_and_goes_on_when_it_is_run_again(voicewright, gateway, tmp_path):
    for number in range(30):
        (tmp_path / f"{number:03}.mp3").write_bytes(b"sound")
    (tmp_path / "bad.mp3").write_bytes(b"text")
    gateway.room = 12

    full = voicewright("upload", str(tmp_path), "--dataset", "Anna", "--parallel", "2")
    tried, gateway.room = len([path for _, path, _ in gateway.seen if path == "/samples"]), None
    again = voicewright("upload", str(tmp_path), "--dataset", "Anna")

    assert full.exit_code == Exit.refused
    assert "There is no space left: the uploads' volume is full. Free disk space." in said(full)
    assert "12 of 31 files were kept. Run it again when the cause is gone: it goes on" in said(full)
    assert tried < 20, "nobody goes on sending to a full disk"
    assert again.exit_code == Exit.partly
    assert {f"{number:03}.mp3" for number in range(30)} < set(gateway.uploads)


def test_a_folder_without_sound_is_an_error_and_makes_no_dataset(voicewright, gateway, tmp_path):
    result = voicewright("upload", str(tmp_path), "--dataset", "Anna")

    assert result.exit_code == Exit.partly
    assert gateway.datasets == []


def test_training_sends_what_was_asked_for_and_nothing_else(voicewright, gateway):
    result = voicewright("train", "--dataset", "anna", "--minutes", "0.5", "--epochs", "3", "--preset", "lite")

    assert result.exit_code == 0, result.output
    body = next(body for method, route, body in gateway.seen if (method, route) == ("POST", "/training/jobs"))
    assert body == {
        "dataset_id": "anna",
        "preset": "lite",
        "priority": 50,
        "options": {"train_seconds": 30.0, "epochs": 3},
    }


def test_a_voice_that_speaks_is_asked_for_by_provider_and_language(voicewright, gateway):
    result = voicewright("train", "--dataset", "anna", "--provider", "xtts", "--language", "en")

    assert result.exit_code == 0, result.output
    body = next(body for method, route, body in gateway.seen if (method, route) == ("POST", "/training/jobs"))
    assert body == {"dataset_id": "anna", "provider": "xtts", "priority": 50, "options": {"language": "en"}}


def test_the_texts_of_many_recordings_are_sent_as_they_are(voicewright, gateway, tmp_path):
    metadata = tmp_path / "metadata.csv"
    metadata.write_text("a|Grüße.|Grüße.\n")

    result = voicewright("transcribe", "--dataset", "anna", str(metadata))

    assert result.exit_code == 0, result.output
    assert "1 transcripts written, 3 of a machine's confirmed; 2 recordings have none, 1 one that" in result.output
    assert gateway.metadata == {"anna": "a|Grüße.|Grüße.\n"}


def test_the_texts_of_a_dataset_are_saved_to_be_read_and_sent_again(voicewright, gateway, tmp_path):
    gateway.metadata["anna"] = "a|Grüße.|Grüße.\n"
    saved = tmp_path / "saved.csv"

    result = voicewright("transcribe", "--dataset", "anna", "--save", str(saved))
    neither = voicewright("transcribe", "--dataset", "anna")

    assert result.exit_code == 0, result.output
    assert saved.read_text() == "a|Grüße.|Grüße.\n"
    assert f"voicewright transcribe --dataset anna {saved}" in result.output
    assert neither.exit_code == 2


def test_the_recordings_of_a_dataset_are_listed_with_who_wrote_their_texts(voicewright, gateway):
    gateway.samples = [
        {"id": "smp_1", "name": "a.wav", "duration_seconds": 3.5, "transcript": "Hello [laughs]."},
        {"id": "smp_2", "name": "b.wav", "transcript": "Heard.", "transcript_by_machine": True},
        {"id": "smp_3", "name": "c.wav"},
    ]

    result = voicewright("recordings", "--dataset", "anna")

    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split() for line in result.output.splitlines() if line.startswith("smp_")}
    assert lines["smp_1"][-3:] == ["person", "Hello", "[laughs]."]
    assert lines["smp_2"][-2:] == ["machine", "Heard."]
    assert lines["smp_3"][-2:] == ["–", "–"]


def test_the_recordings_of_several_speakers_are_listed_with_whose_they_are(voicewright, gateway):
    gateway.samples = [{"id": "smp_1", "name": "a.wav"}, {"id": "smp_2", "name": "b.wav", "speaker_id": 7}]

    several = voicewright("recordings", "--dataset", "anna")
    gateway.samples.pop()
    one = voicewright("recordings", "--dataset", "anna")

    lines = {line.split()[0]: line.split() for line in several.output.splitlines() if line.startswith("smp_")}
    assert (lines["smp_1"][2], lines["smp_2"][2]) == ("0", "7")
    assert "speaker" in several.output
    assert "speaker" not in one.output


def test_every_option_of_the_api_can_be_given_by_name(voicewright, gateway):
    given = ("ema_decay=0.999", "f0=false", "optimizer=radam")

    result = voicewright("train", "--dataset", "anna", *(part for text in given for part in ("--option", text)))

    assert result.exit_code == 0, result.output
    body = next(body for method, route, body in gateway.seen if (method, route) == ("POST", "/training/jobs"))
    assert body["options"] == {"ema_decay": 0.999, "f0": False, "optimizer": "radam"}


@pytest.mark.parametrize("text", ["ema_decay", "=1", "a b=1", "epochs=3"])
def test_an_option_without_a_name_or_with_one_of_its_own_is_refused(voicewright, gateway, text):
    result = voicewright("train", "--dataset", "anna", "--option", text)

    assert result.exit_code != 0
    assert "NAME=VALUE" in result.output
    assert not [route for method, route, _ in gateway.seen if route == "/training/jobs"]


@pytest.mark.parametrize(
    ("status", "code"), [("completed", Exit.ok), ("failed", Exit.job_failed), ("cancelled", Exit.job_cancelled)]
)
def test_following_a_job_that_is_over_ends_with_its_fate(voicewright, gateway, status, code):
    def end() -> bytes:
        return frame(3, "state", {"status": status, "progress": 100})

    progress = {"step": "train", "done": 10, "total": 80, "loss": 0.4213, "eta_seconds": 65, "progress": 40}
    gateway.feed = [[frame(2, "progress", progress), end()]]
    gateway.job(
        status=status, error=problem(500, "A step failed", "x", "Read the log.") if status == "failed" else None
    )

    result = voicewright("jobs", "follow", "job_1")

    assert result.exit_code == code
    assert ("A step failed: x. Read the log." in said(result)) == (status == "failed")


def test_a_followed_training_prints_its_progress_where_there_is_no_terminal(voicewright, gateway):
    progress = {"step": "train", "done": 10, "total": 80, "loss": 0.4213, "eta_seconds": 65, "progress": 40}
    gateway.feed = [[frame(2, "progress", progress), frame(3, "state", {"status": "cancelled"})]]

    result = voicewright("train", "--dataset", "anna", "--follow")

    # The stand-in's job stays queued: the client believes the job itself, not the feed.
    assert "train 40 % 10/80 · loss 0.4213 · 1 min 05 s left" in said(result)
    assert result.exit_code == Exit.job_failed


def test_jobs_are_listed_shown_cancelled_and_retried(voicewright, gateway):
    gateway.job(id="job_a", status="running", phase="train", progress=41.0)
    gateway.job(id="job_b", status="completed")

    assert "job_b" not in voicewright("jobs", "list", "--active").output
    assert [job["id"] for job in json.loads(voicewright("jobs", "list", "--json").output)] == ["job_b", "job_a"]
    assert "41.0 %" in voicewright("jobs", "show", "job_a").output
    assert "started n=1" in voicewright("jobs", "logs", "job_a").output
    assert "is cancelled" in voicewright("jobs", "cancel", "job_a").output
    assert "queued again" in voicewright("jobs", "retry", "job_a").output


def test_jobs_of_every_kind_are_listed_with_it_and_those_of_one_on_demand(voicewright, gateway):
    for number, kind in enumerate(("training", "conversion", "preprocess", "training", "model")):
        gateway.job(id=f"job_{number}", kind=kind, name="Anna")

    listed = voicewright("jobs", "list", "--limit", "4").output.splitlines()
    trainings = json.loads(voicewright("jobs", "list", "--kind", "training", "--json").output)

    assert listed[0].split()[:2] == ["id", "kind"]
    kinds = [("job_4", "model"), ("job_3", "training"), ("job_2", "preprocess"), ("job_1", "conversion")]
    assert [tuple(row.split()[:2]) for row in listed[1:]] == kinds
    assert [job["id"] for job in trainings] == ["job_3", "job_0"]


def test_a_row_of_a_list_is_one_line_for_programs_however_long_it_is(voicewright, gateway):
    gateway.job(id="job_01M7YABZHBDE2MRMCQ143RWS19", name="a very long name " * 8, status="running")

    listed = voicewright("jobs", "list").output

    (row,) = [line for line in listed.splitlines() if "job_01M7YABZHBDE2MRMCQ143RWS19" in line]
    assert "a very long name " * 7 in row
    assert "running" in row


def test_an_unknown_job_ends_with_the_refused_code_and_what_to_do(voicewright):
    result = voicewright("jobs", "show", "job_zzz")

    assert result.exit_code == Exit.refused
    assert "List what you have." in said(result)


def test_a_recording_is_converted_into_the_format_of_its_name(voicewright, gateway, tmp_path):
    (tmp_path / "in.wav").write_bytes(b"speech")

    result = voicewright("convert", str(tmp_path / "in.wav"), "--voice", "anna", "-o", str(tmp_path / "out.flac"))

    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.flac").exists()
    assert "20 × real time" in said(result)


def test_what_can_be_turned_reaches_the_gateway_under_its_names(voicewright, gateway, tmp_path):
    (tmp_path / "in.wav").write_bytes(b"speech")
    (tmp_path / "pitch.csv").write_text("0.0,220\n1.0,247\n")
    wanted = {
        "--pitch-shift": "-3", "--filter-radius": "5", "--speaker-id": "2", "--autotune": "0.5",
        "--proposed-pitch": "255",
        "--formant-timbre": "1.2", "--formant-quefrency": "2", "--output-rate": "44100", "--seed": "9",
        "--f0-file": str(tmp_path / "pitch.csv"),
    }  # fmt: skip
    options = [part for pair in wanted.items() for part in pair]

    result = voicewright(
        "convert", str(tmp_path / "in.wav"), "--voice", "anna", "-o", str(tmp_path / "out.wav"), *options,
        "--split-silence", "--fill-unvoiced",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    sent = dict(re.findall(rb'name="(\w+)"\r\n\r\n(.*?)\r\n--', gateway.converted, re.S))
    assert sent[b"f0_file"].split() == [b"0.0,220", b"1.0,247"]
    assert {name.decode(): value.decode() for name, value in sent.items() if name not in (b"f0_file", b"audio")} == {
        "voice": "anna", "format": "wav", "pitch_shift": "-3.0", "filter_radius": "5", "speaker_id": "2",
        "autotune": "True", "autotune_strength": "0.5", "proposed_pitch": "True", "proposed_pitch_hz": "255.0",
        "formant_timbre": "1.2", "formant_quefrency": "2.0", "output_rate": "44100", "seed": "9",
        "split_silence": "True", "fill_unvoiced": "True",
    }  # fmt: skip


def test_an_output_of_unknown_format_is_a_wrong_use(voicewright, tmp_path):
    (tmp_path / "in.wav").write_bytes(b"speech")

    result = voicewright("convert", str(tmp_path / "in.wav"), "--voice", "anna", "-o", str(tmp_path / "out.xyz"))

    assert result.exit_code == 2


def test_voices_are_listed_shown_exported_and_deleted(voicewright, gateway, tmp_path: Path):
    gateway.voices = [{"id": "vox_1", "slug": "anna", "name": "Anna, warm", "status": "ready", "base_model": "lite"}]

    assert "Anna, warm" in voicewright("voices", "list").output
    assert "vox_1" in voicewright("voices", "show", "Anna, warm").output
    assert voicewright("voices", "export", "anna", "-o", str(tmp_path / "anna.zip")).exit_code == 0
    assert (tmp_path / "anna.zip").read_bytes().startswith(b"PK")
    assert voicewright("voices", "delete", "anna", input="n\n").exit_code != 0
    assert voicewright("voices", "delete", "anna", "--yes").exit_code == 0
    assert gateway.voices == []


def test_durations_and_progress_are_written_for_people():
    assert [seconds(x) for x in (None, 0.4, 65, 3725)] == ["–", "0 s", "1 min 05 s", "1 h 02 min"]
    assert describe({"queue_state": "delayed"}) == "delayed"
    assert describe({"done": 0, "total": 10}) == ""
