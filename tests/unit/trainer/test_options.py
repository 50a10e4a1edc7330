"""What a person asks of a training arrives at the engine under its own name and within its ranges."""

from __future__ import annotations

from typing import Any

import pytest

from libs.common.errors import InvalidInput
from libs.common.events import TrainingOptions
from libs.voice.training_config import TrainingConfig
from services.gateway.jobs.presets import check_options
from services.gateway.jobs.schemas import OptionsIn
from services.trainer.settings import TrainerSettings
from services.trainer.training import NOT_THE_ENGINES, config_of

ASKED: dict[str, Any] = {
    "preset": "rvc-v2-40k",
    "epochs": 7,
    "batch_size": 3,
    "accumulation": 4,
    "learning_rate": 2e-4,
    "weight_decay": 0.1,
    "optimizer": "radam",
    "loss_function": "huber",
    "dropout": 0.2,
    "augmentation": True,
    "ema_decay": 0.999,
    "f0": False,
    "precision": "bf16",
    "pretrained": "mine",
    "best_on_timeout": True,
    "validation_split": 0.1,
    "early_stopping_patience": 4,
    "seed": 5,
}


def test_everything_that_may_be_asked_for_reaches_the_engine() -> None:
    settings = TrainerSettings(service_token="x" * 32, training_processes=2)

    config = TrainingConfig.from_dict(config_of(TrainingOptions(**ASKED), settings))

    assert {name: getattr(config, name) for name in ASKED} == ASKED
    assert config.processes == 2
    left_out = {"total_steps", "train_seconds", "adversarial_steps"}
    assert TrainingOptions.model_fields.keys() == ASKED.keys() | NOT_THE_ENGINES | left_out
    lite = config_of(TrainingOptions(preset="lite", adversarial_steps=7), settings)
    assert TrainingConfig.from_dict(lite).adversarial_steps == 7


def test_what_is_left_out_is_the_engines_own_default() -> None:
    asked = TrainingOptions(preset="lite")
    config = TrainingConfig.from_dict(config_of(asked, TrainerSettings(service_token="x" * 32)))
    own = TrainingConfig(preset="lite")
    names = TrainingOptions.model_fields.keys() - NOT_THE_ENGINES

    assert {name: getattr(config, name) for name in names} == {name: getattr(own, name) for name in names}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("epochs", 1, 1000),
        ("batch_size", 1, 64),
        ("accumulation", 1, 64),
        ("learning_rate", 1e-7, 0.1),
        ("weight_decay", 0.0, 1.0),
        ("validation_split", 0.0, 0.5),
        ("dropout", 0.0, 0.9),
        ("ema_decay", 0.0, 0.99999),
        ("adversarial_steps", 0, 100_000),
    ],
)
def test_the_gateway_and_the_engine_have_the_same_ranges(name: str, low: float, high: float) -> None:
    for value in (low, high):
        OptionsIn(**{name: value})
        TrainingConfig.from_dict({name: value})
    step = 1 if isinstance(low, int) else 1e-8
    for value in (low - step, high + step):
        with pytest.raises(ValueError, match=name):
            OptionsIn(**{name: value})
        with pytest.raises(InvalidInput, match=name):
            TrainingConfig.from_dict({name: value})


@pytest.mark.parametrize(
    ("name", "least", "most"), [("checkpoint_every", 0.1, 86_400), ("training_timeout", 1, 30 * 86_400)]
)
def test_the_trainer_starts_with_no_setting_that_its_engine_refuses(name: str, least: float, most: float) -> None:
    def settings(seconds: float) -> TrainerSettings:
        return TrainerSettings.model_validate({"service_token": "x" * 32, name: str(seconds)})

    for seconds in (least, most):
        TrainingConfig.from_dict(config_of(TrainingOptions(max_training_seconds=most), settings(seconds)))
    for seconds in (least / 2, 2 * most):
        with pytest.raises(ValueError, match=name):
            settings(seconds)


@pytest.mark.parametrize("name", ["train_seconds", "max_training_seconds"])
def test_a_person_may_ask_for_a_second_to_a_week_and_a_command_for_any_time(name: str) -> None:
    for value in (1, 604_800):
        assert getattr(OptionsIn(**{name: value}), name) == value
    for value in (0.5, 604_801):
        assert getattr(TrainingOptions.model_validate({name: value}), name) == value
        with pytest.raises(ValueError, match=name):
            OptionsIn(**{name: value})


def test_an_option_that_does_not_exist_is_refused_in_a_request_and_passed_over_in_a_command() -> None:
    assert TrainingOptions.model_validate({"of_a_later_version": 1}) == TrainingOptions()
    with pytest.raises(ValueError, match="misspelt"):
        OptionsIn.model_validate({"misspelt": 1})


@pytest.mark.parametrize(("field", "value"), [("f0", False), ("pretrained", "mine")])
def test_the_gateway_refuses_what_lite_does_not_have(field: str, value: object) -> None:
    options = TrainingOptions.model_validate({"preset": "lite", field: value})

    with pytest.raises(InvalidInput) as caught:
        check_options("lite", options)

    assert caught.value.field == f"options.{field}"
    check_options("rvc-v2-40k", options)
