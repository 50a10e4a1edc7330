"""Do jobs convert many recordings, and does each get what it deserves? Real processes, a real broker."""

from __future__ import annotations

import io
import json
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import soundfile

from libs.common.events import ConversionInput, ConvertRecordings
from libs.common.jobs import Lane, Step
from tests.integration.conversions.conftest import Studio
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)
Make = Callable[..., Path]


async def test_one_recording_becomes_one_sound(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)

    job = await anna.convert(recordings("speech.mp3", 2.0), format="flac", pitch_shift="3")
    done = await anna.over(job["id"])
    result = await anna.get(f"/convert/jobs/{job['id']}/result")
    part = await anna.get(f"/convert/jobs/{job['id']}/result", headers={"Range": "bytes=0-3"})

    assert (job["kind"], job["status"], job["voice"]) == ("conversion", "queued", "anna")
    assert done["status"] == "completed", done["error"]
    assert done["progress"] == 100
    assert done["summary"]["is_partial"] is False
    assert done["options"]["pitch_shift"] == 3
    wave, _ = soundfile.read(io.BytesIO(result.content))
    assert result.headers["content-type"] == "audio/flac"
    assert 'filename="speech.flac"' in result.headers["content-disposition"]
    assert len(wave) > 1000
    assert (part.status_code, part.content) == (206, b"fLaC")


async def test_a_file_that_is_no_sound_fails_alone_and_the_job_says_partial(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    text = recordings("a.wav").with_name("notes.mp3")
    text.write_text("these are words, and no sound\n" * 50)

    job = await anna.convert(recordings("b.wav", seed=1), text, recordings("../b.wav".removeprefix("../"), seed=2))
    done = await anna.over(job["id"])
    results = await anna.results(job["id"])
    archive = await anna.get(f"/convert/jobs/{job['id']}/result")

    assert done["status"] == "completed"
    assert {name: done["summary"][name] for name in ("files", "converted", "failed", "is_partial")} == {
        "files": 3,
        "converted": 2,
        "failed": 1,
        "is_partial": True,
    }, results
    assert results["is_partial"] is True
    states = {file["name"]: file["state"] for file in results["files"]}
    assert states == {"b.wav": "converted", "notes.mp3": "failed"}
    refused = next(file for file in results["files"] if file["state"] == "failed")
    assert refused["problem"]["status"] == 415
    assert refused["problem"]["detail"]
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.namelist() == ["b.wav", "b (2).wav"]
        assert opened.testzip() is None
        assert opened.read("b.wav")[:4] == b"RIFF"


async def test_when_nothing_can_be_converted_the_job_fails_with_every_reason(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    studio.running["inference"].kill()

    job = await anna.convert(recordings("short.wav", 0.5))
    for original in studio.here.paths.job_uploads(job["id"]).folder.glob("*.wav"):
        original.unlink()
    studio.start("inference")
    done = await anna.over(job["id"])
    results = await anna.results(job["id"])
    result = await anna.get(f"/convert/jobs/{job['id']}/result")

    assert done["status"] == "failed"
    assert done["error"]["code"] == "nothing_converted"
    assert "short.wav" in done["error"]["detail"]
    assert [file["state"] for file in results["files"]] == ["failed"]
    assert results["files"][0]["problem"]["code"] == "voice_sample_not_found"
    assert (result.status_code, result.json()["code"]) == (409, "no_result")


async def test_when_every_file_is_refused_there_is_no_job(studio: Studio, tmp_path: Path) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    text = tmp_path / "notes.mp3"
    text.write_text("words\n" * 50)

    answer = await anna.post(
        "/convert/jobs", data={"voice": "anna"}, files=[("files", (text.name, text.read_bytes()))] * 2
    )
    jobs = await anna.get("/convert/jobs")

    assert (answer.status_code, answer.json()["code"]) == (422, "nothing_accepted")
    assert len(answer.json()["rejected"]) == 2
    assert jobs.json()["items"] == []
    assert not any(studio.here.paths.staging.glob("upl_*"))


@pytest.mark.slow
async def test_samples_of_a_dataset_are_converted_and_stay(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    files = [("files", (f"{n}.wav", recordings(f"{n}.wav", seed=n).read_bytes())) for n in range(2)]
    uploaded = (await anna.post("/samples", data={"dataset_name": "Talks"}, files=files)).json()
    one = uploaded["samples"][0]["id"]

    whole = await anna.convert(dataset_id=uploaded["dataset"]["id"])
    single = await anna.convert(sample_ids=one)
    whole_done, single_done = await anna.over(whole["id"]), await anna.over(single["id"])

    assert whole_done["summary"]["converted"] == 2
    assert single_done["summary"]["converted"] == 1
    assert single_done["name"] == uploaded["samples"][0]["name"]
    assert (await anna.get(f"/samples/{one}/audio")).status_code == 200


async def test_what_belongs_to_somebody_else_does_not_exist(studio: Studio, recordings: Make) -> None:
    anna, ben = await studio.person("anna"), await studio.person("ben")
    await studio.voice(anna)
    job = await anna.convert(recordings("a.wav"))
    await anna.over(job["id"])
    sample = (
        await anna.post(
            "/samples", data={"dataset_name": "x"}, files=[("files", ("x.wav", recordings("x.wav").read_bytes()))]
        )
    ).json()["samples"][0]["id"]
    address = f"/convert/jobs/{job['id']}"

    reads = [await ben.get(f"{address}{end}") for end in ("", "/events", "/logs", "/result", "/results", "/results/1")]
    changes = [await ben.post(f"{address}/cancel"), await ben.delete(address)]
    their_voice = await ben.post(
        "/convert/jobs",
        data={"voice": "anna"},
        files=[("files", ("b.wav", recordings("b.wav").read_bytes()))],
    )
    await studio.voice(ben, "bens")
    their_sample = await ben.post(
        "/convert/jobs", data={"voice": "bens", "sample_ids": sample}, files={"x": (None, b"")}
    )

    assert [answer.status_code for answer in (*reads, *changes)] == [404] * 8
    assert (their_voice.status_code, their_voice.json()["field"]) == (404, "voice")
    assert their_sample.status_code == 404
    assert (await anna.get(f"{address}/result")).status_code == 200


@pytest.mark.slow
async def test_a_repeated_request_is_the_same_job(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    source = recordings("a.wav")

    first = await anna.convert(source, headers={"Idempotency-Key": "one"})
    again = await anna.convert(source, headers={"Idempotency-Key": "one"})
    await anna.over(first["id"])

    assert again["id"] == first["id"]
    assert len((await anna.get("/convert/jobs")).json()["items"]) == 1


@pytest.mark.slow
async def test_what_was_sent_goes_with_the_end_and_the_result_when_it_is_deleted(
    studio: Studio, recordings: Make
) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    paths = studio.here.paths
    job = await anna.convert(recordings("a.wav"), recordings("b.wav", seed=1))
    await anna.over(job["id"])

    await until(lambda: not paths.job_uploads(job["id"]).folder.exists())
    kept = await anna.get(f"/convert/jobs/{job['id']}/results/2")
    deleted = await anna.delete(f"/convert/jobs/{job['id']}")
    after = await anna.get(f"/convert/jobs/{job['id']}")

    assert kept.status_code == 200
    assert (deleted.status_code, after.status_code) == (204, 404)
    assert not (paths.experiment(".jobs").steps / job["id"]).exists()


@pytest.mark.slow
async def test_results_expire(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    job = await anna.convert(recordings("a.wav"))
    await anna.over(job["id"])

    await studio.restart("gateway", signal.SIGTERM, CONVERSION_RESULTS_LIFETIME="0.1")
    await until(lambda: not (studio.here.paths.experiment(".jobs").steps / job["id"]).exists())
    gone = await anna.get(f"/convert/jobs/{job['id']}/result")
    results = await anna.results(job["id"])

    assert (gone.status_code, gone.json()["code"]) == (410, "results_expired")
    assert [file["state"] for file in results["files"]] == ["expired"]
    assert (await anna.job(job["id"]))["status"] == "completed"


async def test_a_voice_that_is_deleted_before_its_turn_fails_the_job_by_name(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    studio.running["inference"].signal(signal.SIGSTOP)
    job = await anna.convert(recordings("a.wav"))

    deleted = await anna.delete("/models/anna")
    studio.running["inference"].signal(signal.SIGCONT)
    done = await anna.over(job["id"])

    assert deleted.status_code == 204
    assert done["status"] == "failed"
    assert (done["error"]["status"], done["error"]["field"]) == (404, "voice")


async def test_a_job_is_followed_and_cancelled_and_cannot_be_deleted_before(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    sources = [recordings(f"{n}.wav", 6.0, seed=n) for n in range(8)]

    job = await anna.convert(*sources)
    early = await anna.get(f"/convert/jobs/{job['id']}/result")
    refused = await anna.delete(f"/convert/jobs/{job['id']}")
    await anna.until(job["id"], lambda now: now["status"] == "running" and now["current_step"] >= 1)
    asked = await anna.post(f"/convert/jobs/{job['id']}/cancel")
    done = await anna.over(job["id"])
    seen = await _feed(anna.http, job["id"])
    results = await anna.results(job["id"])

    assert (early.status_code, early.json()["retryable"]) == (409, True)
    assert refused.status_code == 409
    assert asked.json()["success"] is True
    assert done["status"] == "cancelled"
    assert seen[0][0] == "snapshot"
    assert {file["state"] for file in results["files"]} == {"left"}


@pytest.mark.slow
async def test_a_killed_worker_costs_no_recording_that_was_finished(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    job = await anna.convert(*(recordings(f"{n}.wav", 6.0, seed=n) for n in range(6)))

    await until(lambda: len(studio.records(job["id"])) >= 2)
    await anna.until(job["id"], lambda now: now["status"] == "running")
    meanwhile = [file["state"] for file in (await anna.results(job["id"]))["files"]]
    await studio.restart("inference")
    done = await anna.over(job["id"])

    assert done["status"] == "completed", done["error"]
    assert done["summary"]["converted"] == 6
    assert meanwhile.count("converted") >= 2
    assert set(meanwhile) <= {"converted", "waiting"}
    said = [json.loads(path.read_bytes()) for path in studio.records(job["id"])]
    # A recording that was taken over carries the record of its one conversion: nothing was computed twice.
    by_number = {
        record["number"]: {r["compute_seconds"] for r in said if r["number"] == record["number"]} for record in said
    }
    assert sorted(by_number) == [1, 2, 3, 4, 5, 6]
    assert all(len(times) == 1 for times in by_number.values())
    attempts = {path.parent.parent.name for path in studio.records(job["id"])}
    assert attempts == {".attempt-1", ".attempt-2"}


@pytest.mark.slow
async def test_an_asked_worker_gives_the_job_back_and_restarted_gateways_miss_nothing(
    studio: Studio, recordings: Make
) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    job = await anna.convert(*(recordings(f"{n}.wav", 6.0, seed=n) for n in range(5)))

    await until(lambda: len(studio.records(job["id"])) >= 1)
    await studio.restart("gateway")
    await studio.restart("inference", signal.SIGTERM)
    done = await anna.over(job["id"])

    assert done["status"] == "completed", done["error"]
    begun = studio.here.paths.experiment(".jobs").step(job["id"], "convert").folder.glob(".attempt-*/begun/*")
    assert list(begun) == []


@pytest.mark.slow
async def test_a_command_that_comes_twice_is_done_once(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    source = recordings("a.wav")
    job = await anna.convert(source)
    await anna.over(job["id"])
    before = await anna.get(f"/convert/jobs/{job['id']}/result")
    records = studio.records(job["id"])

    again = ConvertRecordings(
        job_id=job["id"],
        step=Step.convert,
        experiment=".jobs",
        voice="anna",
        inputs=(ConversionInput(number=1, name="a.wav", sha256="0" * 64, extension="wav"),),
        settings={},
    )
    await studio.here.bus.send_command(again.model_copy(update={"attempt": 2}), Lane.normal)
    await studio.running["inference"].wait_for_words("worker.done", count=2)
    after = await anna.get(f"/convert/jobs/{job['id']}/result")

    assert (await anna.job(job["id"]))["status"] == "completed"
    assert after.content == before.content
    assert studio.records(job["id"]) == records


async def test_a_recording_that_ends_every_worker_fails_alone(studio: Studio, recordings: Make) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    studio.running["inference"].kill()
    job = await anna.convert(recordings("deadly.wav"), recordings("good.wav", seed=1))
    steps = studio.here.paths.experiment(".jobs").step(job["id"], "convert")
    for token in (1, 2, 3):  # what three owners leave that died in the middle of the first recording
        left = steps.attempt(token) / "begun" / "00001"
        left.parent.mkdir(parents=True)
        left.touch()
    record = {"owner": "gone", "token": 3, "renewed_at": 0, "mark": "recording 1"}
    await studio.here.bus.bucket("leases").put(f"{job['id']}.convert", json.dumps(record).encode())

    studio.start("inference")
    done = await anna.over(job["id"])
    results = await anna.results(job["id"])

    assert done["status"] == "completed"
    assert [file["state"] for file in results["files"]] == ["failed", "converted"]
    assert results["files"][0]["problem"]["code"] == "poison_command"


async def test_what_cannot_be_is_refused_by_name(studio: Studio) -> None:
    anna = await studio.person()
    await studio.voice(anna)
    wrong: list[tuple[dict[str, str], str]] = [
        ({"voice": ""}, "voice"),
        ({"voice": "anna", "pitch_shift": "99"}, "pitch_shift"),
        ({"voice": "anna", "priority": "many"}, "priority"),
        ({"voice": "anna", "f0_method": "no-such-method"}, "f0_method"),
        ({"voice": "anna"}, "files"),
        ({"voice": "anna", "sample_ids": "smp_1", "dataset_id": "dst_1"}, "dataset_id"),
    ]

    answers = [await anna.post("/convert/jobs", data=fields, files={"_": (None, b"")}) for fields, _ in wrong]

    assert [(answer.status_code, answer.json()["field"]) for answer in answers] == [(422, field) for _, field in wrong]


async def _feed(client: httpx.AsyncClient, job_id: str) -> list[tuple[str, dict[str, object]]]:
    """All events of a job's feed."""
    events: list[tuple[str, dict[str, object]]] = []
    async with client.stream("GET", f"/api/v1/convert/jobs/{job_id}/events") as response:
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    return events
