"""Do jobs say many texts, and does each get what it deserves? Real processes and a real broker; what speaks is a
stand-in with the true protocol.
"""

from __future__ import annotations

import io
import json
import signal
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from services.gateway.voices import registry
from tests.integration.conversions.conftest import Person, Studio
from tests.integration.conversions.test_terminal import _voicewright
from tests.integration.gateway.voices_made import SPEAKING_CARD
from tests.integration.inference.speaking_voices import publish_speaking
from tests.unit import voice as unit_voice
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)
CHILD = Path(unit_voice.__path__[0]) / "speaking_child.py"
Speaks = Callable[..., Awaitable[None]]


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """What XTTS_PYTHON names: it speaks without the library, whatever it is asked to run."""
    script = tmp_path / "python-that-speaks"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{CHILD}"\n')
    script.chmod(0o755)
    return script


async def _speaking(studio: Studio, owner: Person, interpreter: Path, *slugs: str, mode: str = "") -> None:
    """Voices that speak, and an inference that can."""
    for slug in slugs:
        sha256 = publish_speaking(studio.here.paths, interpreter.parent / slug, slug)
        async with studio.database.write() as session:
            await registry.publish(
                session,
                owner_id=owner.id,
                job_id="job_1",
                slug=slug,
                name=slug,
                card=SPEAKING_CARD,
                weights_sha256=sha256,
            )
    await studio.restart("inference", signal.SIGTERM, XTTS_PYTHON=interpreter, SPEAKING_CHILD=mode)


async def _start(person: Person, *texts: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await person.post("/synthesize/jobs", json={"voice": "linda", "texts": list(texts)} | more)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def _until(person: Person, job_id: str, *statuses: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def is_so() -> bool:
        nonlocal found
        found = (await person.get(f"/synthesize/jobs/{job_id}")).json()
        return found["status"] in statuses

    await until(is_so)
    return found


async def _over(person: Person, job_id: str) -> dict[str, Any]:
    return await _until(person, job_id, "completed", "failed", "cancelled")


def _records(studio: Studio, job_id: str) -> list[dict[str, Any]]:
    folder = studio.here.paths.experiment(".jobs").step(job_id, "say").folder
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob(".attempt-*/records/*.json"))]


async def test_texts_become_sounds_and_one_that_cannot_be_said_fails_alone(studio: Studio, interpreter: Path) -> None:
    anna = await studio.person()
    await _speaking(studio, anna, interpreter, "linda", "emma")

    job = await _start(
        anna,
        {"text": "Good morning, it is me.", "name": "Dr. Who"},
        {"text": "There is endless talk.", "name": "b"},
        {"text": "Guten Tag, ich bin es.", "voice": "emma", "language": "de", "name": "Dr. Who"},
        {"text": "שלום", "name": "hebrew"},
        {"text": "🙂", "name": "emoji"},
        format="flac",
    )
    done = await _over(anna, job["id"])
    address = f"/synthesize/jobs/{job['id']}"
    results = (await anna.get(f"{address}/results")).json()
    archive = await anna.get(f"{address}/result")
    third = await anna.get(f"{address}/results/3")
    part = await anna.get(f"{address}/results/3", headers={"Range": "bytes=0-3"})
    none = await anna.get(f"{address}/results/2")

    assert done["status"] == "completed", done
    numbers = {name: done["summary"][name] for name in ("texts", "said", "failed", "is_partial")}
    assert numbers == {"texts": 5, "said": 2, "failed": 3, "is_partial": True}
    states = [(file["state"], (file["problem"] or {}).get("code")) for file in results["files"]]
    assert states == [
        ("said", None),
        ("failed", "synthesis_failed"),
        ("said", None),
        ("failed", "invalid_input"),
        ("failed", "invalid_input"),
    ]
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.namelist() == ["Dr. Who.flac", "Dr. Who (2).flac"]
        assert opened.testzip() is None
        assert opened.read("Dr. Who (2).flac") == third.content
    wave, rate = soundfile.read(io.BytesIO(third.content))
    assert (rate, third.headers["content-type"]) == (24_000, "audio/flac")
    assert len(wave) / rate == pytest.approx(results["files"][2]["seconds"], abs=0.01)
    assert (part.status_code, part.content) == (206, b"fLaC")
    assert none.status_code == 404


async def test_a_killed_worker_repeats_no_text_that_was_finished(studio: Studio, interpreter: Path) -> None:
    anna = await studio.person()
    await _speaking(studio, anna, interpreter, "linda")

    job = await _start(anna, {"text": "This one is quick."}, {"text": "This one is slow."}, {"text": "The last one."})
    await until(lambda: len(_records(studio, job["id"])) == 1)
    (first,) = _records(studio, job["id"])
    sound = studio.here.paths.in_data(first["sound"])
    before = sound.stat().st_ino
    await studio.restart("inference", signal.SIGKILL, XTTS_PYTHON=interpreter, SPEAKING_CHILD="brisk")
    done = await _over(anna, job["id"])

    assert done["status"] == "completed", done
    assert done["summary"]["said"] == 3
    kept = next(record for record in _records(studio, job["id"])[::-1] if record["number"] == 1)
    assert kept["sound"] != first["sound"]
    assert studio.here.paths.in_data(kept["sound"]).stat().st_ino == before
    assert (kept["sha256"], kept["compute_seconds"]) == (first["sha256"], first["compute_seconds"])


async def test_a_job_that_is_cancelled_ends_in_the_middle_of_a_text_and_goes_on_later(
    studio: Studio, interpreter: Path
) -> None:
    anna = await studio.person()
    await _speaking(studio, anna, interpreter, "linda")
    job = await _start(anna, {"text": "This one is quick."}, {"text": "This one is slow."})
    address = f"/synthesize/jobs/{job['id']}"
    await until(lambda: len(_records(studio, job["id"])) == 1)

    await anna.post(f"{address}/cancel")
    cancelled = await _over(anna, job["id"])
    left = (await anna.get(f"{address}/results")).json()
    heard = await anna.post("/synthesize", json={"text": "Somebody else.", "voice": "linda"})
    await studio.restart("inference", signal.SIGTERM, XTTS_PYTHON=interpreter, SPEAKING_CHILD="brisk")
    again = await anna.post(f"{address}/retry")
    done = await _over(anna, job["id"])

    assert cancelled["status"] == "cancelled"
    assert [file["state"] for file in left["files"]] == ["left", "left"]
    assert heard.status_code == 200
    assert (again.status_code, done["status"], done["summary"]["said"]) == (202, "completed", 2)
    attempts = [record["attempt"] for record in _records(studio, job["id"])]
    assert attempts.count(2) == 1  # the second text; the first was taken over


async def test_a_voice_that_is_deleted_while_a_job_speaks_fails_its_texts_alone(
    studio: Studio, interpreter: Path
) -> None:
    anna = await studio.person()
    await _speaking(studio, anna, interpreter, "linda", "emma")
    job = await _start(
        anna,
        {"text": "This one is slow.", "name": "slow"},
        {"text": "I am Emma.", "voice": "emma", "name": "emma"},
        {"text": "I am Linda.", "name": "linda"},
    )
    await _until(anna, job["id"], "running")

    deleted = await anna.delete("/models/emma")
    await studio.restart("inference", signal.SIGKILL, XTTS_PYTHON=interpreter, SPEAKING_CHILD="brisk")
    done = await _over(anna, job["id"])
    results = (await anna.get(f"/synthesize/jobs/{job['id']}/results")).json()

    assert deleted.status_code == 204
    assert (done["status"], done["summary"]["failed"]) == ("completed", 1)
    told = {file["name"]: (file["problem"] or {}).get("status") for file in results["files"]}
    assert told == {"slow": None, "emma": 404, "linda": None}


@pytest.mark.slow
async def test_texts_of_a_job_go_through_a_voice_that_converts(studio: Studio, interpreter: Path) -> None:
    anna = await studio.person()
    await studio.voice(anna, "warm")
    await _speaking(studio, anna, interpreter, "linda")

    plain, through = [
        await _start(anna, {"text": "Hello there, it is me."}, **more)
        for more in ({}, {"through": "warm", "pitch_shift": 2})
    ]
    done = [await _over(anna, job["id"]) for job in (plain, through)]
    (first,), (second,) = [
        (await anna.get(f"/synthesize/jobs/{job['id']}/results")).json()["files"] for job in (plain, through)
    ]

    assert [job["status"] for job in done] == ["completed", "completed"], done
    assert first["sample_rate"] == 24_000 != second["sample_rate"]
    assert first["seconds"] == pytest.approx(second["seconds"], abs=0.15)


async def test_without_the_library_a_job_fails_and_says_how_to_get_it(studio: Studio, interpreter: Path) -> None:
    anna = await studio.person()
    await _speaking(studio, anna, interpreter, "linda", mode="missing")

    job = await _start(anna, {"text": "Good morning."})
    done = await _over(anna, job["id"])

    assert (done["status"], done["error"]["code"]) == ("failed", "provider_unavailable")
    assert "install-xtts" in done["error"]["suggested_actions"][0]


async def test_a_deleted_job_leaves_nothing(studio: Studio, interpreter: Path) -> None:
    anna = await studio.person()
    await _speaking(studio, anna, interpreter, "linda")
    job = await _start(anna, {"text": "Good morning."})
    await _over(anna, job["id"])
    folder = studio.here.paths.experiment(".jobs").steps / job["id"]
    was_there = folder.exists()

    async def is_deleted() -> bool:
        return (await anna.delete(f"/synthesize/jobs/{job['id']}")).status_code == 204

    await until(is_deleted)

    assert was_there
    assert not folder.exists()
    assert (await anna.get(f"/synthesize/jobs/{job['id']}")).status_code == 404


async def test_a_file_of_texts_is_said_from_a_terminal(studio: Studio, interpreter: Path, tmp_path: Path) -> None:
    anna = await studio.person()
    await _speaking(studio, anna, interpreter, "linda")
    texts = tmp_path / "texts.csv"
    texts.write_text("name,text\nmorning,Good morning to you.\nnight,There is endless talk.\n")

    result = await _voicewright(
        studio, anna, *("say", "--batch", str(texts), "--voice", "linda", "-o", str(tmp_path / "out"))
    )

    assert result.returncode == 7, result.stdout + result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["morning.wav"]
    assert soundfile.info(tmp_path / "out" / "morning.wav").duration > 0.5
    assert "1 of 2 texts" in result.stdout
    assert "night: The voice did not say the text" in result.stderr
