"""Is every recording in one share, are shares even, and is no share so large that a kill costs much?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.preprocessor.preparation import LARGEST_SHARE, SHARES, shares_of


@given(sizes=st.lists(st.integers(0, 10**9), max_size=200), processes=st.integers(1, 64))
def test_each_recording_is_in_one_share_and_shares_are_even(sizes: list[int], processes: int) -> None:
    shares = shares_of(list(enumerate(sizes)), processes)

    assert sorted(number for share in shares for number in share) == list(range(len(sizes)))
    assert all(1 <= len(share) <= LARGEST_SHARE for share in shares)
    even = sum(sizes) / (SHARES * processes)
    assert all(len(share) == 1 or sum(sizes[number] for number in share) <= even for share in shares)
    assert [sizes[share[0]] for share in shares] == sorted((sizes[share[0]] for share in shares), reverse=True)


def test_few_recordings_are_spread_over_the_processes_and_many_go_together() -> None:
    few = shares_of([(0, 100), (1, 90), (2, 80)], processes=2)
    many = shares_of([(number, 1000 + number) for number in range(80)], processes=2)

    assert few == [[0], [1], [2]]
    assert {len(share) for share in many} <= set(range(4, 12))
    assert len(many) == 9
