"""Which version of a voice is served? The card says so, and it is replaced in one step."""

from __future__ import annotations

import json
from typing import Any

from libs.common.errors import InvalidName, NotFound
from libs.common.paths import Paths


def read_card(paths: Paths, slug: str) -> dict[str, Any] | None:
    """The voice card of `slug`, None when there is no such voice. Raises NotFound for what is no slug."""
    try:
        path = paths.voice(slug).card
    except InvalidName as error:
        raise NotFound(f"there is no voice {slug!r}") from error
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return card if isinstance(card, dict) else None
