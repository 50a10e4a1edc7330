"""Do gateway and ingest understand each other? The same journeys with the real ingest, and real sound."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from libs.common.paths import Paths
from services.ingest.app import create_app as create_ingest
from services.ingest.settings import IngestSettings
from tests.conftest import TOKEN
from tests.factories_audio import make_tone
from tests.integration.gateway.conftest import House, Person, running_house, served


@pytest.fixture
async def house(tmp_path: Path, migrated_sqlite: Path) -> AsyncIterator[House]:
    shutil.copy(migrated_sqlite, tmp_path / "gateway.db")
    settings = IngestSettings(
        service_token=TOKEN,
        data_root=tmp_path / "data",
        models_root=tmp_path / "models",
        nats_url="nats://127.0.0.1:1",
        log_files=False,
        upload_file_limit=2_000_000,
        upload_total_limit=20_000_000,
        examiners=1,
    )
    database = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    async with (
        served(create_ingest(settings)) as url,
        running_house(tmp_path, database, ingest_url=url, nats_url="nats://127.0.0.1:1") as running,
    ):
        yield running


async def _send(person: Person, *files: tuple[str, bytes], name: str = "test") -> httpx.Response:
    return await person.post("/samples", data={"exp_name": name}, files=[("files", file) for file in files], timeout=60)


async def test_recordings_go_in_and_come_back_and_go_away(house: House, tmp_path: Path) -> None:
    anna = await house.person()
    wav = make_tone(2.0, tmp_path / "a.wav")
    files = Paths(house.settings).uploads("test")

    answer = await _send(
        anna, ("a.wav", wav.read_bytes()), ("b.wav", b"no sound at all"), ("a again.wav", wav.read_bytes())
    )
    made = answer.json()
    sample = made["samples"][0]
    original = await anna.get(f"/samples/{sample['id']}/audio")
    part = await anna.get(f"/samples/{sample['id']}/audio", headers={"Range": "bytes=0-3"})
    converted = await anna.get(f"/samples/{sample['id']}/audio", params={"form": "wav"})
    report = (await anna.get(f"/samples/{sample['id']}/report")).json()
    lines = files.metadata.read_text()
    left = await anna.delete("/datasets/test")

    assert answer.status_code == 201, answer.text
    assert len(made["samples"]) == 1
    assert made["rejected"][0]["name"] == "b.wav"
    assert sample["duration_seconds"] == pytest.approx(2.0, abs=0.05)
    assert sample["extension"] == "wav"
    assert original.content == wav.read_bytes()
    assert part.status_code == 206
    assert part.content == b"RIFF"
    assert converted.content[:4] == b"RIFF"
    assert report["duration_seconds"] == pytest.approx(2.0, abs=0.05)
    assert lines == f"{sample['sha256']}||\n"
    assert left.status_code == 204
    assert not files.folder.exists()


async def test_limits_of_ingest_reach_the_client(house: House, tmp_path: Path) -> None:
    anna = await house.person()

    one = await _send(anna, ("big.wav", b"RIFF" + bytes(3_000_000)))
    whole = await _send(anna, *((f"{n}.wav", b"RIFF" + bytes(1_900_000)) for n in range(15)))

    assert one.status_code == 413
    assert one.json()["code"] == "too_large"
    assert whole.status_code == 413
    assert (await anna.get("/datasets")).json()["items"] == []


async def test_a_slug_with_a_suffix_and_strange_names_reach_the_disk(house: House, tmp_path: Path) -> None:
    anna = await house.person()
    data = make_tone(1.0, tmp_path / "a.wav").read_bytes()

    made = [
        (await _send(anna, ("../../é 声.wav", data), name=name)).json()
        for name in ("uploads", "../../etc", "Größe 声音", "x" * 200)
    ]

    for answer in made:
        slug, sample = answer["dataset"]["slug"], answer["samples"][0]
        assert Paths(house.settings).uploads(slug).original(sample["sha256"], "wav").is_file()
    folders = {path.name for path in Paths(house.settings).uploads_dir.iterdir() if not path.name.startswith(".")}
    assert folders == {answer["dataset"]["slug"] for answer in made}
