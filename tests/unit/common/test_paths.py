"""No name leads out of the data folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import InvalidName
from libs.common.paths import RESERVED, Paths, check_key, check_slug, slugify, version_key, with_suffix
from libs.common.settings import CommonSettings


@given(st.text(max_size=300))
def test_every_name_becomes_a_slug_that_may_be_used(name: str) -> None:
    slug = slugify(name)

    assert check_slug(slug) == slug
    assert len(slug) <= 64


@given(st.sampled_from(sorted(RESERVED)))
def test_a_reserved_name_gets_a_suffix(name: str) -> None:
    assert slugify(name).startswith(f"{name}-")


def test_an_experiment_name_with_an_underscore_is_kept() -> None:
    assert slugify("test_model") == "test_model"


def test_names_without_ascii_letters_get_the_fallback() -> None:
    assert slugify("声", fallback="dataset") == "dataset"


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True))
def test_a_suffix_makes_another_slug_of_legal_length(slug: str) -> None:
    other = with_suffix(slug)

    assert other != slug
    assert len(other) <= 64
    assert check_key(other)


@pytest.mark.parametrize("bad", ["", "..", "a/b", "A", "ü", "a" * 65, "uploads", "-a", "a b", ".steps", "a\0b", "a\n"])
def test_what_is_no_slug_is_refused(bad: str) -> None:
    with pytest.raises(InvalidName):
        check_slug(bad)


@given(st.text(max_size=80))
def test_no_relative_path_leaves_the_data_root(relative: str) -> None:
    from pathlib import Path

    paths = Paths(CommonSettings(service_token="x" * 16, data_root=Path("/nowhere/data")))

    try:
        path = paths.in_data(relative)
    except InvalidName:
        return
    assert path.is_relative_to("/nowhere/data")
    assert ".." not in path.parts


def test_all_places_lie_under_their_roots(make_settings: Callable[..., CommonSettings]) -> None:
    settings = make_settings()
    paths = Paths(settings)
    experiment = paths.experiment("anna")
    voice = paths.voice("anna")

    assert experiment.gt_wavs == settings.data_root / "anna" / "0_gt_wavs"
    assert experiment.f0_hz.name == "2b_f0nsf"
    assert experiment.features(256).name == "3_feature256"
    assert experiment.step("job_1", "train").attempt(3).name == ".attempt-3"
    assert paths.uploads("anna").wav("0" * 64).parent.name == "wavs"
    assert voice.version("job_1").weights == settings.models_root / "anna" / "versions" / "job_1" / "anna.pth"
    assert version_key("anna", "job_1", "anna.pth") == "anna/job_1/anna.pth"
