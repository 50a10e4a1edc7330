"""Do transcripts come in as LJSpeech's metadata.csv, all of them or none?"""

from __future__ import annotations

import pytest

from services.gateway.datasets.metadata import LONGEST_TEXT
from tests.integration.gateway_jobs.conftest import House, Person


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

    assert first == (200, {"changed": 2, "without_transcript": 1})
    assert again == (200, {"changed": 1, "without_transcript": 0})
    assert out.splitlines() == [
        f"{0:064x}|Mister One|Mister One",
        f"{1:064x}|Two|Two",
        f"{last}|Three|Three",
    ]
    assert await put(anna, dataset, out) == (200, {"changed": 0, "without_transcript": 0})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"0|One\n1|\xff\n", "UTF-8"),
        ("0|One\n1\n", "line 2"),
        ("0|One\n1||\n", "line 2"),
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
