"""Do weights come from text as written, formulas without running code, and is nothing of a JSON forgotten?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from libs.voice.reference.facts import Facts
from libs.voice.reference.formula import StubEncoder, StubPitch, evaluate
from libs.voice.reference.ledger import Ledger, Tolerance
from libs.voice.reference.recipe import WeightRecipe

RULES = [
    ["name ends with num_batches_tracked", "0 (int64)"],
    ["name ends with running_var", "1 + 0.1*|n|"],
    ["name starts with judges. and ends with weight_g", "1.5 + 0.15*n"],
    ["name ends with beta, or last dotted part starts with bias", "0.1*n"],
    ["name is emb.weight or ends with pitch.weight", "0.3*n"],
    ["name ends with rel_k or rel_v", "0.1*n"],
    ["one-dimensional", "1 + 0.1*n"],
    ["four-dimensional", "0.5*n/sqrt(product of shape[1:])"],
    ["everything else", "n/sqrt(product of shape[1:])"],
]


def recipe(folder: Path, rules: list[list[str]] = RULES) -> WeightRecipe:
    path = folder / "recipe.json"
    draw = "n = numpy.random.RandomState(seed + i).standard_normal(shape).astype(float32)"
    path.write_text(json.dumps({"order": "keys sorted", "draw": draw, "rules_first_match": rules}))
    return WeightRecipe(path)


def test_weights_are_drawn_as_the_rules_say(tmp_path: Path) -> None:
    shapes = {
        "a.bias_k": (3,),
        "b.gain": (3,),
        "c.weight": (2, 3, 4),
        "d.weight": (2, 3, 4, 5),
        "e.pitch.weight": (4, 2),
        "emb.weight": (4, 2),
        "judges.0.weight_g": (2, 1, 1),
        "n.num_batches_tracked": (),
        "n.running_var": (5,),
        "r.rel_v": (1, 2, 3),
    }

    state = recipe(tmp_path).state(shapes, seed=40)

    def n(i: int) -> np.ndarray:
        shape = shapes[sorted(shapes)[i]]
        return np.random.RandomState(40 + i).standard_normal(shape).astype(np.float32)

    expected = {
        "a.bias_k": 0.1 * n(0),
        "b.gain": 1 + 0.1 * n(1),
        "c.weight": n(2) / np.sqrt(12),
        "d.weight": 0.5 * n(3) / np.sqrt(60),
        "e.pitch.weight": 0.3 * n(4),
        "emb.weight": 0.3 * n(5),
        "judges.0.weight_g": 1.5 + 0.15 * n(6),
        "n.running_var": 1 + 0.1 * np.abs(n(8)),
        "r.rel_v": 0.1 * n(9),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(state[name].numpy(), value, rtol=1e-6)
        assert state[name].numpy().dtype == np.float32
    assert state["n.num_batches_tracked"].tolist() == 0


@pytest.mark.parametrize(
    "rule", [["name rhymes with beta", "n"], ["everything else", "n**2"], ["everything else", "import os"]]
)
def test_a_rule_of_another_form_is_refused_and_not_guessed(tmp_path: Path, rule: list[str]) -> None:
    with pytest.raises(ValueError, match="is not known here"):
        recipe(tmp_path, [rule])


def test_the_rules_of_the_reference_are_all_known_and_each_of_its_tensors_is_drawn(voice_fixtures: Path) -> None:
    drawn = WeightRecipe(voice_fixtures / "recipe.json").state({"a.weight": (2, 3), "a.bias": (3,)}, seed=0)

    assert {name: value.shape for name, value in drawn.items()} == {"a.weight": (2, 3), "a.bias": (3,)}
    assert all(float(value.abs().max()) > 0 for value in drawn.values())


def test_formulas_are_arithmetic_and_nothing_else() -> None:
    i = np.arange(5)

    np.testing.assert_allclose(evaluate("190+45*sin(i/6)-i%3", {"i": i}), 190 + 45 * np.sin(i / 6) - i % 3)
    assert evaluate("(L-400)//320+1", {"L": 8000}) == 24
    for text in ("__import__('os')", "i.shape", "'a'*9", "[1]", "lambda: 1", "open('x')", "i if i else 1", "9**9", "j"):
        with pytest.raises(ValueError, match="not known here"):
            evaluate(text, {"i": i})


def test_stand_ins_follow_their_descriptions() -> None:
    encoder = StubEncoder("T=(L-400)//320+1; feats[t,d]=4*x[320*t + d%400], d=0..9 on the chunk", 10)
    pitch = StubPitch(
        "call number c: for n samples m=n//160+1 frames, i=arange(m)+7*c, f=100+i, 0 where i%23<4; filled"
    )
    wave = np.arange(1040, dtype=np.float32)

    content, first, second = encoder.encode(wave), pitch.f0(wave), pitch.f0(wave)

    assert content.shape == (3, 10)
    np.testing.assert_array_equal(content[2], 4 * (640 + np.arange(10)))
    np.testing.assert_array_equal(first, [0, 0, 0, 0, 104, 105, 106])
    np.testing.assert_array_equal(second, [107, 108, 109, 110, 111, 112, 113])
    assert pitch.seen == [[1040, 7], [1040, 7]]
    with pytest.raises(ValueError, match="no formula"):
        StubPitch("a tone of 100 Hz")


def test_what_nobody_read_of_a_json_is_told_with_its_path() -> None:
    facts = Facts(
        {"kind": "k", "a": 1, "b": {"c": 2, "note": "text"}, "l": [{"x": 1, "y": 2}], "w": {"deep": {"z": 1}}}
    )

    assert facts["a"] == 1
    assert facts["l"][0]["x"] == 1
    assert facts.unread() == ["b.c", "l.0.y", "w.deep.z"]

    facts.take("b")
    facts["w"].prose("deep")
    assert facts.unread() == ["l.0.y"]
    with pytest.raises(KeyError, match=r"b\.nothing"):
        facts["b"]["nothing"]


def test_errors_are_measured_against_the_largest_reference_and_shapes_must_fit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "here")

    ledger.near("inside", [1.0, 10.01], [1.0, 10.0], Tolerance(0.0, 1e-2))
    ledger.near("outside", [1.2, 10.0], [1.0, 10.0], Tolerance(0.0, 1e-2))
    ledger.near("shape", np.zeros(3), np.zeros(4))
    ledger.near("masked", np.array([1.0, 9.0]), np.array([1.0, 2.0]), mask=np.array([True, False]))

    assert [row.ok for row in ledger.rows] == [True, False, False, True]
    assert ledger.rows[1].error == pytest.approx(0.2)
    assert "shape [3] instead of [4]" in ledger.rows[2].reason
