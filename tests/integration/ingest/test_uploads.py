"""What is sent to ingest? Good files are staged whole, every other file gets its problem and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.factories_audio import FORMATS, encode_as, make_speech, make_tone, speech, write_float_wav
from tests.integration.ingest.conftest import HEADERS, Service, StartIngest
from tests.waiting import PATIENCE

SECRET = "the-secret-beside-it-4711"
CUT = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nhalf of it'


def only_file(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (file,) = answer.json()["files"]
    found: dict[str, Any] = file
    return found


def test_every_format_is_staged_with_its_checksum_wav_and_report(ingest: Service, tmp_path: Path) -> None:
    sent = [encode_as(kind, speech(2.0), 22_050, tmp_path / f"as-{kind}.bin") for kind in FORMATS]

    answer = ingest.upload(*((path.name, path.read_bytes()) for path in sent), exp_name="anna", note="größer")

    assert answer.status_code == 200, answer.text
    assert answer.json()["fields"] == {"exp_name": "anna", "note": "größer"}
    files = answer.json()["files"]
    assert [file["name"] for file in files] == [path.name for path in sent]
    assert [file["field"] for file in files] == ["files"] * len(sent)
    expected = ["mka" if kind == "mkv" else kind for kind in FORMATS]
    assert [file["extension"] for file in files] == expected
    for file, path in zip(files, sent, strict=True):
        upload = ingest.paths.staged_upload(file["upload_id"])
        assert upload.original.read_bytes() == path.read_bytes()
        assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file["size_bytes"] == path.stat().st_size
        assert file["duration_seconds"] == pytest.approx(2.0, abs=0.1)
        assert file["report"] == json.loads(upload.report.read_text())
        info = soundfile.info(upload.wav)
        assert (info.samplerate, info.channels, info.subtype) == (22_050, 1, "PCM_16")
        assert info.duration == pytest.approx(2.0, abs=0.1)
    assert ingest.staged == sorted(file["upload_id"] for file in files)


def broken_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Bad content and the code of its problem."""
    wav = make_tone(1.0, folder / "t.wav").read_bytes()
    nan = speech(1.0)
    nan[1000] = np.nan
    return {
        "empty.mp3": (b"", "unsupported_audio"),
        "text.mp3": (b"This is only a text, whatever its name says.\n" * 50, "unsupported_audio"),
        "noise.wav": (np.random.default_rng(1).bytes(5000), "unsupported_audio"),
        "silence.wav": (
            encode_as("wav", np.zeros(44_100, np.float32), 22_050, folder / "s.wav").read_bytes(),
            "silent_recording",
        ),
        "short.wav": (make_tone(0.2, folder / "k.wav").read_bytes(), "recording_too_short"),
        "nan.wav": (write_float_wav(folder / "n.wav", nan).read_bytes(), "broken_audio"),
        "headers only.wav": (wav[:44], "broken_audio"),
    }


def test_bad_files_get_their_problem_leave_nothing_and_the_others_go_on(ingest: Service, tmp_path: Path) -> None:
    bad = broken_files(tmp_path)
    good = make_speech(1.5, "en-us", tmp_path / "good.wav").read_bytes()

    answer = ingest.upload(("first.wav", good), *((name, sent) for name, (sent, _) in bad.items()), ("last", good))

    files = answer.json()["files"]
    assert [file["name"] for file in files] == ["first.wav", *bad, "last"]
    assert {f["name"]: f["problem"]["code"] for f in files if "problem" in f} == {n: c for n, (_, c) in bad.items()}
    for file in files[1:-1]:
        assert set(file) == {"field", "name", "problem"}
        assert file["problem"]["status"] in (415, 422)
        assert file["problem"]["suggested_actions"]
        assert len(file["problem"]["detail"]) > 20
    assert ingest.staged == sorted([files[0]["upload_id"], files[-1]["upload_id"]])


def test_a_cut_mp3_is_taken_with_a_warning(ingest: Service, tmp_path: Path) -> None:
    whole = make_speech(10.0, "en-us", tmp_path / "a.mp3").read_bytes()

    file = only_file(ingest.upload(("a.mp3", whole[: len(whole) // 3])))

    assert file["report"]["truncated"] is True
    assert [w["code"] for w in file["report"]["warnings"] if w["code"] == "truncated"] == ["truncated"]
    assert 2.0 < file["duration_seconds"] < 5.0


def test_a_header_that_claims_ten_hours_is_not_believed(ingest: Service, tmp_path: Path) -> None:
    wav = bytearray(make_tone(1.0, tmp_path / "a.wav").read_bytes())
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", 10 * 3600 * 22_050 * 2)

    file = only_file(ingest.upload(("long.wav", bytes(wav))))

    assert file["duration_seconds"] == pytest.approx(1.0, abs=0.01)
    assert "truncated" in [w["code"] for w in file["report"]["warnings"]]


def test_odd_but_whole_recordings_are_taken(ingest: Service, tmp_path: Path) -> None:
    telephone = make_speech(2.0, "en-us", tmp_path / "telephone.wav", rate=8000)
    cinema = make_tone(1.0, tmp_path / "cinema.wav", rate=96_000, channels=6)

    answer = ingest.upload(*((p.name, p.read_bytes()) for p in (telephone, cinema)))

    first, second = answer.json()["files"]
    assert (first["report"]["sample_rate"], first["report"]["channels"]) == (8000, 1)
    assert "narrow_band" in [w["code"] for w in first["report"]["warnings"]]
    assert (second["report"]["sample_rate"], second["report"]["channels"]) == (96_000, 6)


def test_a_recording_longer_than_the_limit_is_refused_and_names_it(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(UPLOAD_MAX_SECONDS=3)

    file = only_file(ingest.upload(("a.mp3", make_speech(5.0, "en-us", tmp_path / "a.mp3").read_bytes())))

    assert file["problem"]["status"] == 413
    assert file["problem"]["code"] == "recording_too_long"
    assert file["problem"]["limit_seconds"] == 3
    assert ingest.staged == []


def test_a_list_in_disguise_opens_nothing_beside_it(ingest: Service) -> None:
    disguises = [
        "ffconcat version 1.0\nfile '{secret}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{secret}</BaseURL></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\na=control:{secret}\nm=audio 5004 RTP/AVP 0\n",
        "{secret}.png\n{secret}.jpg\n",
    ]
    secret = make_speech(2.0, "en-us", ingest.paths.uploads_dir / "secret.wav")
    secret.with_suffix(".txt").write_text(SECRET)
    lists = [text.format(secret=target) for text in disguises for target in (secret, secret.with_suffix(".txt"))]

    answer = ingest.upload(*(("song.mp3", text.encode()) for text in lists))

    assert [file["problem"]["code"] for file in answer.json()["files"]] == ["unsupported_audio"] * 10
    assert SECRET not in answer.text
    assert str(secret.parent) not in answer.text
    assert ingest.staged == []
    assert ingest.everything().count(SECRET) == 1


def test_names_are_text_and_never_paths(ingest: Service, tmp_path: Path) -> None:
    names = [
        ("../../../etc/cron.d/job.wav", "../../../etc/cron.d/job.wav"),
        ("/etc/passwd", "/etc/passwd"),
        ("a\nb\rc.wav", "abc.wav"),
        ("Grüße 🎤 из Москвы.wav", "Grüße 🎤 из Москвы.wav"),
        ("x" * 300 + ".wav", "x" * 255),
        ("evil\u202egpj.wav", "evilgpj.wav"),
        ("..", ".."),
    ]
    content = make_tone(1.0, tmp_path / "a.wav").read_bytes()

    files = ingest.upload(*((sent, content) for sent, _ in names)).json()["files"]

    assert [file["name"] for file in files] == [shown for _, shown in names]
    root = ingest.paths.data_root
    made = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and ".logs" not in p.parts)
    kept = ("audio.wav", "original", "report.json", "upload.json")
    assert made == sorted(f"uploads/.staging/{file['upload_id']}/{name}" for file in files for name in kept)


def test_a_form_without_files_gives_its_fields(ingest: Service) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="exp_name"\r\n\r\nanna\r\n--b--\r\n'

    with ingest.client() as client:
        answer = client.post("/uploads", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert answer.json() == {"fields": {"exp_name": "anna"}, "files": []}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b"nothing of the kind"),
        ("multipart/form-data; boundary=b", CUT),
    ],
)
def test_what_is_no_form_is_a_problem(ingest: Service, kind: str, body: bytes) -> None:
    with ingest.client() as client:
        answer = client.post("/uploads", content=body, headers={"Content-Type": kind})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["suggested_actions"]
    assert ingest.staged == []


def test_too_many_files_refuse_the_request_and_leave_nothing(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(UPLOAD_COUNT_LIMIT=3)
    content = make_tone(1.0, tmp_path / "a.wav").read_bytes()

    answer = ingest.upload(*((f"{n}.wav", content) for n in range(4)))

    assert answer.status_code == 413
    assert answer.json()["code"] == "too_many_files"
    assert answer.json()["limit"] == 3
    assert ingest.staged == []


def test_a_file_over_the_limit_is_refused_and_the_others_go_on(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(UPLOAD_FILE_LIMIT="200kB")
    good = make_tone(1.0, tmp_path / "a.wav").read_bytes()
    large = make_tone(10.0, tmp_path / "b.wav").read_bytes()

    answer = ingest.upload(("a.wav", good), ("b.wav", large), ("c.wav", good))

    first, second, third = answer.json()["files"]
    assert second["problem"]["status"] == 413
    assert second["problem"]["limit_bytes"] == 200_000
    assert "b.wav" in second["problem"]["detail"]
    assert ingest.staged == sorted([first["upload_id"], third["upload_id"]])


def test_a_dropped_upload_is_gone_and_may_be_dropped_again(ingest: Service, tmp_path: Path) -> None:
    upload = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"]

    with ingest.client() as client:
        answers = [client.delete(f"/uploads/{upload}").status_code for _ in range(2)]
        other = client.delete("/uploads/..%2f..%2fdata")

    assert answers == [204, 204]
    assert other.status_code in (204, 404)
    assert ingest.staged == []


def test_without_the_service_token_nothing_is_answered(ingest: Service) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = httpx.post(f"{ingest.url}/uploads", content=b"x" * 1000, headers=headers)

        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
    assert httpx.get(f"{ingest.url}/livez", timeout=PATIENCE).status_code == 200
    assert httpx.delete(f"{ingest.url}/uploads/upl_1", headers=HEADERS).status_code == 204
