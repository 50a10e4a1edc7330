"""Is a change let through for exactly the version that was seen, and an answer spared for one that is much alike?"""

from __future__ import annotations

import pytest

from libs.common.errors import PreconditionFailed
from services.gateway.etags import check_match, etag, is_unchanged

CURRENT = etag("dst_1", 7)


@pytest.mark.parametrize("header", [None, "*", " * ", CURRENT, f'"other", {CURRENT}', f"{CURRENT} "])
def test_a_change_of_the_version_that_was_seen_goes_through(header: str | None) -> None:
    check_match(header, CURRENT)


@pytest.mark.parametrize("header", [f"W/{CURRENT}", f'"other", W/{CURRENT}', etag("dst_1", 6), "dst_1.7", ""])
def test_a_weak_tag_or_another_versions_never_matches(header: str) -> None:
    with pytest.raises(PreconditionFailed):
        check_match(header, CURRENT)


def test_a_poll_is_spared_the_answer_for_a_weak_tag_as_well() -> None:
    assert all(is_unchanged(header, CURRENT) for header in (CURRENT, f"W/{CURRENT}", f'"a", W/{CURRENT}', "*"))
    assert not any(is_unchanged(header, CURRENT) for header in (None, "", etag("dst_1", 6), f"w/{CURRENT}"))
