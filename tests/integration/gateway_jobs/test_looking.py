"""What is to be seen of jobs and prepared datasets, while they run and afterwards?"""

from __future__ import annotations

from libs.common.paths import Paths
from services.gateway.accounts.tables import Role
from tests.integration.gateway_jobs.conftest import House
from tests.integration.gateway_jobs.preparations import prepare
from tests.integration.gateway_jobs.scripted_workers import Workers


async def test_a_job_that_has_not_changed_is_304(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    first = await anna.get(f"/training/jobs/{job['id']}")
    tag = {"If-None-Match": first.headers["ETag"]}

    unchanged = await anna.get(f"/training/jobs/{job['id']}", headers=tag)
    await (await workers.take()).start()
    await house.wait_status(anna, job["id"], "running")
    changed = await anna.get(f"/training/jobs/{job['id']}", headers=tag)

    assert unchanged.status_code == 304
    assert unchanged.content == b""
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


async def test_jobs_are_listed_newest_first_in_pages_and_filtered(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    admin = await house.person("root", Role.admin)
    jobs = [await house.train(anna, await house.dataset(anna, f"voice-{n}"), name=f"Voice 100%{n}") for n in range(5)]
    await house.train(ben, await house.dataset(ben, "bens"))
    await anna.post(f"/training/jobs/{jobs[2]['id']}/cancel")

    first = (await anna.get("/training/jobs", params={"limit": 3})).json()
    rest = (await anna.get("/training/jobs", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    active = (await anna.get("/training/jobs", params={"status": "active"})).json()["items"]
    cancelled = (await anna.get("/training/jobs", params={"status": "cancelled"})).json()["items"]
    searched = (await anna.get("/training/jobs", params={"q": "100%4"})).json()["items"]
    everybody = (await admin.get("/training/jobs")).json()["items"]
    annas = (await admin.get("/training/jobs", params={"user_id": anna.id})).json()["items"]
    foreign = await ben.get("/training/jobs", params={"user_id": anna.id})

    listed = [job["id"] for job in first["items"] + rest["items"]]
    assert listed == [job["id"] for job in reversed(jobs)]
    assert rest["next_cursor"] is None
    assert len(active) == 4
    assert [job["id"] for job in cancelled] == [jobs[2]["id"]]
    assert [job["id"] for job in searched] == [jobs[4]["id"]]
    assert (len(everybody), len(annas)) == (6, 5)
    assert foreign.status_code == 403


async def test_counts_come_from_the_database(house: House, workers: Workers) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    jobs = [await house.train(anna, await house.dataset(anna, f"voice-{n}")) for n in range(5)]
    by_job = {}
    for _ in jobs:
        taken = await workers.take()
        by_job[taken.command.job_id] = taken
    await by_job[jobs[0]["id"]].start()
    await by_job[jobs[1]["id"]].start()
    await by_job[jobs[1]["id"]].delay(1)
    await by_job[jobs[2]["id"]].fail()
    await anna.post(f"/training/jobs/{jobs[3]['id']}/cancel")
    await house.wait_status(anna, jobs[2]["id"], "failed")
    await house.wait_status(anna, jobs[0]["id"], "running")

    mine = (await anna.get("/training/stats")).json()
    bens = (await ben.get("/training/stats")).json()

    assert mine == {
        "waiting": 1, "active": 1, "delayed": 1, "completed": 0, "failed": 1, "cancelled": 1, "total": 5
    }  # fmt: skip
    assert bens["total"] == 0


async def test_the_log_is_paged_and_only_grows(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    workers.work()
    await house.wait_status(anna, job["id"], "completed")
    whole = (await anna.get(f"/training/jobs/{job['id']}/logs", params={"limit": 200})).json()

    lines, cursor = [], None
    while True:
        params = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = (await anna.get(f"/training/jobs/{job['id']}/logs", params=params)).json()
        lines += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert lines == whole["items"]
    assert len(lines) >= 4 + 12
    assert {"timestamp", "level", "message", "metadata"} <= set(lines[0])


async def test_a_cursor_that_is_not_of_this_list_is_refused_by_name(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    for n in range(3):
        await house.train(anna, await house.dataset(anna, f"voice-{n}"))
    page = (await anna.get("/training/jobs", params={"limit": 1})).json()
    cursor, shown = page["next_cursor"], page["items"][0]["id"]
    logs = f"/training/jobs/{shown}/logs"

    foreign = [
        await anna.get("/training/jobs", params={"cursor": made}) for made in (shown, f"{cursor}0", "job_1", "x", "")
    ]
    foreign += [await anna.get(path, params={"cursor": cursor}) for path in ("/datasets", "/models", "/samples", logs)]
    foreign.append(await ben.get("/training/jobs", params={"cursor": cursor}))
    its_own = await anna.get("/training/jobs", params={"cursor": cursor, "status": "active", "limit": 2})

    assert [answer.status_code for answer in foreign] == [422] * len(foreign)
    assert {answer.json()["field"] for answer in foreign} == {"cursor"}
    assert [job["id"] < shown for job in its_own.json()["items"]] == [True, True]


async def test_metrics_are_read_while_the_run_goes_on_and_afterwards(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    for _ in range(2):
        await (await workers.take()).finish()
    training = await workers.take()
    await training.start()
    await house.wait(anna, job["id"], lambda j: j["phase"] == "train" and j["queue_state"] == "active")
    before = (await anna.get(f"/training/jobs/{job['id']}/metrics")).json()
    attempt = Paths(house.settings).experiment("anna").step(job["id"], "train").attempt(1)
    attempt.mkdir(parents=True)
    written = attempt / "metrics.jsonl"
    written.write_text('{"step": 1, "losses": {"mel": 0.9}}\n{"step": 2, "losses": {"mel": NaN}}\n{"step": 3, "lo')

    running = (await anna.get(f"/training/jobs/{job['id']}/metrics")).json()
    written.write_text('{"step": 1, "losses": {"mel": 0.9}}\n{"step": 2, "losses": {"mel": 0.8}}\n')
    await training.finish([written])
    await house.wait(anna, job["id"], lambda j: j["phase"] == "index")
    table = await anna.get(f"/training/jobs/{job['id']}/metrics", params={"format": "csv"})

    assert before["items"] == []
    assert running["items"] == [{"step": 1, "losses": {"mel": 0.9}}, {"step": 2, "losses": {"mel": None}}]
    assert table.headers["content-type"].startswith("text/csv")
    assert table.text == "step,losses.mel\n1,0.9\n2,0.8\n"


async def test_validation_names_what_is_missing(house: House, workers: Workers) -> None:
    anna = await house.person()
    await house.dataset(anna, "test_model")
    before = (await anna.post("/datasets/test_model/validate")).json()
    attempt = await prepare(house, workers, anna, "test_model")

    after = (await anna.post("/datasets/test_model/validate")).json()
    (attempt / "2a_f0" / "1.npy").unlink()
    broken = (await anna.get("/datasets/test_model/artifacts")).json()

    assert (before["valid"], before["can_train"]) == (False, True)
    assert before["artifacts"]["missing"] == ["0_gt_wavs", "1_16k_wavs", "2a_f0", "2b_f0nsf", "3_feature768"]
    assert before["problems"][0]["code"] == "dataset_not_prepared"
    assert after["valid"] is True
    assert after["problems"] == []
    assert next((f["name"], f["files"]) for f in after["artifacts"]["folders"]) == ("0_gt_wavs", 3)
    assert after["artifacts"]["facts"]["f0_method"] == "swiftf0"
    assert after["artifacts"]["is_current"] is True
    assert broken["prepared"] is False
    assert broken["missing"] == ["2a_f0"]
    assert broken["folders"][2]["missing"] == ["1.npy"]
