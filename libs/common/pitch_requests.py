"""What may be asked of pitch? Names of methods and contours of one's own, checked wherever a request comes in.

Without numpy, so that light services check a request before they keep anything; what finds pitch is libs/voice/pitch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from libs.common.errors import InvalidInput

METHODS = ("auto", "rmvpe", "crepe", "crepe-tiny", "swift", "dio", "harvest", "praat", "pm")
"""Several of them may be asked together: `hybrid[rmvpe+crepe]`."""
MethodName = Annotated[
    str,
    Field(
        max_length=64,
        pattern=r"^[a-z0-9_+\[\]-]+$",
        description=f"How pitch is found: {', '.join(METHODS)}, or several together, such as hybrid[rmvpe+crepe]",
    ),
]
"""A field of a request: what a name can look like. Whether there is such a method, `check_method` says."""
MOST_TOGETHER = 5
MOST_PITCH_POINTS = 1_000_000
LONGEST_SECONDS = 1e6
HIGHEST_HZ = 4000

Points = tuple[tuple[float, float], ...]


def parts_of(method: str) -> list[str] | None:
    """The methods inside `hybrid[…]`, or None for a single method."""
    match = re.fullmatch(r"hybrid\[([a-z0-9+-]*)\]", method)
    return None if match is None else match[1].split("+")


def hybrid_name(parts: Sequence[str], field: str = "f0_method") -> str:
    """`hybrid[a+b]`. Raises InvalidInput for fewer than two methods, more than five, or one that comes twice."""
    if not 2 <= len(parts) <= MOST_TOGETHER or len(set(parts)) != len(parts):
        raise InvalidInput(
            f"{field} `hybrid[{'+'.join(parts)}]` must name two to {MOST_TOGETHER} different methods.", field=field
        )
    return f"hybrid[{'+'.join(parts)}]"


def check_method(method: str, field: str = "f0_method") -> None:
    """Raises InvalidInput for a method that exists nowhere; whether one can be used here, its worker knows."""
    parts = parts_of(method)
    unknown = [name for name in (parts or [method]) if name not in METHODS]
    if unknown:
        raise InvalidInput(
            f"{field} is {method[:80]!r}; choose one of {', '.join(METHODS)}, or several as hybrid[dio+swift].",
            field=field,
        )
    if parts is not None:
        hybrid_name(["praat" if name == "pm" else name for name in parts], field)


def read_f0_points(text: str, field: str = "f0_points") -> Points:
    """RVC's F0 file: one `seconds,Hz` a line, empty lines skipped. Raises InvalidInput that names `field` and line."""
    points = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            seconds, hz = (float(part) for part in line.split(","))
        except ValueError as error:
            raise InvalidInput(
                f"{field}: line {number} is not `seconds,Hz`: {line.strip()[:40]!r}.", field=field
            ) from error
        points.append((seconds, hz))
    found = tuple(points)
    check_points(found, field)
    return found


def check_points(points: Points, field: str = "f0_points") -> None:
    """Raises InvalidInput unless times grow within 0…1e6 s and pitches lie in 0…4000 Hz."""
    if len(points) > MOST_PITCH_POINTS:
        raise InvalidInput(f"{field} holds {len(points)} points; at most {MOST_PITCH_POINTS}.", field=field)
    last = -math.inf
    for number, point in enumerate(points, 1):
        if len(point) != 2:
            raise InvalidInput(f"{field}: point {number} must be a time and a pitch.", field=field)
        seconds, hz = point
        if not 0 <= seconds <= LONGEST_SECONDS or seconds <= last:
            raise InvalidInput(f"{field}: times must grow from 0 s; point {number} is {seconds:g}.", field=field)
        if not 0 <= hz <= HIGHEST_HZ:
            raise InvalidInput(f"{field}: point {number} is {hz:g} Hz; it must lie in 0…{HIGHEST_HZ}.", field=field)
        last = seconds
