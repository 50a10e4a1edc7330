"""Do prices and times come out as the customer's document has them?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import InvalidInput
from libs.common.providers import PROVIDERS
from services.gateway.jobs.presets import PRESETS
from services.gateway.providers import prices
from services.gateway.providers.estimating import Workload, estimate


def test_half_an_hour_of_a_gpu_a_gigabyte_kept_and_half_a_gigabyte_moved_cost_1_315() -> None:
    assert prices.total(prices.gpu_parts(0.5, 1.0, 0.5)) == 1.315


def test_45_minutes_at_google_with_a_gigabyte_cost_351_52() -> None:
    assert prices.total(prices.google_parts(45, 1.0)) == 351.52


def test_google_takes_nothing_more_for_the_first_half_hour_of_speech() -> None:
    assert prices.google_parts(5, 0.0) == prices.google_parts(30, 0.0)


def test_a_million_tokens_at_openai_with_a_gigabyte_cost_33_02() -> None:
    assert prices.total(prices.openai_parts(1_000_000, 1.0)) == 33.02


@given(seconds=st.floats(1, 1e5), more=st.floats(0, 1e5), preset=st.sampled_from(sorted(PRESETS)))
def test_more_speech_is_never_cheaper_nor_faster(seconds: float, more: float, preset: str) -> None:
    less, all_of_it = (estimate(Workload(preset, s, 10, int(s * 1e5))) for s in (seconds, seconds + more))

    assert all_of_it.cost >= less.cost
    assert all_of_it.seconds >= less.seconds


@pytest.mark.parametrize("name", ["google", "openai"])
def test_a_providers_time_is_within_what_the_document_says(name: str) -> None:
    provider = PROVIDERS[name]
    low, high = provider.minutes
    (preset,) = provider.presets

    for seconds in (1.0, provider.needs.seconds[0], 600.0, 1e6):
        assert 60 * low <= estimate(Workload(preset, seconds, 10)).seconds <= 60 * high


def test_xtts_on_a_gpu_takes_ten_minutes_for_one_of_speech_and_thirty_for_five() -> None:
    def minutes(speech: float, epochs: int | None = None) -> float:
        return estimate(Workload("xtts-v2", 60 * speech, 20, epochs=epochs, device="cuda")).seconds / 60

    assert (minutes(1), minutes(3), minutes(5)) == (10, 20, 30)
    assert minutes(5, epochs=10) == 3


def test_xtts_on_a_processor_is_worked_out_from_clips_epochs_and_batch() -> None:
    def seconds(**asked: int) -> float:
        return estimate(Workload("xtts-v2", 60.0, 8, limit_seconds=1e9, **asked)).seconds

    assert seconds(epochs=1, batch_size=1) == pytest.approx(8 * 7.2)
    assert seconds(epochs=1, batch_size=2) == pytest.approx(4 * 11.9)
    assert seconds(epochs=3, batch_size=2) == pytest.approx(3 * 4 * 11.9)


def test_the_estimate_says_what_it_assumed_and_keeps_to_the_time_limit() -> None:
    made = estimate(Workload("xtts-v2", 300.0, 100, limit_seconds=600.0))

    assert made.seconds == 600
    assert made.hardware == "cpu"
    assert any("max_training_seconds" in said for said in made.assumed)


def test_openais_tokens_are_counted_from_the_transcripts_where_there_are_any() -> None:
    written = estimate(Workload("openai-custom", 600.0, 60, characters=4_000_000))
    guessed = estimate(Workload("openai-custom", 600.0, 60))

    assert written.parts["tokens"] == pytest.approx(8.0)
    assert guessed.parts["tokens"] == pytest.approx(600 * 15 / 4 / 1000 * 0.008)


def test_epochs_lengthen_an_rvc_training_and_the_hour_has_its_price() -> None:
    ten, hundred = (estimate(Workload("rvc-v2-40k", 60.0, 5, epochs=n), hour_price=3.6) for n in (10, 100))

    assert ten.seconds < hundred.seconds
    assert hundred.cost == pytest.approx(hundred.seconds / 3600 * 3.6, abs=1e-4)


def test_a_preset_that_nobody_has_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        estimate(Workload("xtts-v9", 60.0, 5))

    assert caught.value.field == "preset"


def test_every_preset_belongs_to_one_provider() -> None:
    presets = [preset for provider in PROVIDERS.values() for preset in provider.presets]

    assert sorted(presets) == sorted(PRESETS)
