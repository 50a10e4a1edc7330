"""Is what nobody asked for as the customer's documents have it?"""

from __future__ import annotations

import pytest

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
