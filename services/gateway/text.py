"""Which texts are accepted from people? Free text without control characters, and keys that can be looked up."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

NAME_LENGTH = 200
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


def _name(value: str) -> str:
    """One line of free text. Nothing is rewritten: what a person calls a thing is what they get to see."""
    value = value.strip()
    if not value:
        raise ValueError("a name has at least one character that can be seen")
    if any(unicodedata.category(char) == "Cc" for char in value):
        raise ValueError("a name has no control characters")
    return value


def _text(value: str) -> str:
    """Text of several lines; PostgreSQL cannot keep NUL."""
    if "\0" in value:
        raise ValueError("the text has a NUL character")
    return value


Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(_name)]
Text = Annotated[str, Field(max_length=10_000), AfterValidator(_text)]
LongText = Annotated[str, AfterValidator(_text)]
"""As long as the field says that it may be."""


def is_key(value: str) -> bool:
    """Whether `value` can be an id or a slug at all; what cannot be one is not looked for."""
    return _KEY.fullmatch(value) is not None


def for_display(value: str, limit: int) -> str:
    """A name that came with a file: visible characters only, at most `limit` of them."""
    return "".join(char for char in value if unicodedata.category(char) not in ("Cc", "Cs"))[:limit]
