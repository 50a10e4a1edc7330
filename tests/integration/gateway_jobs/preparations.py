"""A dataset that was prepared by workers of the test, with files in each of its folders."""

from __future__ import annotations

from pathlib import Path

from libs.common.jobs import Step
from libs.common.paths import Paths
from tests.integration.gateway_jobs.conftest import House, Person
from tests.integration.gateway_jobs.scripted_workers import Workers

FOLDERS = ("0_gt_wavs", "1_16k_wavs", "2a_f0", "2b_f0nsf", "3_feature768")


async def prepare(house: House, workers: Workers, owner: Person, slug: str) -> Path:
    """The folder of the result of a job that prepared the dataset `slug`: three files in each of five folders."""
    job = (await owner.post("/preprocess/jobs", json={"exp_name": slug})).json()
    await (await workers.take()).finish()
    taken = await workers.take()
    assert taken.command.step is Step.preprocess
    attempt = Paths(house.settings).experiment(slug).step(job["id"], "preprocess").attempt(1)
    files = [attempt / folder / f"{number}.npy" for folder in FOLDERS for number in range(3)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    await taken.finish(files)
    await house.wait_prepared(owner, job["id"])
    return attempt
