"""Is the pitch of several methods their median, where most of them hear a voice?"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from libs.common.errors import InvalidInput
from libs.common.pitch_requests import METHODS, hybrid_name, parts_of
from libs.voice.pitch import Pitch
from libs.voice.pitch_hybrid import combine
from services.gateway.conversion.convert import ConversionOptions
from services.gateway.jobs.schemas import OptionsIn, PreprocessRequest
from tests.unit.voice.test_pitch import glide

hertz = st.one_of(st.just(0.0), st.floats(50.0, 1100.0, width=32))


def track(*values: float) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def test_three_methods_give_the_median_of_those_that_hear_a_voice() -> None:
    found = combine([track(100, 100, 0, 0, 0), track(110, 0, 0, 200, 0), track(400, 102, 0, 0, 0)])

    np.testing.assert_allclose(found, [110, np.sqrt(100 * 102), 0, 0, 0], rtol=1e-6)


def test_two_methods_have_to_agree_that_there_is_a_voice_and_the_first_decides_between_octaves() -> None:
    found = combine([track(100, 100, 0), track(104, 200, 150)])
    other = combine([track(104, 200, 150), track(100, 100, 0)])

    np.testing.assert_allclose(found, [np.sqrt(10400), 100, 0], rtol=1e-6)
    np.testing.assert_allclose(other, [np.sqrt(10400), 200, 0], rtol=1e-6)


@given(st.lists(st.tuples(hertz, hertz, hertz), min_size=1, max_size=40))
def test_a_combined_pitch_lies_among_the_pitches_and_a_majority_decides(values: list[tuple[float, ...]]) -> None:
    tracks = np.asarray(values, dtype=np.float32).T

    found = combine(list(tracks))

    voiced = (tracks > 0).sum(axis=0)
    np.testing.assert_array_equal(found > 0, voiced >= 2)
    lowest = np.where(tracks > 0, tracks, np.inf).min(axis=0)
    heard = found > 0
    assert (found[heard] >= lowest[heard] * (1 - 1e-6)).all()
    assert (found[heard] <= tracks.max(axis=0)[heard] * (1 + 1e-6)).all()


@given(st.lists(hertz, min_size=1, max_size=30), st.integers(2, 5))
def test_methods_that_agree_are_repeated(values: list[float], methods: int) -> None:
    f0 = np.asarray(values, dtype=np.float32)

    np.testing.assert_allclose(combine([f0] * methods), f0, rtol=1e-6)


def test_a_glide_is_followed_by_several_methods_together() -> None:
    wave, truth = glide()
    pitch = Pitch()

    f0 = pitch.f0(wave, "hybrid[swift+dio+harvest]")

    inner = slice(10, 190)
    assert f0.dtype == np.float32
    assert np.median(1200 * np.abs(np.log2(f0[inner] / truth[inner]))) < 10
    assert pitch.resolve("hybrid[auto+dio]") == "hybrid[swift+dio]"
    assert parts_of("hybrid[a+b]") == ["a", "b"]
    assert parts_of("swift") is None


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("hybrid[swift]", "two to 5"),
        ("hybrid[swift+swift]", "different"),
        ("hybrid[swift+auto]", "different"),
        ("hybrid[]", "choose one of"),
        ("hybrid[swift+magic]", "choose one of auto, .*swift, dio, harvest"),
        ("hybrid[hybrid[swift+dio]+dio]", "choose one of"),
        ("hybrid(swift+dio)", "choose one of"),
        ("magic", "rmvpe .its weights are not installed: put rmvpe.pt where RMVPE_PATH says"),
    ],
)
def test_a_name_that_says_nothing_usable_is_refused_with_what_is(method: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refusal:
        Pitch().resolve(method)

    assert refusal.value.field == "f0_method"


def test_more_than_five_methods_are_too_many() -> None:
    with pytest.raises(InvalidInput, match="two to 5"):
        hybrid_name(["a", "b", "c", "d", "e", "f"])


@pytest.mark.parametrize("request_type", [PreprocessRequest, OptionsIn, ConversionOptions])
def test_every_method_may_be_asked_for_through_the_public_api(request_type: type[BaseModel]) -> None:
    field = request_type.model_fields["f0_method"]
    asked = TypeAdapter(Annotated[field.annotation, field])

    for method in (*METHODS, "hybrid[rmvpe+crepe+crepe-tiny+harvest+praat]"):
        assert asked.validate_python(method) == method
    for method in ("", "a b", "x" * 65, "../rmvpe"):
        with pytest.raises(ValidationError):
            asked.validate_python(method)
