"""What does a training do that nobody said anything about, and which values does it not take?"""

from __future__ import annotations

import json

import pytest

from libs.common.errors import InvalidInput
from libs.common.events import TrainingOptions
from libs.voice.training_config import PRESETS, TrainingConfig


@pytest.mark.parametrize("preset", ["lite", "rvc-tiny", "rvc-v2-40k"])
def test_split_patience_and_time_limit_are_those_of_the_documents(preset: str) -> None:
    config = TrainingConfig(preset=preset).resolved()

    assert config.validation_split == 0.2
    assert config.early_stopping_patience == 10
    assert config.time_limit_seconds == 2 * 3600
    assert TrainingOptions(preset=preset).max_training_seconds == 2 * 3600


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_trained_for_a_hundred_epochs_unless_another_number_is_asked_for(preset: str) -> None:
    assert TrainingConfig(preset=preset).resolved().epochs == 100
    assert TrainingConfig(preset=preset, epochs=7).resolved().epochs == 7


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1001),
        ("batch_size", 65),
        ("batch_size", True),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("validation_split", 0.9),
        ("preset", "rvc-v3"),
        ("optimizer", "sgd"),
        ("time_limit_seconds", -1),
        ("colour", "red"),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        TrainingConfig.from_dict({field: value})

    assert caught.value.field == field


def test_each_preset_has_its_own_defaults_and_unusual_values_are_warned_about() -> None:
    rvc, lite = TrainingConfig(preset="rvc-v2-40k").resolved(), TrainingConfig(preset="lite").resolved()
    hot = TrainingConfig(preset="rvc-v2-40k", learning_rate=0.001)

    assert (rvc.learning_rate, rvc.batch_size) == (1e-4, 4)
    assert lite.learning_rate == 1e-3
    assert "may diverge" in hot.warnings()[0]
    assert not rvc.warnings()
    assert TrainingConfig.from_dict(json.loads(json.dumps(hot.as_dict()))) == hot
