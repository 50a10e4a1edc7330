"""Is a learning rate that suits another network accepted, and told?"""

from __future__ import annotations

import pytest

from libs.common.events import TrainingOptions
from services.gateway.jobs.schemas import warnings_about


@pytest.mark.parametrize(
    ("preset", "rate", "usual"),
    [
        ("rvc-v2-40k", 0.001, "0.0001"),
        ("rvc-v1-40k", 0.001, "0.0001"),
        ("xtts-v2", 0.001, "5e-06"),
        ("rvc-v2-40k", 0.0004, None),
        ("xtts-v2", 0.00005, None),
        ("xtts-v2", None, None),
        ("lite", 0.001, None),
    ],
)
def test_the_learning_rate_of_another_kind_of_network_is_accepted_with_a_warning(
    preset: str, rate: float | None, usual: str | None
) -> None:
    warnings = warnings_about(TrainingOptions(preset=preset, learning_rate=rate))

    assert len(warnings) == (usual is not None)
    for warning in warnings:
        assert f"learning_rate {rate:g} is far above the usual {usual} of {preset}" in warning
