"""How `lite` learns: the loss falls, a resumed run is the same run, a step that is not finite changes nothing."""

from __future__ import annotations

import json

import pytest
import torch

from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.lite_recipe import LiteRecipe, SpectralLoss
from libs.voice.recipe import BadStep, Batch, Recipe
from libs.voice.training_config import TrainingConfig

CPU = torch.device("cpu")


def new_recipe(total_steps: int = 10) -> LiteRecipe:
    torch.manual_seed(7)
    recipe = LiteRecipe(TrainingConfig(preset="lite"), CPU)
    recipe.prepare(total_steps, 5)
    return recipe


def batch_for(recipe: Recipe, step: int, items: int = 2, frames: int = 60) -> Batch:
    time = torch.arange(frames * recipe.hop_length) / recipe.sample_rate
    wave = 0.2 * torch.sin(2 * torch.pi * 200 * time).sign() * torch.linspace(0, 1, len(time))
    return Batch(
        content=torch.rand(items, frames, 768, generator=torch.Generator().manual_seed(1)),
        f0_hz=torch.full((items, frames), 200.0),
        coarse=torch.full((items, frames), 60),
        wave=wave.expand(items, -1).clone(),
        lengths=torch.full((items,), frames),
        speakers=torch.zeros(items, dtype=torch.int64),
        step=step,
        seeds=tuple(range(step * items, (step + 1) * items)),
    )


def test_the_loss_falls() -> None:
    recipe = new_recipe(12)

    losses = [recipe.step(batch_for(recipe, step))["loss"] for step in range(12)]

    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.usefixtures("one_thread")
def test_a_resumed_run_is_the_same_run_bit_by_bit() -> None:
    whole = new_recipe()
    for step in range(4):
        whole.step(batch_for(whole, step))

    first = new_recipe()
    for step in range(2):
        first.step(batch_for(first, step))
    second = new_recipe()
    for name, module in second.modules().items():
        module.load_state_dict(first.modules()[name].state_dict())
    second.optimizers()["generator"].load_state_dict(first.optimizers()["generator"].state_dict())
    second.schedulers()["generator"].load_state_dict(first.schedulers()["generator"].state_dict())
    for step in range(2, 4):
        second.step(batch_for(second, step))

    for name, value in whole.export()[0].items():
        torch.testing.assert_close(second.export()[0][name], value, rtol=0, atol=0)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    recipe = new_recipe()
    before = recipe.export()[0]
    batch = batch_for(recipe, 0)
    batch.wave[0, 100] = torch.nan

    with pytest.raises(BadStep):
        recipe.step(batch)

    for name, value in recipe.export()[0].items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_validation_does_not_learn_and_gives_the_same_number_again() -> None:
    recipe = new_recipe()
    before = recipe.export()[0]

    first, again = recipe.validate(batch_for(recipe, 3)), recipe.validate(batch_for(recipe, 3))

    assert first == pytest.approx(again, rel=1e-5)
    torch.testing.assert_close(recipe.export()[0]["head.bias"], before["head.bias"], rtol=0, atol=0)


def test_an_export_is_plain_and_opens_as_the_same_voice() -> None:
    recipe = new_recipe()
    recipe.step(batch_for(recipe, 0))

    weights, config = recipe.export()

    assert json.loads(json.dumps(config)) == config
    assert config.pop("kind") == "lite"
    voice = LiteSynthesizer(LiteConfig(**config))
    voice.load_state_dict(weights)
    assert all(value.is_contiguous() and value.device == CPU for value in weights.values())
    torch.testing.assert_close(voice.head.bias, recipe.synthesizer.head.bias)


def test_silence_is_learned_from_without_trouble() -> None:
    recipe = new_recipe()
    batch = batch_for(recipe, 0)
    batch.wave.zero_()
    batch.f0_hz.zero_()
    batch.content.zero_()

    losses = recipe.step(batch)

    assert losses["loss"] > 0


def test_the_loss_is_zero_for_the_truth_alone() -> None:
    loss = SpectralLoss()
    truth = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)) * 0.1

    same = loss(truth, truth)
    quieter = loss(0.5 * truth, truth)

    assert float(sum(same)) == 0.0
    assert float(quieter[0]) == pytest.approx(0.5, abs=0.01)
    assert float(quieter[1]) == pytest.approx(0.693, abs=0.05)


def test_a_step_is_repeatable_where_only_deterministic_algorithms_are_allowed() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        losses = [new_recipe().step(batch_for(new_recipe(), 0)) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)

    assert losses[0] == losses[1]
