"""Do recordings become samples of a dataset, whatever they and it are called, and whatever breaks in between?"""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from sqlalchemy import select

from services.gateway.accounts.tables import Role
from services.gateway.audit.tables import AuditEntry
from tests.integration.gateway.conftest import House
from tests.integration.gateway.ingest_double import sound


async def test_an_upload_makes_its_dataset_and_ready_samples(house: House) -> None:
    anna = await house.person()

    made = await anna.upload("Anna, warm", "one", "two")
    listed = (await anna.get("/samples", params={"dataset_id": "anna-warm"})).json()
    dataset = (await anna.get(f"/datasets/{made['dataset']['id']}")).json()

    assert made["dataset"]["slug"] == "anna-warm"
    assert made["dataset"]["renamed"] is False
    assert made["rejected"] == []
    assert [sample["status"] for sample in made["samples"]] == ["ready", "ready"]
    assert [sample["id"] for sample in listed["items"]] == [sample["id"] for sample in made["samples"]]
    assert dataset["item_count"] == 2
    assert dataset["duration_seconds"] == 25.0
    assert dataset["type"] == "audio"
    assert dataset["status"] == "active"
    assert house.ingest.staged == {}
    assert len(house.ingest.files) == 2


@pytest.mark.parametrize("field", ["dataset_name", "exp_name", "dataset_id"])
async def test_the_dataset_may_be_named_by_each_field_in_form_or_query(sqlite_house: House, field: str) -> None:
    anna = await sqlite_house.person()
    await anna.post("/datasets", json={"name": "test"})
    one, two = {"files": ("a.wav", sound("a"))}, {"files": ("b.wav", sound("b"))}

    in_form = await anna.post("/samples", data={field: "test"}, files=one)
    in_query = await anna.post("/samples", params={field: "test"}, files=two)

    assert in_form.status_code == in_query.status_code == 201
    assert in_form.json()["dataset"]["id"] == in_query.json()["dataset"]["id"]


async def test_an_upload_without_a_dataset_says_which_field_is_missing(sqlite_house: House) -> None:
    anna = await sqlite_house.person()

    answer = await anna.post("/samples", files={"files": ("a.wav", sound("a"))})

    assert answer.status_code == 422
    assert answer.json()["field"] == "dataset_name"
    assert sqlite_house.ingest.staged == {}


async def test_the_same_file_twice_is_one_sample(house: House) -> None:
    anna = await house.person()
    first = await anna.upload("test", "one")

    again = await anna.upload("test", "one", "two")
    at_once = await anna.upload("other", "three", "three")

    assert again["samples"][0]["id"] == first["samples"][0]["id"]
    assert [sample["duplicate"] for sample in again["samples"]] == [True, False]
    assert len(at_once["samples"]) == 1
    assert house.ingest.staged == {}


async def test_refused_files_are_named_and_the_others_are_kept(house: House) -> None:
    anna = await house.person()
    files = [("files", ("a.wav", sound("a"))), ("files", ("notes.mp3", b"hello"))]

    answer = await anna.post("/samples", data={"exp_name": "test"}, files=files)

    assert answer.status_code == 201
    assert [sample["name"] for sample in answer.json()["samples"]] == ["a.wav"]
    rejected = answer.json()["rejected"]
    assert rejected[0]["name"] == "notes.mp3"
    assert rejected[0]["problem"]["status"] == 415


async def test_a_single_refused_file_is_the_answer_and_makes_no_dataset(house: House) -> None:
    anna = await house.person()

    one = await anna.post("/samples", data={"exp_name": "test"}, files={"files": ("notes.mp3", b"hello")})
    two = [("files", ("a.mp3", b"hello")), ("files", ("b.mp3", b"hello"))]
    both = await anna.post("/samples", data={"exp_name": "test"}, files=two)
    none = await anna.post("/samples", data={"exp_name": "test"}, files={"x": (None, "y")})

    assert one.status_code == 415
    assert one.json()["code"] == "unsupported_audio"
    assert both.status_code == 422
    assert len(both.json()["rejected"]) == 2
    assert none.status_code == 422
    assert none.json()["field"] == "files"
    assert (await anna.get("/datasets")).json()["items"] == []


async def test_a_body_that_is_no_form_is_refused(sqlite_house: House) -> None:
    anna = await sqlite_house.person()

    answer = await anna.post("/samples", json={"files": []})

    assert answer.status_code == 422
    assert "multipart" in answer.json()["detail"]


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc/passwd", "a/b", "with spaces  inside", "Größe 声音 🎤", "x" * 200, "-", "uploads", "models", "Ω"],
)
async def test_any_name_of_up_to_200_characters_is_a_datasets_name(house: House, name: str) -> None:
    anna = await house.person()

    made = await anna.upload(name, "one")
    again = await anna.upload(name, "two")

    slug = made["dataset"]["slug"]
    assert made["dataset"]["name"] == name
    assert slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(slug) <= 64
    assert slug not in ("uploads", "models")
    assert made["dataset"]["renamed"] is (name in ("uploads", "models"))
    assert again["dataset"]["id"] == made["dataset"]["id"]


@pytest.mark.parametrize("name", ["x" * 201, "x" * 300])
async def test_a_longer_name_is_refused_and_the_limit_is_named(sqlite_house: House, name: str) -> None:
    anna = await sqlite_house.person()

    made = await anna.post("/datasets", json={"name": name})
    uploaded = await anna.post("/samples", data={"dataset_name": name}, files={"files": ("a.wav", sound("a"))})

    assert made.status_code == uploaded.status_code == 422
    assert "200" in made.json()["detail"]
    assert "200" in uploaded.json()["detail"]


@pytest.mark.parametrize("name", ["", "   ", "nul\0", "line\nbreak"])
async def test_a_name_that_cannot_be_seen_is_refused(house: House, name: str) -> None:
    anna = await house.person()

    answer = await anna.post("/datasets", json={"name": name})

    assert answer.status_code == 422


async def test_a_file_may_have_any_name(house: House) -> None:
    anna = await house.person()
    names = ["../../../etc/passwd.wav", "a b.wav", "声.wav", "n" * 300 + ".wav"]
    files = [("files", (name, sound(name))) for name in names]

    answer = await anna.post("/samples", data={"exp_name": "test"}, files=files)

    assert answer.status_code == 201
    assert [sample["name"] for sample in answer.json()["samples"]] == [name[:255] for name in names]


async def test_two_people_with_one_name_get_two_slugs_and_neither_hears_of_the_other(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    first = await anna.upload("test", "one")

    second = await ben.upload("test", "one")
    third = await ben.upload("test", "two")

    assert first["dataset"]["slug"] == "test"
    assert first["dataset"]["renamed"] is False
    assert second["dataset"]["slug"].startswith("test-")
    assert second["dataset"]["renamed"] is True
    assert second["dataset"]["name"] == "test"
    assert third["dataset"]["id"] == second["dataset"]["id"]
    assert second["samples"][0]["duplicate"] is False


async def test_a_strangers_things_do_not_exist(house: House) -> None:
    anna, ben, admin = await house.person("anna"), await house.person("ben"), await house.person("root", Role.admin)
    made = await anna.upload("test", "one")
    dataset, sample = made["dataset"]["id"], made["samples"][0]["id"]

    answers = [
        await ben.get(f"/datasets/{dataset}"),
        await ben.get("/datasets/test"),
        await ben.patch(f"/datasets/{dataset}", json={"name": "mine"}),
        await ben.delete(f"/datasets/{dataset}"),
        await ben.get(f"/datasets/{dataset}/metadata.csv"),
        await ben.get("/samples", params={"dataset_id": dataset}),
        await ben.get(f"/samples/{sample}"),
        await ben.get(f"/samples/{sample}/audio"),
        await ben.get(f"/samples/{sample}/report"),
        await ben.delete(f"/samples/{sample}"),
        await ben.post("/samples", data={"dataset_id": dataset}, files={"files": ("a.wav", sound("a"))}),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (await ben.get("/datasets")).json()["items"] == []
    assert (await ben.get("/samples")).json()["items"] == []
    assert (await admin.get(f"/datasets/{dataset}")).status_code == 200
    assert (await admin.get(f"/samples/{sample}")).status_code == 200
    assert house.ingest.staged == {}


async def test_lists_are_read_page_by_page_without_gap_or_doubling(house: House) -> None:
    anna = await house.person()
    await anna.upload("first", *(str(n) for n in range(5)))
    for n in range(4):
        await anna.post("/datasets", json={"name": f"d{n}"})

    async def all_ids(path: str) -> list[str]:
        found, cursor = [], None
        for _ in range(10):
            answer = (await anna.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            found += [item["id"] for item in answer["items"]]
            cursor = answer["next_cursor"]
            if cursor is None:
                return found
        raise AssertionError("endless")

    samples, datasets = await all_ids("/samples"), await all_ids("/datasets")

    assert len(samples) == len(set(samples)) == 5
    assert samples == sorted(samples)
    assert len(datasets) == len(set(datasets)) == 5
    assert datasets == sorted(datasets, reverse=True)


async def test_a_dataset_is_renamed_only_as_it_was_read(house: House) -> None:
    anna = await house.person()
    made = await anna.post("/datasets", json={"name": "test"})
    tag = made.headers["etag"]

    first = await anna.patch("/datasets/test", json={"name": "other"}, headers={"If-Match": tag})
    second = await anna.patch("/datasets/test", json={"name": "third"}, headers={"If-Match": tag})
    without = await anna.patch("/datasets/test", json={"description": "more"})

    assert first.status_code == 200
    assert first.json()["name"] == "other"
    assert first.json()["slug"] == "test"
    assert first.headers["etag"] != tag
    assert second.status_code == 412
    assert second.json()["code"] == "precondition_failed"
    assert without.status_code == 200
    assert without.json()["name"] == "other"


async def test_sound_report_and_metadata_are_read_back(house: House) -> None:
    anna = await house.person()
    data = sound("one")
    answer = await anna.post(
        "/samples",
        data={"exp_name": "test", "transcript": "Guten Morgen | allerseits\nzusammen"},
        files={"files": ("one.wav", data)},
    )
    sample = answer.json()["samples"][0]
    sha256 = hashlib.sha256(data).hexdigest()

    audio = await anna.get(f"/samples/{sample['id']}/audio")
    wav = await anna.get(f"/samples/{sample['id']}/audio", params={"form": "wav"})
    report = await anna.get(f"/samples/{sample['id']}/report")
    csv = await anna.get("/datasets/test/metadata.csv")
    laid_beside = house.ingest.metadata["test"]

    assert audio.content == data + b"original"
    assert audio.headers["content-type"] == "audio/wav"
    assert wav.content == data + b"wav"
    assert report.json()["peak"] == 0.5
    assert laid_beside == csv.text
    assert csv.text == f"{sha256}|Guten Morgen allerseits zusammen|Guten Morgen allerseits zusammen\n"


async def test_a_transcript_is_for_one_file_and_can_be_corrected(house: House) -> None:
    anna = await house.person()
    two = [("files", ("a.wav", sound("a"))), ("files", ("b.wav", sound("b")))]
    refused = await anna.post("/samples", data={"exp_name": "test", "transcript": "Hello."}, files=two)
    sample = (await anna.upload("test", "a"))["samples"][0]

    changed = await anna.patch(f"/samples/{sample['id']}", json={"transcript": "Hello."})

    assert refused.status_code == 422
    assert refused.json()["field"] == "transcript"
    assert changed.json()["transcript"] == "Hello."
    assert changed.json()["version"] == 2


async def test_deleting_takes_files_and_rows_and_keeps_the_slug_taken(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    made = await anna.upload("test", "one", "two")
    sample = made["samples"][0]["id"]

    one = await anna.delete(f"/samples/{sample}")
    left = dict(house.ingest.files)
    whole = await anna.delete("/datasets/test")
    taken = await ben.upload("test", "three")

    assert one.status_code == whole.status_code == 204
    assert len(left) == 1
    assert [key[0] for key in house.ingest.files] == [taken["dataset"]["slug"]]
    assert (await anna.get(f"/samples/{sample}")).status_code == 404
    assert (await anna.get("/datasets/test")).status_code == 404
    assert taken["dataset"]["slug"] != "test"
    async with house.database.read() as session:
        actions = list(await session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))
    assert "sample.deleted" in actions
    assert "dataset.deleted" in actions


async def test_many_uploads_at_once_into_one_new_dataset_make_one_dataset(house: House) -> None:
    anna = await house.person()

    made = await asyncio.gather(*(anna.upload("crowd", f"s{n}", "shared") for n in range(8)))

    assert len({answer["dataset"]["id"] for answer in made}) == 1
    listed = (await anna.get("/samples")).json()["items"]
    assert len(listed) == 9
    assert len({sample["sha256"] for sample in listed}) == 9
    assert house.ingest.staged == {}


async def test_a_viewer_may_look_and_not_upload(sqlite_house: House) -> None:
    viewer = await sqlite_house.person("vera", Role.viewer)

    refused = await viewer.post("/samples", data={"exp_name": "t"}, files={"files": ("a.wav", sound("a"))})

    assert refused.status_code == 403
    assert (await viewer.get("/datasets")).status_code == 200
