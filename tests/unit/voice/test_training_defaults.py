"""Is what nobody asked for as the customer's documents have it?"""

from __future__ import annotations

import pytest

from libs.common.events import TrainingOptions
from libs.voice.training_config import TrainingConfig


@pytest.mark.parametrize("preset", ["lite", "rvc-tiny", "rvc-v2-40k"])
def test_split_patience_and_time_limit_are_those_of_the_documents(preset: str) -> None:
    config = TrainingConfig(preset=preset).resolved()

    assert config.validation_split == 0.2
    assert config.early_stopping_patience == 10
    assert config.time_limit_seconds == 2 * 3600
    assert TrainingOptions(preset=preset).max_training_seconds == 2 * 3600
