"""Several nodes that make one training: here on one machine, each with its own torchrun, over one shared folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from libs.common.paths import Paths
from libs.voice.child import Outcome, TrainingChild, torchrun
from libs.voice.training_config import TrainingConfig
from services.trainer import team
from services.trainer.settings import TrainerSettings
from tests.conftest import TOKEN, free_port
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import different, in_a_child, lines_of
from tests.waiting import PATIENCE, until


def nodes(folder: Path, count: int = 2) -> list[TrainerSettings]:
    """Settings of each node of a team."""
    given = {"training_concurrency": 1, "training_nodes": count, "training_meeting": f"127.0.0.1:{free_port()}"}
    return [TrainerSettings(service_token=TOKEN, data_root=folder, training_node=n, **given) for n in range(count)]


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig.from_dict({"preset": "rvc-tiny", "threads": 1, "batch_size": 2, "processes": 2, **options})


def leading(settings: TrainerSettings, experiment: Path, run: Path, made: TrainingConfig) -> TrainingChild:
    inputs = {"experiment": str(experiment), "run": str(run)}
    return TrainingChild(inputs, made.as_dict(), command=team.command(settings))


@asynccontextmanager
async def member(settings: TrainerSettings) -> AsyncIterator[team.Member]:
    made = team.Member(settings, Paths(settings))
    async with made.running():
        yield made


def test_one_node_needs_no_meeting_and_starts_what_it_always_did() -> None:
    assert team.command(TrainerSettings(service_token=TOKEN)) == torchrun(1)
    assert "--standalone" in team.command(TrainerSettings(service_token=TOKEN, training_processes=2))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"training_nodes": 2, "training_node": 2, "training_meeting": "a:1"}, "TRAINING_NODE is 2"),
        ({"training_nodes": 2}, "TRAINING_MEETING is required"),
        ({"training_nodes": 2, "training_meeting": "a:1", "training_concurrency": 2}, "TRAINING_CONCURRENCY must be 1"),
        ({"training_nodes": 2, "training_meeting": "nowhere"}, "training_meeting"),
    ],
)
def test_half_a_team_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainerSettings(service_token=TOKEN, **given)


@pytest.mark.slow
async def test_two_nodes_make_the_training_that_one_would_make(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=6, pieces=1, seconds=0.6)
    first, second = nodes(tmp_path)
    made = config(total_steps=4)
    child = leading(first, experiment, tmp_path / "two", made)

    async with member(second) as joined:
        with team.announced(first, child.job):
            await child.start()
            await until(lambda: joined._child is not None)
            outcome = await asyncio.wait_for(child.wait(), 2 * PATIENCE)
        await until(lambda: joined._child is None)
        said = await joined()
    alone: Outcome = await in_a_child(experiment, tmp_path / "one", made)

    assert outcome.ending == alone.ending == "completed", outcome
    assert outcome.result is not None
    assert outcome.result["batch"]["processes"] == 2
    assert different(tmp_path / "two", tmp_path / "one") == []  # as two processes on one node
    assert said.startswith("waits for trainings")
    assert not Paths(first).team(first.training_meeting).exists()


@pytest.mark.slow
async def test_a_node_that_is_asked_to_go_lets_the_whole_training_save_itself_first(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=3, pieces=1, seconds=0.6)
    first, second = nodes(tmp_path)
    child = leading(first, experiment, tmp_path / "run", config(total_steps=1_000_000))

    async with member(second):
        with team.announced(first, child.job):
            await child.start()
            await until(lambda: len(lines_of(tmp_path / "run")) > 1, 2 * PATIENCE)
            # the block of the member ends: its node is taken away
    outcome = await asyncio.wait_for(child.wait(), PATIENCE)

    assert outcome.ending == "preempted", outcome
    assert list((tmp_path / "run").glob("checkpoints/checkpoint-*/state.pt"))
