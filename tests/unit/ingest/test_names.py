"""Whatever a client calls its file, the name is short plain text, and never a folder of ours."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import VoiceSampleNotFound
from libs.common.paths import Paths, check_key
from libs.common.settings import CommonSettings
from services.ingest import staging
from services.ingest.settings import IngestSettings
from services.ingest.uploads import display_name
from tests.conftest import TOKEN


@given(st.text(max_size=400))
def test_a_display_name_is_short_and_has_no_control_characters(name: str) -> None:
    shown = display_name(name)

    assert 1 <= len(shown) <= 255
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs"}


@given(st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1, max_size=255))
def test_a_plain_name_is_kept(name: str) -> None:
    assert display_name(name) == name


def test_upload_ids_may_name_folders_and_sort_by_time() -> None:
    ids = [staging.new_upload_id() for _ in range(50)]

    assert len(set(ids)) == 50
    assert all(check_key(upload_id) == upload_id and len(upload_id) == 30 for upload_id in ids)
    assert sorted(upload_id[:10] for upload_id in ids) == [upload_id[:10] for upload_id in ids]


@pytest.mark.parametrize("upload_id", ["", ".", "..", "../x", ".new-upl_1", "a/b", "a\0b", "x" * 300])
def test_no_id_leads_out_of_the_staging_area(
    upload_id: str, make_settings: Callable[..., CommonSettings], tmp_path: Path
) -> None:
    paths = Paths(make_settings())
    outside = paths.uploads_dir / "x"
    outside.mkdir(parents=True)
    (paths.staging / ".new-upl_1").mkdir(parents=True)

    staging.remove(paths, upload_id)

    with pytest.raises(VoiceSampleNotFound):
        staging.find(paths, upload_id)
    assert outside.is_dir()
    assert (paths.staging / ".new-upl_1").is_dir()


def test_the_shipped_limits_are_those_that_were_asked_for() -> None:
    settings = IngestSettings(service_token=TOKEN)

    assert settings.upload_file_limit == 50 * 1024**2
    assert settings.upload_count_limit >= 102
    assert settings.upload_total_limit >= 102 * settings.upload_file_limit
    assert settings.staging_ttl == timedelta(hours=24)
    assert settings.sweep_every == timedelta(hours=1)
