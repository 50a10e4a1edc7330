"""A step made in parts, or by several processes, is the step of the whole batch; what does not fit is made smaller."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from libs.common.errors import InvalidInput, TrainingCrashed
from libs.voice.batching import Batches
from libs.voice.child import Outcome, TrainingChild
from libs.voice.dataset import read_pieces
from libs.voice.faults import BadStep
from libs.voice.learning import Learner
from libs.voice.recipe import Recipe, build_recipe
from libs.voice.training_config import PRESETS, TrainingConfig
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import a_worker, different, in_a_child, lines_of, run

PRESET_NAMES = ("rvc-tiny", "lite")


def batches_for(tmp_path: Path, preset: str, size: int) -> Batches:
    rate = PRESETS[preset].sample_rate
    folder = tmp_path / f"experiment-{rate}"
    if not folder.exists():
        make_experiment(folder, sources=6, pieces=1, seconds=0.6, rate=rate)
    return Batches(read_pieces(folder, rate, 768), size, 1, 900, rate)


def recipe_of(preset: str, **options: object) -> Recipe:
    torch.manual_seed(3)
    recipe = build_recipe(preset, TrainingConfig(preset=preset, **options))  # type: ignore[arg-type]
    recipe.prepare(100, 2)
    return recipe


def weights(recipe: Recipe) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for m in recipe.modules().values() for p in m.parameters()])


def gradients(recipe: Recipe) -> torch.Tensor:
    parameters = [p for m in recipe.modules().values() for p in m.parameters()]
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("most", [1, 2, 4])
def test_parts_add_up_to_the_step_of_the_whole_batch(tmp_path: Path, preset: str, most: int) -> None:
    batch = batches_for(tmp_path, preset, 6)(0)
    whole, parted = recipe_of(preset), recipe_of(preset)

    told, told_in_parts = whole.step(batch), parted.step(*batch.split(most))

    assert len(batch.split(most)) == -(-6 // most)
    assert told_in_parts == pytest.approx(told, rel=2e-4)
    torch.testing.assert_close(gradients(parted), gradients(whole), rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("most", [1, 4])
def test_parts_add_up_in_a_step_against_judges_too(tmp_path: Path, most: int) -> None:
    batch = dataclasses.replace(batches_for(tmp_path, "lite", 6)(0), step=60)
    whole, parted = (recipe_of("lite", adversarial_steps=100) for _ in range(2))

    told, told_in_parts = whole.step(batch), parted.step(*batch.split(most))

    assert told["adversarial"] > 0
    assert told_in_parts == pytest.approx(told, rel=2e-3)
    torch.testing.assert_close(gradients(parted), gradients(whole), rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_accumulation_is_the_run_of_the_larger_batch(tmp_path: Path, preset: str) -> None:
    rate = PRESETS[preset].sample_rate
    experiment = make_experiment(tmp_path / "experiment", sources=5, pieces=1, seconds=0.5, rate=rate)
    config = TrainingConfig(preset=preset, total_steps=3, threads=1, batch_size=4)

    large = run(experiment, tmp_path / "large", config)
    accumulated = run(experiment, tmp_path / "parts", dataclasses.replace(config, batch_size=1, accumulation=4))

    assert accumulated.batch == {"size": 4, "part": 1, "processes": 1}
    assert accumulated.losses == pytest.approx(large.losses, rel=1e-3)


def test_a_step_that_is_made_twice_teaches_the_judges_twice(tmp_path: Path) -> None:
    recipe, batch = recipe_of("rvc-tiny"), batches_for(tmp_path, "rvc-tiny", 2)(0)
    judges = recipe.modules()["discriminator"]

    states = []
    for _ in range(2):
        recipe.step(batch)
        states.append(torch.cat([p.detach().flatten().clone() for p in judges.parameters()]))

    assert not torch.equal(*states)


@pytest.mark.parametrize("preset", ["rvc-tiny", "lite"])
def test_a_validation_that_is_not_finite_is_no_number(tmp_path: Path, preset: str) -> None:
    recipe, batch = recipe_of(preset), batches_for(tmp_path, preset, 2)(0)
    with torch.no_grad():
        for module in recipe.modules().values():
            next(module.parameters()).fill_(torch.nan)

    with pytest.raises(BadStep, match="nan"):
        recipe.validate(batch)


def test_an_error_that_is_not_about_memory_is_not_tried_again(tmp_path: Path) -> None:
    batches = batches_for(tmp_path, "rvc-tiny", 4)
    told: list[int] = []
    recipe = recipe_of("rvc-tiny")
    learner = Learner(
        recipe, batches, torch.device("cpu"), seed=1, most=4, augment=False, on_smaller=lambda n, _: told.append(n)
    )
    batch = batches(0)
    batch.wave.fill_(torch.nan)

    with pytest.raises(BadStep):
        learner.learn(batch)
    with pytest.raises(RuntimeError, match="shape"):
        learner.learn(dataclasses.replace(batches(1), content=torch.zeros(4, 7, 3)))

    assert told == []


UNDER_A_LIMIT = """
import json, resource, sys
from pathlib import Path
import torch
from libs.common.errors import PlatformError
from libs.voice.rvc.recipe import RvcRecipe
from libs.voice.training import TrainingInputs, train
from libs.voice.training_config import TrainingConfig
experiment, folder, spare, batch_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
config = dict(preset="rvc-tiny", threads=1, validation_split=0.0, seed=1)
small = TrainingConfig(**config, total_steps=2, batch_size=1)
train(TrainingInputs(experiment, folder / "warm"), small, lambda _: None)
forward = RvcRecipe._forward
def forward_of_large_items(self, batch):
    room = torch.empty(batch.size, 2**26)
    return forward(self, batch)
RvcRecipe._forward = forward_of_large_items
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + spare * 2**20, resource.RLIM_INFINITY))
try:
    wanted = TrainingConfig(**config, total_steps=3, batch_size=batch_size)
    result = train(TrainingInputs(experiment, folder / "run"), wanted, lambda _: None)
    print(json.dumps({"batch": result.batch, "losses": result.losses}))
except PlatformError as error:
    print(json.dumps(error.problem()))
"""


def under_a_limit(experiment: Path, folder: Path, spare: int, batch_size: int) -> dict[str, object]:
    """What a run says in a process that may use `spare` MiB of address space more than a run of one item took.

    Each item of a step takes 256 MiB of it, never touched: so torch's allocator is what meets the limit, and not a
    library that ends the process.
    """
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, str(experiment), str(folder), str(spare), str(batch_size)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture(scope="module")
def long_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("long"), sources=16, pieces=1, seconds=3.0)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_made_in_smaller_parts_and_the_run_stays_the_same(
    long_pieces: Path, tmp_path: Path
) -> None:
    limited = under_a_limit(long_pieces, tmp_path / "limited", 2_000, 16)
    free = under_a_limit(long_pieces, tmp_path / "free", 60_000, 16)

    events = [line for line in lines_of(tmp_path / "limited/run") if "out_of_memory" in line]
    assert free["batch"] == {"size": 16, "part": 16, "processes": 1}
    assert limited["batch"]["size"] == 16  # type: ignore[index]
    assert limited["batch"]["part"] == 4  # type: ignore[index]
    assert limited["losses"] == pytest.approx(free["losses"], rel=1e-2)
    assert events[-1]["part"] == limited["batch"]["part"]  # type: ignore[index]
    assert events[-1]["parts"] * events[-1]["part"] >= 16
    assert "memory ran out at step" in (tmp_path / "limited/run/train.log").read_text()


@pytest.mark.slow
def test_a_run_of_which_a_single_piece_does_not_fit_says_what_to_do(long_pieces: Path, tmp_path: Path) -> None:
    said = under_a_limit(long_pieces, tmp_path, 200, 4)

    assert said["code"] == TrainingCrashed.code
    assert "one piece at a time" in str(said["detail"])
    assert "lite" in str(said["suggested_actions"])


# -- several processes ------------------------------------------------------------------------------------------------


def config_of(preset: str, **options: object) -> TrainingConfig:
    given = {"preset": preset, "total_steps": 4, "threads": 1, "early_stopping_patience": 0, **options}
    return TrainingConfig.from_dict(given)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "speakers"), [("rvc-tiny", 1), ("lite", 1), ("lite", 3)])
def test_two_processes_make_the_run_of_one_with_twice_the_batch(tmp_path: Path, preset: str, speakers: int) -> None:
    experiment = make_experiment(
        tmp_path / "experiment",
        sources=3 + 3 * speakers,
        pieces=1,
        seconds=0.6,
        rate=PRESETS[preset].sample_rate,
        speakers=speakers,
    )
    two = config_of(preset, processes=2, batch_size=2, ema_decay=0.9)
    one = config_of(preset, processes=1, batch_size=4, ema_decay=0.9)

    together = asyncio.run(in_a_child(experiment, tmp_path / "two", two))
    alone = asyncio.run(in_a_child(experiment, tmp_path / "one", one))

    assert (together.ending, alone.ending) == ("completed", "completed"), together
    assert together.result is not None
    assert alone.result is not None
    assert together.result["batch"] == {"size": 4, "part": 2, "processes": 2}
    assert together.result["losses"] == pytest.approx(alone.result["losses"], rel=1e-3)
    curves = [[line["loss"] for line in lines_of(tmp_path / name) if "loss" in line] for name in ("two", "one")]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert len(list((tmp_path / "two").glob("voice.pth"))) == 1
    assert len(list((tmp_path / "two/tensorboard").iterdir())) == 1


SAME_WEIGHTS = """
import hashlib, sys
from pathlib import Path
import torch
from torch import distributed
from libs.voice import training
from libs.voice.training_config import TrainingConfig
built = []
build = training.build_recipe
training.build_recipe = lambda *given: built.append(build(*given)) or built[-1]
leave = []
config = TrainingConfig(preset="rvc-tiny", total_steps=3, threads=1, batch_size=2, processes=2)
training.train(training.TrainingInputs(Path(sys.argv[1]), Path(sys.argv[2])), config, lambda _: None)
digest = hashlib.sha256()
for module in built[-1].modules().values():
    for value in module.state_dict().values():
        digest.update(value.numpy().tobytes())
import os
print(f"rank {os.environ['RANK']} weights {digest.hexdigest()}", flush=True)
"""


@pytest.mark.slow
def test_both_processes_end_with_the_same_weights_bit_by_bit(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=6, pieces=1, seconds=0.6)
    (tmp_path / "program.py").write_text(SAME_WEIGHTS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    done = subprocess.run(
        [*torchrun, str(tmp_path / "program.py"), str(experiment), str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )

    said = dict(line.split(" weights ") for line in done.stdout.splitlines() if " weights " in line)
    assert said.keys() == {"rank 0", "rank 1"}, done.stderr[-3000:]
    assert said["rank 0"] == said["rank 1"]


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on_as_if_they_had_not_been(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=6, pieces=1, seconds=0.6)
    config = config_of("rvc-tiny", processes=2, batch_size=2, total_steps=6, checkpoint_every_steps=2)

    killed = asyncio.run(in_a_child(experiment, tmp_path / "broken", config, kill_at=3))
    resumed = asyncio.run(in_a_child(experiment, tmp_path / "broken", config))
    whole = asyncio.run(in_a_child(experiment, tmp_path / "whole", config))

    assert killed.ending in ("crashed", "completed")
    assert resumed.ending == whole.ending == "completed"
    # a sum of two is the same in either order; with more processes last bits may differ
    assert different(tmp_path / "broken", tmp_path / "whole") == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["the worker", "torchrun"])
def test_no_process_outlives_the_worker_or_torchrun(tmp_path: Path, victim: str) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=3, pieces=1, seconds=0.6)
    config = config_of("rvc-tiny", processes=2, total_steps=1_000_000).as_dict()
    parent, pid = a_worker(experiment, tmp_path / "run", config)
    torchrun = psutil.Process(pid)
    ranks = [each for each in torchrun.children(recursive=True) if "training_main" in " ".join(each.cmdline())]

    os.kill(parent.pid if victim == "the worker" else pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(ranks, timeout=60)
    parent.kill()
    parent.wait()

    assert len(ranks) == 2
    assert alive == []


@pytest.mark.slow
def test_two_processes_that_are_asked_to_stop_leave_a_checkpoint_first(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=3, pieces=1, seconds=0.6)

    async def cancelled() -> Outcome:
        inputs = {"experiment": str(experiment), "run": str(tmp_path / "run")}
        child = TrainingChild(inputs, config_of("rvc-tiny", processes=2, total_steps=1_000_000).as_dict())
        await child.start()
        async for line in child.progress():
            if line["step"] > 0:
                await child.cancel()
                break
        return await asyncio.wait_for(child.wait(), 60)

    outcome = asyncio.run(cancelled())

    assert outcome.ending == "cancelled", outcome
    assert list((tmp_path / "run").glob("checkpoints/checkpoint-*/state.pt"))


@pytest.mark.slow
def test_a_fault_in_two_processes_is_told_as_by_one(tmp_path: Path) -> None:
    outcome = asyncio.run(in_a_child(tmp_path / "nothing", tmp_path / "run", config_of("rvc-tiny", processes=2)))

    assert outcome.ending == "failed"
    assert outcome.error is not None
    assert outcome.error.code == "dataset_not_prepared"


def test_a_run_that_was_not_started_with_its_processes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="processes is 2, but 1 were started"):
        run(tmp_path, tmp_path / "run", config_of("rvc-tiny", processes=2))
