"""Is what no worker can use refused at once, and left to the worker while nobody knows?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libs.common.errors import InvalidInput
from libs.voice.pitch_presence import absent_methods
from services.gateway.workers import check_content, check_pitch, devices

BARE = {"service": "preprocessor", "f0_absent": {"rmvpe": "its weights are not installed"}, "has_hubert": False}
WHOLE = {"service": "preprocessor", "f0_absent": {}, "has_hubert": True}
OLDER: dict[str, Any] = {"service": "preprocessor"}
ELSEWHERE = {"service": "inference", "f0_absent": {}}


@pytest.mark.parametrize("method", ["rmvpe", "hybrid[dio+rmvpe]"])
def test_a_pitch_method_that_no_worker_can_use_is_refused_with_reason_and_choice(method: str) -> None:
    with pytest.raises(InvalidInput, match="`rmvpe` cannot be used here: its weights are not installed") as refusal:
        check_pitch([BARE, BARE, ELSEWHERE], "preprocessor", method, "options.f0_method")

    assert refusal.value.field == "options.f0_method"
    assert "dio" in refusal.value.actions[0]
    assert "rmvpe" not in refusal.value.actions[0]


@pytest.mark.parametrize("workers", [[], [ELSEWHERE], [OLDER], [BARE, WHOLE], [BARE, OLDER]])
def test_a_method_is_accepted_while_some_worker_may_have_it(workers: list[dict[str, Any]]) -> None:
    check_pitch(workers, "preprocessor", "rmvpe")


def test_a_method_that_is_there_is_accepted() -> None:
    check_pitch([BARE], "preprocessor", "hybrid[dio+swift]")
    check_pitch([BARE], "preprocessor", "auto")


def test_a_preset_that_needs_huberts_features_is_refused_where_no_preprocessor_has_them() -> None:
    with pytest.raises(InvalidInput, match=r"rvc-v1-40k.*hubert_base\.pt") as refusal:
        check_content([BARE, ELSEWHERE], "rvc-v1-40k")

    assert refusal.value.field == "preset"
    for workers in ([], [ELSEWHERE], [OLDER], [BARE, WHOLE]):
        check_content(workers, "rvc-v1-40k")


def test_what_a_worker_says_of_its_methods_has_no_path(tmp_path: Path) -> None:
    absent = absent_methods(tmp_path / "rmvpe.pt")
    (tmp_path / "rmvpe.pt").touch()

    assert "RMVPE_PATH" in absent["rmvpe"]
    assert str(tmp_path) not in str(absent)
    assert "rmvpe" not in absent_methods(tmp_path / "rmvpe.pt")


def test_devices_are_those_of_trainers() -> None:
    assert devices([WHOLE, {"service": "trainer", "device": "cuda"}, {"service": "trainer"}]) == ["cuda", "cpu"]
