"""What does a formula in a fixture's JSON give? Arithmetic on arrays, read from a syntax tree and never run as code.

Stand-ins for encoder and pitch are described by formulas ("f=190+45*sin(i/6), 0 where i%23<4"), so that no network is
needed to compare what lies around them.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
}
_CALLS: dict[str, Callable[..., Any]] = {"sin": np.sin, "cos": np.cos, "arange": np.arange}


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression of numbers, `names`, `x[…]`, sin, cos and arange. Raises ValueError for any other."""

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=number) if isinstance(number, (int, float)) and not isinstance(number, bool):
                return number
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return _BINARY[type(op)](value(left), value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                return _COMPARE[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _CALLS:
                return _CALLS[name](*map(value, arguments))
            case ast.Subscript(value=array, slice=index):
                return value(array)[value(index)]
        raise ValueError(f"the formula {text!r} holds something that is not known here")

    return value(ast.parse(text.strip(), mode="eval").body)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no formula of the form {pattern!r} in {text!r}")
    return match[1]


class StubEncoder:
    """The content encoder that a text such as `T=(L-400)//320+1; feats[t,d]=4*x[320*t + d%400]` describes."""

    name, checksum = "stub", "0" * 64

    def __init__(self, text: str, width: int) -> None:
        self._frames = _found(r"T\s*=\s*([^;,]+)", text)
        self._value = _found(r"feats\[t,\s*d\]\s*=\s*([^;,]+)", text)
        self.width = width
        self.lengths: list[int] = []
        """Samples of each call."""

    def encode(self, wave16k: NDArray[np.float32]) -> NDArray[np.float32]:
        """wave16k [L] → the formula's features [T, width]."""
        self.lengths.append(len(wave16k))
        frames = int(evaluate(self._frames, {"L": len(wave16k)}))
        t, d = np.arange(frames)[:, None], np.arange(self.width)[None, :]
        return np.asarray(evaluate(self._value, {"x": wave16k, "t": t, "d": d}), dtype=np.float32)


class StubPitch:
    """The pitch that a text such as `m=n//160+1 frames, i=arange(m)+7*c, f=190+45*sin(i/6), 0 where i%23<4` describes.

    `c` counts the calls from 0.
    """

    def __init__(self, text: str, method: str = "rmvpe") -> None:
        self._method = method
        self._frames = _found(r"m\s*=\s*([^;,]+?)\s+frames", text)
        counted = re.search(r"\bi\s*=\s*([^;,]+)", text)
        self._i = counted[1] if counted else "arange(m)"
        self._f = _found(r"\bf(?:\[i\])?\s*=\s*([^;,]+)", text)
        unvoiced = re.search(r"0 where ([^;,]+)", text)
        self._unvoiced = unvoiced[1] if unvoiced else None
        self.seen: list[list[int]] = []
        """Samples and frames of each call."""

    def resolve(self, method: str) -> str:
        """Every method is this one."""
        return self._method

    def f0(self, wave16k: NDArray[np.float32], method: str = "auto") -> NDArray[np.float32]:
        """wave16k [L] → the formula's pitch in Hz, [m]."""
        m = int(evaluate(self._frames, {"n": len(wave16k)}))
        i = evaluate(self._i, {"m": m, "c": len(self.seen)})
        f0 = np.asarray(evaluate(self._f, {"i": i}), dtype=np.float64)
        if self._unvoiced is not None:
            f0 = np.where(evaluate(self._unvoiced, {"i": i}), 0.0, f0)
        self.seen.append([len(wave16k), m])
        return f0  # type: ignore[return-value] # float64, as the reference's stand-in gives
