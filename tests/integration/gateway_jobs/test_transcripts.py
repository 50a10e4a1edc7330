"""Do transcripts come in as LJSpeech's metadata.csv, all of them or none?"""

from __future__ import annotations

from typing import Any

import pytest

from libs.common.events import CheckSpeech
from services.gateway.datasets import transcripts
from services.gateway.datasets.transcripts import LONGEST_TEXT
from tests.integration.gateway_jobs.conftest import House, Person
from tests.integration.gateway_jobs.scripted_workers import Workers


def counted(**found: int) -> dict[str, int]:
    return {"changed": 0, "confirmed": 0, "without_transcript": 0, "by_machine": 0} | found


async def samples(person: Person, dataset: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await person.get("/samples", params={"dataset_id": dataset})).json()["items"]
    return sorted(found, key=lambda sample: str(sample["name"]))


async def put(person: Person, dataset: str, content: str | bytes) -> tuple[int, dict[str, object]]:
    answer = await person.http.put(f"/api/v1/datasets/{dataset}/metadata.csv", content=content)
    return answer.status_code, answer.json()


async def test_a_metadata_csv_gives_recordings_their_texts_and_comes_out_again(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(5.0, 6.0, 7.0))
    last = f"{2:064x}"

    first = await put(anna, dataset, "\ufeff0|Mr. One|Mister  One\r\nwavs/1.wav|Two\r\n\r\n")
    again = await put(anna, dataset, f"0|Mister One\n{last}|Three|\n")
    out = (await anna.get(f"/datasets/{dataset}/metadata.csv")).text

    assert first == (200, counted(changed=2, without_transcript=1))
    assert again == (200, counted(changed=1))
    assert out.splitlines() == [
        f"{0:064x}|Mister One|Mister One",
        f"{1:064x}|Two|Two",
        f"{last}|Three|Three",
    ]
    assert await put(anna, dataset, out) == (200, counted())


async def test_recordings_without_a_text_go_out_and_come_in_again_without_one(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    await put(anna, dataset, "0|One\n")

    out = (await anna.get(f"/datasets/{dataset}/metadata.csv")).text
    again = await put(anna, dataset, out)

    assert out.splitlines() == [f"{0:064x}|One|One", f"{1:064x}||"]
    assert again == (200, counted(without_transcript=1))


async def test_what_a_machine_wrote_is_marked_until_a_person_sends_it(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(30.0, 31.0, 32.0, 33.0, 34.0))
    texts = {sample["name"]: sample["id"] for sample in await samples(anna, dataset)}
    await put(anna, dataset, "0|Zero.\n")
    job = await house.train(anna, dataset, provider="xtts", options={"language": "en", "transcribe": True})
    await (await workers.take()).finish()
    taken = await workers.take()
    meanwhile = await anna.http.patch(f"/api/v1/samples/{texts['1.wav']}", json={"transcript": "One, by hand."})
    heard = {texts[f"{number}.wav"]: f"Heard {number}." for number in range(4)}
    await taken.finish(heard=heard)
    await (await workers.take()).fail()
    await house.wait_status(anna, job["id"], "failed")

    marked = await samples(anna, dataset)
    looked = (await anna.post(f"/datasets/{dataset}/validate?preset=xtts-v2")).json()
    log = (await anna.get(f"/training/jobs/{job['id']}/logs")).json()["items"]
    confirmed = await anna.http.patch(f"/api/v1/samples/{texts['2.wav']}", json={"transcript": "Heard 2."})
    read = (await anna.get(f"/datasets/{dataset}/metadata.csv")).text
    sent = await put(anna, dataset, read)
    after = await samples(anna, dataset)

    assert meanwhile.json()["transcript_by_machine"] is False
    assert [(sample["transcript"], sample["transcript_by_machine"]) for sample in marked] == [
        ("Zero.", False),
        ("One, by hand.", False),
        ("Heard 2.", True),
        ("Heard 3.", True),
        ("", False),
    ]
    unread = next(problem for problem in looked["problems"] if "by machine" in problem["detail"])
    assert (unread["names"], looked["can_train"]) == (["2.wav", "3.wav"], True)
    assert "metadata.csv" in unread["suggested_actions"][0]
    assert any("2 transcripts by machine" in line["message"] for line in log)
    assert (confirmed.json()["transcript"], confirmed.json()["transcript_by_machine"]) == ("Heard 2.", False)
    assert sent == (200, counted(confirmed=1, without_transcript=1))
    assert not any(sample["transcript_by_machine"] for sample in after)


async def test_a_training_is_told_which_texts_nobody_has_confirmed(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    first, second = [sample["id"] for sample in await samples(anna, dataset)]
    async with house.database.write() as session:
        await transcripts.hear(session, dataset, {first: " Heard. ", second: "x" * (LONGEST_TEXT + 1)})
    workers.work()

    job = await house.train(anna, dataset, provider="xtts", options={"language": "en"})
    await house.wait_status(anna, job["id"], "completed")

    check = next(command for command in workers.seen if isinstance(command, CheckSpeech))
    assert [(clip.transcript, clip.by_machine) for clip in check.clips] == [("Heard.", True), ("", False)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"0|One\n1|\xff\n", "UTF-8"),
        ("0|One\n1\n", "line 2"),
        ("0|One\n|Two\n", "line 2"),
        ("0|One\n0|Two\n", "second time"),
        ("0|One\nsomebody|Two\n", "'somebody'"),
        (f"0|One\n1|{'x' * (LONGEST_TEXT + 1)}\n", "10000 are the most"),
        ("0|One\n1|T\0wo\n", "line 2"),
    ],
)
async def test_a_line_that_cannot_be_taken_is_named_and_nothing_is_changed(
    house: House, content: str | bytes, said: str
) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)

    status, problem = await put(anna, dataset, content)

    assert status == 422
    assert said in str(problem["detail"])
    out = (await anna.get(f"/datasets/{dataset}/metadata.csv")).text
    assert all(line.endswith("||") for line in out.splitlines())


async def test_a_strangers_dataset_is_not_there(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    dataset = await house.dataset(anna)

    assert (await put(ben, dataset, "0|One\n"))[0] == 404
