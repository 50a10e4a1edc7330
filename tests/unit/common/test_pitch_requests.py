"""Are names of pitch methods judged as the engine judges them?"""

from __future__ import annotations

import pytest

from libs.common.errors import InvalidInput
from libs.common.pitch_requests import METHODS, check_method, read_f0_points


@pytest.mark.parametrize("method", [*METHODS, "hybrid[rmvpe+crepe]", "hybrid[auto+dio]"])
def test_every_method_and_several_together_are_taken(method: str) -> None:
    check_method(method)


@pytest.mark.parametrize(
    "method", ["magic", "hybrid", "hybrid[]", "hybrid[dio]", "hybrid[dio+dio]", "hybrid[pm+praat]"]
)
def test_a_method_that_exists_nowhere_is_refused(method: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_method(method)

    assert refused.value.field == "f0_method"


def test_a_contour_is_read_and_its_field_named_when_it_is_none() -> None:
    assert read_f0_points("0,220\n\n 0.5, 247\n", "f0_file") == ((0.0, 220.0), (0.5, 247.0))
    with pytest.raises(InvalidInput, match="f0_file: line 2") as refused:
        read_f0_points("0,220\n1,\0", "f0_file")
    assert refused.value.field == "f0_file"
