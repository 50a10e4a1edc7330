"""Is the turn given to whom it should be? One's own heap never comes before another's first wish."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.jobs.turns import AGED, Asked, InHand, choose

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def asked(
    *owners: str, lane: str = "normal", service: str = "trainer", ago: timedelta = timedelta(hours=1)
) -> list[Asked]:
    """Commands of these owners, each a second younger than the one before."""
    return [
        Asked(f"{service}-{lane}-{number:02}-{owner}", owner, service, lane, NOW - ago + timedelta(seconds=number))
        for number, owner in enumerate(owners)
    ]


def owners(given_ids: list[str]) -> list[str]:
    return [one.rsplit("-", 1)[1] for one in given_ids]


def test_a_heap_of_one_person_goes_in_turns_with_what_others_ask_for_later() -> None:
    waiting = asked("anna", "anna", "anna", "anna", "ben", "cleo")

    assert owners(choose(waiting, [], 5, NOW)) == ["anna", "ben", "cleo", "anna", "anna"]


def test_who_has_fewest_in_hand_is_next_and_the_oldest_of_equals() -> None:
    busy = [InHand("anna", "trainer", "low", False), InHand("ben", "trainer", "normal", False)] * 2
    waiting = asked("anna", "ben", "cleo", "dora")

    assert owners(choose(waiting, [*busy, InHand("ben", "trainer", "normal", False)], 4, NOW)) == [
        "cleo",
        "dora",
        "anna",
        "ben",
    ]


def test_what_one_has_in_hand_elsewhere_does_not_count() -> None:
    elsewhere = [InHand("anna", "preprocessor", "normal", False)] * 3

    assert owners(choose(asked("anna", "ben"), elsewhere, 1, NOW)) == ["anna"]


def test_only_so_many_wait_at_the_broker_for_each_service_and_lane() -> None:
    there = [InHand("anna", "trainer", "normal", True)] * 2
    full = asked("ben", "ben")
    other_lane = asked("ben", "ben", "ben", lane="high")
    other_service = asked("ben", "ben", "ben", service="preprocessor")

    given_ids = choose([*full, *other_lane, *other_service], there, 2, NOW)

    assert set(given_ids) == {one.message_id for one in [*other_lane[:2], *other_service[:2]]}


def test_what_was_begun_leaves_its_place() -> None:
    begun = [InHand("anna", "trainer", "normal", False)] * 9

    assert len(choose(asked("anna", "anna", "anna"), begun, 2, NOW)) == 2


def test_what_has_waited_for_a_day_goes_before_everybody_in_its_lane() -> None:
    old = asked("anna", ago=AGED + timedelta(minutes=1))
    busy = [InHand("anna", "trainer", "normal", False)] * 50

    assert owners(choose([*asked("ben", "cleo"), *old], busy, 1, NOW)) == ["anna"]


def test_without_a_limit_all_go_in_the_order_in_which_they_were_asked_for() -> None:
    assert owners(choose(asked("anna", "anna", "ben", "anna"), [], 0, NOW)) == ["anna", "anna", "ben", "anna"]


PEOPLE = st.sampled_from("abc")
SERVICE = st.sampled_from(["trainer", "preprocessor"])
LANE = st.sampled_from(["high", "normal"])


@given(
    st.lists(st.tuples(PEOPLE, SERVICE, LANE, st.integers(0, 100_000)), max_size=12),
    st.lists(st.builds(InHand, PEOPLE, SERVICE, LANE, st.booleans()), max_size=8),
    st.integers(1, 4),
)
def test_every_place_is_filled_and_none_twice(
    wishes: list[tuple[str, str, str, int]], in_hand: list[InHand], ahead: int
) -> None:
    waiting = [
        Asked(str(number), owner, service, lane, NOW - timedelta(seconds=ago))
        for number, (owner, service, lane, ago) in enumerate(wishes)
    ]

    given_ids = choose(waiting, in_hand, ahead, NOW)

    by_id = {one.message_id: one for one in waiting}
    taken = Counter((by_id[one].service, by_id[one].lane) for one in given_ids)
    wanted = Counter((one.service, one.lane) for one in waiting)
    there = Counter((one.service, one.lane) for one in in_hand if one.waits)
    assert len(set(given_ids)) == len(given_ids)
    for place, wishes_there in wanted.items():
        assert taken[place] == min(wishes_there, max(ahead - there[place], 0))
