"""Results of a step, or the store of the broker, vanish from the disk: nothing that can be made again is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.flows.conftest import Platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_job_whose_prepared_files_are_gone_fails_with_that_reason_and_a_retry_completes_it(
    platform: Platform, recordings: list[Path]
) -> None:
    dataset = platform.client.ensure_dataset("lost results")
    platform.client.upload(recordings, dataset.id)
    platform.stack.kill("trainer")
    job = platform.client.add_training_job(dataset.id, preset="rvc-tiny", total_steps=10)
    platform.wait_until(lambda: platform.job(job.id).phase == "train", 120, "the end of preprocess")
    steps = platform.stack.root / "data" / str(job.dataset) / ".steps" / job.id
    for piece in (steps / "preprocess" / ".attempt-1" / "0_gt_wavs").iterdir():
        piece.unlink()

    platform.stack.restart("trainer")
    failed = platform.finished(job.id)
    again = platform.client.retry(failed)
    over = platform.finished(again.id)

    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "step_result_lost"
    assert failed.error.suggested_actions
    assert over.status == "completed", over.error
    assert (steps / "preprocess" / "manifest-2.json").is_file()
    assert not (steps / "validate" / "manifest-2.json").exists(), "what was whole is not made again"


def test_a_job_that_was_queued_completes_though_the_broker_comes_back_without_its_store(
    platform: Platform, recordings: list[Path]
) -> None:
    dataset = platform.client.ensure_dataset("lost store")
    platform.client.upload(recordings, dataset.id)
    platform.stack.kill("preprocessor")
    job = platform.client.add_training_job(dataset.id, preset="rvc-tiny", total_steps=10)
    platform.wait_until(lambda: platform.job(job.id).phase == "preprocess", 60, "the queue of the preprocessor")

    platform.stack.kill("nats")
    shutil.rmtree(platform.stack.root / "nats")
    platform.stack.restart("nats")
    platform.stack.restart("preprocessor")
    over = platform.finished(job.id)

    assert over.status == "completed", over.error
    assert over.attempt == 1
