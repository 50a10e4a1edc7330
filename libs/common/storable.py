"""Which values of strangers can be kept and passed on? Text that every store takes, and numbers that JSON has."""

from __future__ import annotations

import math
from typing import Any

TEXT = 500
"""Letters of a stranger's text that are kept."""
LONGEST_PROBLEM_DETAIL = 4000
_FRAME = ("type", "title", "status", "detail", "code", "retryable", "suggested_actions", "field", "retry_after")


def storable_text(text: str, limit: int = TEXT) -> str:
    """At most `limit` letters of `text`; NUL, which PostgreSQL refuses, and lone surrogates become U+FFFD."""
    return text[:limit].replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def unstorable(document: Any) -> str:
    """What in a parsed JSON document no store takes, in words; an empty string when all of it can be kept.

    NaN and infinity are no JSON, NUL and lone surrogates are refused by PostgreSQL.
    """
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, float) and not math.isfinite(value):
            return "a number that is infinite or none at all"
        elif isinstance(value, str) and "\0" in value:
            return "a text with NUL in it"
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            return "a text with half a letter (a lone surrogate) in it"
    return ""


def storable_problem(problem: dict[str, Any]) -> dict[str, Any]:
    """Problem details as a message and every database take them: own fields alone when the others are in the way."""
    detail = storable_text(str(problem.get("detail", "")), LONGEST_PROBLEM_DETAIL)
    more = {key: value for key, value in problem.items() if key not in _FRAME}
    if unstorable(more) or len(str(more)) > 16 * LONGEST_PROBLEM_DETAIL:
        more = {}
    return {key: value for key, value in problem.items() if key in _FRAME} | {"detail": detail} | more
