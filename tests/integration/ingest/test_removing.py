"""Is nothing left of what was deleted, also when the service is killed in the middle of it?"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from libs.common.manifests import Manifest, entries, point, store
from libs.common.paths import WITHOUT_DATASET, Paths
from libs.common.settings import CommonSettings
from libs.common.storage import open_storage
from services.ingest import removing
from tests.factories_audio import make_tone
from tests.integration.ingest.conftest import Service, StartIngest
from tests.waiting import wait_until

JOB = "job_1"


def attempt(paths: Paths, step: str, token: int, *, job: str = JOB, slug: str = "anna") -> Path:
    """An attempt's folder with something in it."""
    folder = paths.experiment(slug).step(job, step).attempt(token)
    (folder / "0_gt_wavs").mkdir(parents=True)
    (folder / "0_gt_wavs" / "1.wav").write_bytes(b"sound")
    return folder


def commit(paths: Paths, step: str, token: int, folder: Path, *, job: str = JOB, slug: str = "anna") -> str:
    """The manifest of a finished step whose files lie in `folder`; its path, relative to the data folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    manifest = Manifest(job_id=job, step=step, token=token, folder=paths.relative(folder), files=entries(paths, files))
    return store(paths, paths.experiment(slug).step(job, step).manifest(token), manifest).path


def age(folder: Path, seconds: float) -> None:
    before = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (before, before))


def named(paths: Paths, slug: str) -> list[str]:
    """Everything on the disk that carries the slug."""
    return sorted(str(path) for path in paths.data_root.rglob("*") if slug in path.name)


def sweep(ingest: Service, keep: dict[str, int], older_than: float = 0.0) -> list[str]:
    body = {"keep": keep, "older_than_seconds": older_than}
    with ingest.client() as client:
        answer = client.post(f"/experiments/anna/jobs/{JOB}/sweep", json=body)
    assert answer.status_code == 200, answer.text
    removed: list[str] = answer.json()["removed"]
    return removed


def test_deleting_a_dataset_leaves_nothing_of_its_slug_on_disk_or_in_the_store(
    start_ingest: StartIngest, settings: CommonSettings, tmp_path: Path
) -> None:
    ingest, storage, paths = start_ingest(), open_storage(settings), Paths(settings)
    file = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))
    prepared = attempt(paths, "preprocess", 1)
    path = commit(paths, "preprocess", 1, prepared)
    experiment = paths.experiment("anna")
    point(experiment.gt_wavs, prepared / "0_gt_wavs")
    (experiment.folder / "prepared.json").write_text(json.dumps({"manifests": {"x": {"path": path}}}))
    other = attempt(paths, "preprocess", 1, slug="annabel")

    with ingest.client() as client:
        client.post("/datasets/anna/files", json={"upload_ids": [file["upload_id"]]})
        wait_until(lambda: bool(storage.list(settings.voice_samples_bucket, "anna/")))
        answers = [client.delete("/datasets/anna").status_code for _ in range(2)]

    assert answers == [204, 204]
    assert named(paths, "anna") == [str(other.parents[3])]
    assert storage.list(settings.voice_samples_bucket) == []
    assert other.is_dir()


def test_a_removal_that_was_killed_is_gone_on_with_at_the_next_start(
    start_ingest: StartIngest, settings: CommonSettings
) -> None:
    ingest, paths = start_ingest(), Paths(settings)
    folder = attempt(paths, "preprocess", 1)
    for number in range(50_000):  # enough that their removal is seen while it goes on
        (folder / f"{number}").touch()
    (paths.uploads("anna").folder).mkdir(parents=True)

    killing = threading.Thread(target=_kill_while_removing, args=(ingest, paths))
    killing.start()
    with ingest.client() as client, pytest.raises(httpx.TransportError):
        client.delete("/datasets/anna")
    killing.join()
    left = sum(1 for _ in paths.data_trash.rglob("*"))
    ingest.start()
    wait_until(lambda: not list(paths.data_trash.glob("*")))
    with ingest.client() as client:
        again = client.delete("/datasets/anna").status_code

    assert left > 1
    assert again == 204
    assert named(paths, "anna") == []


def _kill_while_removing(ingest: Service, paths: Paths) -> None:
    """Kills ingest once the trash holds something, which is then being removed."""
    while not list(paths.data_trash.glob("anna.*")):
        time.sleep(0.001)
    ingest.kill()


def test_a_folder_that_is_no_dataset_is_never_removed_as_one(ingest: Service) -> None:
    jobs = ingest.paths.data_root / ".jobs" / "file"
    jobs.parent.mkdir(parents=True)
    jobs.touch()

    with ingest.client() as client:
        answers = [client.delete(f"/datasets/{slug}").status_code for slug in (".jobs", "uploads", ".trash", "UP")]

    assert answers == [422] * 4
    assert jobs.is_file()


def test_attempts_that_nobody_needs_are_removed_and_what_is_in_use_stays(
    ingest: Service, settings: CommonSettings
) -> None:
    paths = ingest.paths
    dead, kept, also_dead = (attempt(paths, "preprocess", token) for token in (1, 2, 3))
    commit(paths, "preprocess", 1, dead)
    commit(paths, "preprocess", 2, kept)
    failed = attempt(paths, "train", 1)
    experiment = paths.experiment("anna")
    point(experiment.gt_wavs, kept / "0_gt_wavs")
    point(experiment.checkpoints, failed / "0_gt_wavs")

    removed = sweep(ingest, {"preprocess": 2})

    assert not dead.exists()
    assert not also_dead.exists()
    assert not failed.exists()
    assert (kept / "0_gt_wavs" / "1.wav").is_file()
    assert not experiment.step(JOB, "preprocess").manifest(1).exists()
    assert experiment.step(JOB, "preprocess").manifest(2).is_file()
    assert experiment.gt_wavs.exists()
    assert not experiment.checkpoints.is_symlink()
    assert "checkpoints" in removed


def test_what_another_job_or_the_ledger_uses_again_is_kept(ingest: Service) -> None:
    paths = ingest.paths
    reused, listed, own = (attempt(paths, "preprocess", token) for token in (1, 2, 3))
    commit(paths, "preprocess", 1, reused, job="job_2")
    ledger = {"manifests": {"x": {"path": commit(paths, "preprocess", 2, listed)}}}
    (paths.experiment("anna").folder / "prepared.json").write_text(json.dumps(ledger))
    commit(paths, "preprocess", 4, own)

    sweep(ingest, {"preprocess": 4})

    assert [folder.is_dir() for folder in (reused, listed, own)] == [True, True, True]


def test_tidying_a_job_without_a_dataset_reads_nothing_of_the_others(
    ingest: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, read = ingest.paths, []
    document = removing._document
    monkeypatch.setattr(removing, "_document", lambda path: read.append(path) or document(path))
    dead, kept = (attempt(paths, "convert", token, slug=WITHOUT_DATASET) for token in (1, 2))
    commit(paths, "convert", 2, kept, slug=WITHOUT_DATASET)
    others = [attempt(paths, "convert", 1, job=f"job_{n}", slug=WITHOUT_DATASET) for n in range(2, 6)]
    for number, folder in enumerate(others, 2):
        commit(paths, "convert", 1, folder, job=f"job_{number}", slug=WITHOUT_DATASET)

    removing.sweep_attempts(paths, WITHOUT_DATASET, JOB, {"convert": 2}, 0.0)

    assert not dead.exists()
    assert all(folder.is_dir() for folder in (kept, *others))
    assert not [path for path in read if path.is_relative_to(paths.experiment(WITHOUT_DATASET).steps / "job_2")]
    assert len(read) == 2  # its own manifest, and the ledger that is not there


def test_an_attempt_that_has_just_changed_is_not_swept(ingest: Service) -> None:
    old, young = attempt(ingest.paths, "train", 1), attempt(ingest.paths, "train", 2)
    age(old, 100.0)
    age(young, 100.0)
    (young / "0_gt_wavs" / "2.wav").touch()

    removed = sweep(ingest, {}, older_than=50.0)

    assert removed == [".steps/job_1/train/.attempt-1"]
    assert young.is_dir()
