"""What must never stand in a log? Passwords, tokens and keys, by the name of their field or by their look."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

_NAMES = re.compile(r"passw|secret|token|authori[sz]ation|api_?key|access_?key|cookie|credential", re.IGNORECASE)
# vwk_ and vwr_ begin our own keys and refresh tokens.
# `token` is also what counts the owners of a lease: a number is nobody's secret. An address without @ has no password.
_LOOKS = re.compile(
    r"(?P<before>\b(?:Bearer|Basic)\s+|://[^\s/:@]*:(?=[^\s/@]*@)|\b(?:password|secret|token|api_key)=|\bvw[kr]_)"
    r"(?P<secret>[^\s@&\"',;]+)",
    re.IGNORECASE,
)


def without_secrets(name: str, value: Any) -> Any:
    """A log field as it may be written: hidden by its name, or in what it says."""
    if isinstance(value, str):
        return HIDDEN if value and _NAMES.search(name) else _LOOKS.sub(rf"\g<before>{HIDDEN}", value)
    if isinstance(value, dict):
        return {key: without_secrets(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(name, inner) for inner in value]
    if isinstance(value, bytes):
        return HIDDEN if _NAMES.search(name) else value
    return value
