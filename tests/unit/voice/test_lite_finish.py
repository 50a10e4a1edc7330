"""How a `lite` training ends: judges learn, the voice learns to pass, and the run can still be stopped anywhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from libs.voice.artefact import read_voice
from libs.voice.held_out import WHOLE, Best
from libs.voice.lite_finish import ADVERSARIAL_WEIGHT, FEATURE_WEIGHT, Finish
from libs.voice.lite_judges import WINDOWS, Judges
from libs.voice.lite_recipe import LiteRecipe
from libs.voice.progress import Progress
from libs.voice.recipe import BadStep
from libs.voice.team import Team
from libs.voice.training import StopReason, TrainingInputs, train
from libs.voice.training_config import TrainingConfig
from libs.voice.training_plan import FINISH_COST, most_steps
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import different, lines_of, run
from tests.unit.voice.test_lite_recipe import CPU, batch_for

LITE = TrainingConfig(
    preset="lite", total_steps=12, adversarial_steps=6, threads=1, batch_size=2, early_stopping_patience=0
)


def new_recipe(total: int = 10, **options: Any) -> LiteRecipe:
    torch.manual_seed(7)
    recipe = LiteRecipe(TrainingConfig(preset="lite", **options), CPU)
    recipe.prepare(total, 5)
    return recipe


def state_of(recipe: LiteRecipe) -> dict[str, Tensor]:
    modules = recipe.modules().items()
    return {f"{name}.{key}": value.clone() for name, m in modules for key, value in m.state_dict().items()}


def spectra(seed: int, items: int = 2, frames: int = 40) -> list[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.rand(items, size // 2 + 1, frames, generator=chance) for size in WINDOWS]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("experiment"), sources=4, pieces=1, seconds=0.6, rate=24_000)


@pytest.mark.usefixtures("one_thread")
def test_until_its_finish_a_run_is_the_shorter_run_without_judges_bit_by_bit() -> None:
    plain, finished = new_recipe(4), new_recipe(10, adversarial_steps=6)

    for step in range(4):
        plain.step(batch_for(plain, step))
        finished.step(batch_for(finished, step))
    before = finished.export()[0]
    finished.step(batch_for(finished, 4))

    assert same(before, plain.export()[0])
    assert not same(before, finished.export()[0])
    assert "judges" not in plain.modules()


@pytest.mark.usefixtures("one_thread")
def test_a_finish_that_is_resumed_is_the_same_finish_bit_by_bit() -> None:
    whole = new_recipe(10, adversarial_steps=8)
    for step in range(7):
        whole.step(batch_for(whole, step))

    first, second = (new_recipe(10, adversarial_steps=8) for _ in range(2))
    for step in range(5):
        first.step(batch_for(first, step))
    for name, module in second.modules().items():
        module.load_state_dict(first.modules()[name].state_dict())
    for name, optimizer in second.optimizers().items():
        optimizer.load_state_dict(first.optimizers()[name].state_dict())
    for name, scheduler in second.schedulers().items():
        scheduler.load_state_dict(first.schedulers()[name].state_dict())
    for step in range(5, 7):
        second.step(batch_for(second, step))

    assert second.optimizers().keys() == {"generator", "judges"}
    assert same(state_of(second), state_of(whole))


def test_a_bad_step_changes_neither_the_voice_nor_its_judges() -> None:
    recipe = new_recipe(10, adversarial_steps=10)
    recipe.step(batch_for(recipe, 0))
    recipe.step(batch_for(recipe, 1))
    before = state_of(recipe)
    batch = batch_for(recipe, 2)
    batch.wave[0, 100] = torch.nan

    with pytest.raises(BadStep):
        recipe.step(batch)

    assert same(state_of(recipe), before)
    assert recipe.step(batch_for(recipe, 2))["adversarial"] > 0


def test_judges_that_break_stop_the_step_and_not_the_voice() -> None:
    recipe = new_recipe(10, adversarial_steps=10)
    with torch.no_grad():
        next(recipe.modules()["judges"].parameters()).fill_(torch.inf)
    before = recipe.export()[0]

    with pytest.raises(BadStep):
        recipe.step(batch_for(recipe, 5))

    assert same(recipe.export()[0], before)


def test_judges_learn_to_tell_real_from_made() -> None:
    torch.manual_seed(1)
    finish = Finish(TrainingConfig(preset="lite").resolved(), CPU, Team())
    real, made = spectra(1), [0.3 * each for each in spectra(2)]
    told = []

    for _ in range(25):
        finish.optimizer.zero_grad()
        told.append(finish.hear(real, made, alone=True)[1]["discriminator"])
        finish.check()
        finish.optimizer.step()

    assert told[-1] < 0.5 * told[0]


def test_what_the_voice_hears_is_the_gradient_of_the_judgement_and_the_judges_get_theirs_alone() -> None:
    torch.manual_seed(1)
    finish = Finish(TrainingConfig(preset="lite").resolved(), CPU, Team())
    real, made = spectra(1), [each.requires_grad_() for each in spectra(2)]
    verdict = finish.judges(real, made)
    goal = ADVERSARIAL_WEIGHT * verdict.adversarial + FEATURE_WEIGHT * verdict.feature
    wanted = torch.autograd.grad(goal, made, retain_graph=True)
    taught = torch.autograd.grad(verdict.discriminator, list(finish.judges.parameters()))

    answer, _ = finish.hear(real, made)
    answer.backward()  # type: ignore[no-untyped-call]
    silent, _ = finish.hear(real, made, alone=True)

    for each, gradient in zip(made, wanted, strict=True):
        torch.testing.assert_close(each.grad, gradient)
    for parameter, gradient in zip(finish.judges.parameters(), taught, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)  # heard twice, and added up
    assert not silent.requires_grad


def test_the_same_sound_is_no_feature_apart_and_levels_are_those_of_the_truth() -> None:
    torch.manual_seed(1)
    judges, real, made = Judges(), spectra(1), spectra(2)

    assert float(judges(real, real).feature.detach()) == 0.0
    given, own = judges(real, made, judges.levels(real)), judges(real, made)
    torch.testing.assert_close(given.feature, own.feature)


def test_a_run_against_judges_ends_with_a_voice_that_has_none_of_them(experiment: Path, tmp_path: Path) -> None:
    result = run(experiment, tmp_path, dataclasses.replace(LITE, validate_every_steps=3))

    weights = read_voice(result.voice).weights
    assert set(weights) == set(new_recipe().export()[0])
    assert (result.ended, result.steps, result.voice_step, result.adversarial_steps) == ("complete", 12, 12, 6)
    judged = [line["step"] for line in lines_of(tmp_path) if "discriminator" in line]
    assert judged == list(range(7, 13))


def test_a_finish_that_is_stopped_and_gone_on_with_is_the_unbroken_one(experiment: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(LITE, checkpoint_every_steps=4)
    run(experiment, tmp_path / "whole", config)

    def stop_at(step: int) -> Any:
        return lambda: StopReason.PREEMPT if len(lines_of(tmp_path / "broken")) >= step else None

    for step in (5, 9):
        with pytest.raises(Exception, match="stopped at step"):
            run(experiment, tmp_path / "broken", config, should_stop=stop_at(step))
    run(experiment, tmp_path / "broken", config)

    assert different(tmp_path / "whole", tmp_path / "broken") == []


def test_a_run_that_no_longer_gets_better_goes_over_to_its_finish_also_when_it_is_resumed(
    experiment: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        LITE,
        total_steps=400,
        learning_rate=0.05,
        early_stopping_patience=2,
        validate_every_steps=2,
        checkpoint_every_steps=4,
    )
    whole = run(experiment, tmp_path / "whole", config)
    judged = [line["step"] for line in lines_of(tmp_path / "whole") if "discriminator" in line]
    first = judged[0] - 1
    with pytest.raises(Exception, match="stopped at step"):
        run(
            experiment,
            tmp_path / "broken",
            config,
            should_stop=lambda: (
                StopReason.PREEMPT if any(line["step"] >= first + 2 for line in lines_of(tmp_path / "broken")) else None
            ),
        )
    resumed = run(experiment, tmp_path / "broken", config)

    assert first < 394
    assert judged == list(range(first + 1, whole.steps + 1))
    assert whole.steps <= first + 6
    assert (resumed.steps, resumed.sha256) == (whole.steps, whole.sha256)
    assert different(tmp_path / "whole", tmp_path / "broken") == []


def test_in_a_finish_the_newest_whole_voice_is_kept() -> None:
    best = Best()
    assert best.improves(1.0, 100)
    assert not best.improves(1.02, 200)

    assert best.follows(1.05, 300)
    assert best.follows(WHOLE, 400)
    assert not best.follows(WHOLE + 0.01, 500)
    assert not best.follows(float("nan"), 600)

    assert (best.step, best.loss, best.lowest) == (400, WHOLE, 1.0)


@pytest.mark.parametrize("seconds", [1.0, 39.0, 100.0, 5000.0])
def test_a_run_is_planned_as_long_as_its_time_suffices_for_and_no_longer(seconds: float) -> None:
    finish_of = TrainingConfig(preset="lite", adversarial_steps=400).adversarial_steps_of

    def cost(steps: int) -> float:
        return 0.2 * (steps - finish_of(steps)) + 0.6 * finish_of(steps)

    steps = most_steps(seconds, 0.2, 0.6, finish_of)

    assert cost(steps) <= seconds < cost(steps + 1)


def test_a_time_budget_measures_what_a_step_of_the_finish_costs_before_it_counts_them(
    experiment: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(LITE, total_steps=None, train_seconds=10.0, adversarial_steps=5)

    result = run(experiment, tmp_path, config)

    plan = json.loads((tmp_path / "run.json").read_text())
    assert "s in the finish" in (tmp_path / "train.log").read_text()
    assert plan["finish_cost"] != FINISH_COST
    assert plan["finish_cost"] >= 1.0
    assert (result.steps, result.ended) == (plan["total_steps"], "complete")
    assert sum("discriminator" in line for line in lines_of(tmp_path)) == 5


def test_what_is_left_counts_the_steps_of_the_finish_as_what_they_cost(experiment: Path, tmp_path: Path) -> None:
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)

    train(TrainingInputs(experiment, tmp_path), LITE, tell)

    plan = json.loads((tmp_path / "run.json").read_text())
    fractions = [each.fraction or 0.0 for each in told]
    halfway = [each for each in told if each.step == 6]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    for each in halfway:
        assert each.fraction == pytest.approx(1 / (1 + plan["finish_cost"]))
