"""Do strangers' values become what JSON, PostgreSQL and a message take?"""

from __future__ import annotations

import json
import math

import pytest

from libs.common.errors import WorkFailed
from libs.common.storable import storable_problem, storable_text, unstorable


def test_text_loses_what_no_store_takes_and_keeps_the_rest() -> None:
    assert storable_text("Zoë 🎤") == "Zoë 🎤"
    assert storable_text("a\0b\ud800c") == "a\ufffdb\ufffdc"
    assert storable_text("x" * 1000) == "x" * 500


def test_a_document_of_plain_values_can_be_kept() -> None:
    assert unstorable({"a": [1, 2.5, None, True, "Zoë 🎤", {"b": ""}]}) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, "\0", "\udfff"])
def test_what_cannot_be_kept_is_found_wherever_it_is(value: object) -> None:
    assert unstorable({"a": [0, {"b": value}]})
    if isinstance(value, str):
        assert unstorable({"a": {value: 1}})


def test_a_deep_document_is_looked_at_to_its_end() -> None:
    deep: object = "\0"
    for _ in range(100_000):
        deep = [deep]

    assert "NUL" in unstorable(deep)


def test_a_problem_keeps_its_own_fields_and_what_it_adds_when_both_can_be_told() -> None:
    plain = WorkFailed("it broke", field="model", step="make").problem()
    odd = WorkFailed("it \0 broke" + "!" * 10_000, names=["\0"]).problem()

    assert storable_problem(plain) == plain
    assert "names" not in storable_problem(odd)
    assert len(storable_problem(odd)["detail"]) == 4000
    assert unstorable(storable_problem(odd)) == ""
    assert len(json.dumps(storable_problem(WorkFailed(files=["x"] * 10**6).problem()))) < 10_000
