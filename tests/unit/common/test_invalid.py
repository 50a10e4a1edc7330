"""Is the field at fault named?"""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from libs.common.invalid import first_at_fault


class Wish(BaseModel):
    pitches: list[int] = []
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Wish:
        if self.seed == 13:
            raise ValueError("13 brings no luck")
        return self


def test_the_first_field_at_fault_is_named_with_its_place_and_its_limit() -> None:
    with pytest.raises(ValidationError) as wrong:
        Wish.model_validate({"pitches": [1, "x"], "seed": -1})
    with pytest.raises(ValidationError) as wrong_seed:
        Wish(seed=-1)

    assert first_at_fault(wrong.value).field == "pitches.1"
    problem = first_at_fault(wrong_seed.value).problem()
    assert problem["field"] == "seed"
    assert "greater than or equal to 0" in problem["detail"]


def test_what_concerns_no_single_field_has_the_name_of_the_whole() -> None:
    with pytest.raises(ValidationError) as wrong:
        Wish(seed=13)

    problem = first_at_fault(wrong.value, "message")
    assert (problem.field, problem.detail) == ("message", "message: 13 brings no luck")
