"""What becomes of staged uploads? They move into datasets, once and for all, and can be read, listed and removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from libs.common.paths import sample_key
from libs.common.settings import CommonSettings
from libs.common.storage import FolderStorage, open_storage
from tests.factories_audio import make_speech, make_tone
from tests.integration.ingest.conftest import Service, StartIngest
from tests.waiting import PATIENCE, wait_until

UNKNOWN = "0" * 64


@pytest.fixture
def client(ingest: Service) -> Iterator[httpx.Client]:
    client = ingest.client()
    yield client
    client.close()


def claim(client: httpx.Client, dataset: str, *uploads: str) -> httpx.Response:
    return client.post(f"/datasets/{dataset}/files", json={"upload_ids": list(uploads)})


def files_of(ingest: Service, dataset: str) -> list[str]:
    folder = ingest.paths.uploads(dataset).folder
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_claimed_uploads_lie_in_the_dataset_by_checksum(ingest: Service, client: httpx.Client, tmp_path: Path) -> None:
    one = ingest.stage(make_speech(2.0, "en-us", tmp_path / "one.mp3"))
    two = ingest.stage(make_tone(1.0, tmp_path / "two.flac"))

    answer = claim(client, "anna", one["upload_id"], two["upload_id"])

    assert answer.json() == {
        "files": [{key: file[key] for key in ("upload_id", "sha256", "extension")} for file in (one, two)]
    }
    expected = [
        name
        for file in (one, two)
        for name in (
            f"{file['sha256']}.{file['extension']}",
            f"wavs/{file['sha256']}.wav",
            f"reports/{file['sha256']}.json",
        )
    ]
    assert files_of(ingest, "anna") == sorted(expected)
    original = ingest.paths.uploads("anna").original(one["sha256"], "mp3")
    assert original.read_bytes() == (tmp_path / "one.mp3").read_bytes()


def test_the_same_file_twice_is_one_file(ingest: Service, client: httpx.Client, tmp_path: Path) -> None:
    recording = make_tone(1.0, tmp_path / "a.wav")
    uploads = [ingest.stage(recording)["upload_id"] for _ in range(3)]

    first = claim(client, "anna", uploads[0], uploads[1])
    second = claim(client, "anna", uploads[2])

    assert (first.status_code, second.status_code) == (200, 200)
    assert len(files_of(ingest, "anna")) == 3


def test_a_claim_may_be_repeated(ingest: Service, client: httpx.Client, tmp_path: Path) -> None:
    upload = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"]

    answers = [claim(client, "anna", upload) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].json() == answers[2].json()
    assert len(files_of(ingest, "anna")) == 3


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_a_claim_that_was_cut_short_is_finished_by_its_repetition(
    ingest: Service, client: httpx.Client, tmp_path: Path, moved: int
) -> None:
    file = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))
    upload, dataset = ingest.paths.staged_upload(file["upload_id"]), ingest.paths.uploads("anna")
    dataset.wavs.mkdir(parents=True)
    dataset.reports.mkdir()
    moves = [
        (upload.wav, dataset.wav(file["sha256"])),
        (upload.report, dataset.report(file["sha256"])),
        (upload.original, dataset.original(file["sha256"], "wav")),
    ]
    for source, target in moves[:moved]:
        source.rename(target)

    answer = claim(client, "anna", file["upload_id"])

    assert answer.status_code == 200
    assert all(target.is_file() for _, target in moves)


def test_an_unknown_upload_moves_nothing(ingest: Service, client: httpx.Client, tmp_path: Path) -> None:
    good = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"]

    for unknown in ("upl_unknown", "../../etc", "", "x" * 500):
        answer = claim(client, "anna", good, unknown)

        assert answer.status_code == 404
        assert answer.json()["code"] == "voice_sample_not_found"
    assert not ingest.paths.uploads("anna").folder.exists()
    assert ingest.paths.staged_upload(good).original.is_file()


def test_an_upload_that_another_dataset_took_is_not_there(
    ingest: Service, client: httpx.Client, tmp_path: Path
) -> None:
    upload = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"]
    claim(client, "anna", upload)

    assert claim(client, "berta", upload).status_code == 404


@pytest.mark.parametrize("dataset", ["uploads", "Anna", "..%2Fx", ".staging", "a" * 65])
def test_a_dataset_without_a_proper_key_is_refused(
    ingest: Service, client: httpx.Client, tmp_path: Path, dataset: str
) -> None:
    upload = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"]

    answers = [
        claim(client, dataset, upload),
        client.delete(f"/datasets/{dataset}"),
        client.put(f"/datasets/{dataset}/metadata", content=b""),
        client.get(f"/datasets/{dataset}/files/{UNKNOWN}/audio"),
    ]

    assert {answer.status_code for answer in answers} <= {404, 422}
    assert ingest.staged == [upload]


def test_sound_is_given_as_it_was_sent_and_as_wav(ingest: Service, client: httpx.Client, tmp_path: Path) -> None:
    recording = make_speech(2.0, "en-us", tmp_path / "a.mp3")
    file = ingest.stage(recording)
    claim(client, "anna", file["upload_id"])
    url = f"/datasets/anna/files/{file['sha256']}/audio"

    original, wav = client.get(url), client.get(url, params={"form": "wav"})
    part = client.get(url, headers={"Range": "bytes=100-199"})

    assert original.content == recording.read_bytes()
    assert original.headers["content-type"] == "audio/mpeg"
    assert wav.content[:4] == b"RIFF"
    assert wav.headers["content-type"] == "audio/wav"
    assert (part.status_code, part.content) == (206, recording.read_bytes()[100:200])
    assert client.get(url, params={"form": "ogg"}).status_code == 422


def test_sound_that_is_not_there_is_a_problem(client: httpx.Client) -> None:
    answer = client.get(f"/datasets/anna/files/{UNKNOWN}/audio")

    assert answer.status_code == 404
    assert answer.json()["code"] == "voice_sample_not_found"
    assert client.get("/datasets/anna/files/nothash/audio").status_code == 422


def test_a_removed_recording_is_gone_and_may_be_removed_again(
    ingest: Service, client: httpx.Client, tmp_path: Path
) -> None:
    keep, drop = (ingest.stage(make_tone(1.0, tmp_path / f"{hz}.wav", hz=hz)) for hz in (200, 300))
    claim(client, "anna", keep["upload_id"], drop["upload_id"])

    answers = [client.delete(f"/datasets/anna/files/{drop['sha256']}").status_code for _ in range(2)]

    assert answers == [204, 204]
    assert [name for name in files_of(ingest, "anna") if drop["sha256"] in name] == []
    assert len(files_of(ingest, "anna")) == 3


def test_a_removed_dataset_is_gone_and_may_be_removed_again(
    ingest: Service, client: httpx.Client, tmp_path: Path
) -> None:
    claim(client, "anna", ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"])

    answers = [client.delete("/datasets/anna").status_code for _ in range(2)]

    assert answers == [204, 204]
    assert not ingest.paths.uploads("anna").folder.exists()
    assert [name for name in ingest.staged if name.startswith(".new-")] == []


def test_metadata_is_replaced_whole(start_ingest: StartIngest) -> None:
    ingest = start_ingest(METADATA_LIMIT=1000)
    with ingest.client() as client:
        first = client.put("/datasets/anna/metadata", content="a|Grüße|Grüße\n".encode())
        refused = [
            client.put("/datasets/anna/metadata", content=content)
            for content in (b"a|b\n", b"\xff|a|b\n", b"a|b|c\n" * 200)
        ]

    assert first.status_code == 204
    assert [answer.status_code for answer in refused] == [422, 422, 413]
    assert ingest.paths.uploads("anna").metadata.read_text() == "a|Grüße|Grüße\n"
    assert files_of(ingest, "anna") == ["metadata.csv"]


# -- the object store -------------------------------------------------------------------------------------------------


def test_originals_are_copied_to_the_object_store_and_removed_with_it(
    start_ingest: StartIngest, settings: CommonSettings, tmp_path: Path
) -> None:
    ingest, storage, bucket = start_ingest(), open_storage(settings), settings.voice_samples_bucket
    files = [ingest.stage(make_tone(1.0, tmp_path / f"{hz}.wav", hz=hz)) for hz in (200, 300, 400)]
    keys = [sample_key("anna", file["sha256"], file["extension"]) for file in files]

    with ingest.client() as client:
        claim(client, "anna", *(file["upload_id"] for file in files))
        wait_until(lambda: storage.list(bucket) == sorted(keys))
        stored = b"".join(storage.read(bucket, keys[0]))
        client.delete(f"/datasets/anna/files/{files[0]['sha256']}")
        after_one = storage.list(bucket)
        client.delete("/datasets/anna")

    assert stored == (tmp_path / "200.wav").read_bytes()
    assert after_one == sorted(keys[1:])
    assert storage.list(bucket) == []


def test_a_copy_that_the_store_never_takes_holds_no_other_up(
    start_ingest: StartIngest, settings: CommonSettings, tmp_path: Path
) -> None:
    ingest, storage, bucket = start_ingest(), open_storage(settings), settings.voice_samples_bucket
    refused, taken = (ingest.stage(make_tone(1.0, tmp_path / f"{hz}.wav", hz=hz)) for hz in (200, 300))
    in_the_way = tmp_path / "in-the-way"
    in_the_way.write_text("the dataset's folder cannot be made where a file is")
    storage.put_file(bucket, "ben", in_the_way)

    with ingest.client() as client:
        claim(client, "ben", refused["upload_id"])
        claim(client, "anna", taken["upload_id"])

        key = sample_key("anna", taken["sha256"], taken["extension"])
        wait_until(lambda: key in storage.list(bucket))

    assert storage.list(bucket, "anna") == [key]
    assert b"".join(storage.read(bucket, key)) == (tmp_path / "300.wav").read_bytes()


def test_an_upload_does_not_need_the_object_store(start_ingest: StartIngest, tmp_path: Path) -> None:
    # The store's root cannot be a folder while a file has its name.
    root = tmp_path / "objects"
    root.write_text("in the way")
    ingest = start_ingest(STORAGE_URL=root.as_uri())
    file = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))

    with ingest.client() as client:
        answer = claim(client, "anna", file["upload_id"])
        ready = client.get("/readyz")
        root.unlink()
        storage = FolderStorage(root)
        wait_until(lambda: len(storage.list("voice-samples")) == 1)

    assert answer.status_code == 200
    assert ready.status_code == 503
    assert [check["name"] for check in ready.json()["checks"] if not check["ok"]] == ["storage"]


def test_readiness_names_what_is_missing(start_ingest: StartIngest) -> None:
    ingest = start_ingest()
    ingest.wait_until_ready()
    shutil.rmtree(ingest.paths.uploads_dir)
    ingest.paths.uploads_dir.write_text("in the way")

    answer = httpx.get(f"{ingest.url}/readyz", timeout=PATIENCE)

    assert answer.status_code == 503
    assert {check["name"]: check["ok"] for check in answer.json()["checks"]} == {
        "broker": True,
        "uploads": False,
        "storage": True,
    }


def test_without_a_broker_files_come_in_and_readiness_says_so(ingest: Service, tmp_path: Path) -> None:
    ingest.stage(make_tone(1.0, tmp_path / "a.wav"))

    answer = httpx.get(f"{ingest.url}/health", timeout=PATIENCE)

    assert answer.status_code == 503
    assert [check["name"] for check in answer.json()["checks"] if not check["ok"]] == ["broker"]
