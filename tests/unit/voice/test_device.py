"""Is the device that was asked for taken at its word?"""

from __future__ import annotations

import pytest

from libs.common.errors import GpuUnavailable, InvalidInput
from libs.voice.device import pick_device


def test_a_gpu_that_is_not_there_is_told_by_name_and_may_be_asked_for_again() -> None:
    with pytest.raises(GpuUnavailable, match="cuda:99 is asked for") as caught:
        pick_device("cuda:99")

    problem = caught.value.problem()
    assert (problem["code"], problem["status"], problem["retryable"]) == ("gpu_unavailable", 503, True)
    assert "lite" in problem["suggested_actions"][0]


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "CPU", ""])
def test_a_word_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="auto, cpu, cuda"):
        pick_device(name)
