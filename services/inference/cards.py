"""Which version of a voice is served? The card says so, and it is replaced in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from libs.common.errors import InvalidName, ModelFileRefused, NotFound
from libs.common.paths import Paths, VoiceVersion

ELSEWHERE = ("google", "openai")
"""Kinds of voices that live with their provider: no file of theirs is here."""


def read_card(paths: Paths, slug: str) -> dict[str, Any] | None:
    """The voice card of `slug`, None when there is no such voice.

    Raises NotFound for what is no slug, ModelFileRefused for a card that does not name a version and its files.
    """
    try:
        path = paths.voice(slug).card
    except InvalidName as error:
        raise NotFound(f"there is no voice {slug!r}", field="voice") from error
    try:
        card = json.loads(path.read_bytes())
        parts = [] if card.get("kind") in ELSEWHERE else ["weights"]
        parts += [] if card["index"] is None else ["index"]
        if not all(isinstance(card[part]["sha256"], str) for part in parts):
            raise TypeError
        paths.voice(slug).version(card["version"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, InvalidName) as error:
        raise ModelFileRefused(
            f"the card of the voice {slug} does not name a version and its files", actions=("Train the voice again.",)
        ) from error
    return dict(card)


def served_weights(version: VoiceVersion, card: dict[str, Any]) -> tuple[Path, str]:
    """The file of weights that is loaded, and its checksum: our own form, which holds no code, where the card names it.

    Older versions, and those of foreign installations, have a `.pth` alone.
    """
    for facts in card.get("files") or ():
        if isinstance(facts, dict) and facts.get("file") == version.native.name:
            return version.native, str(facts.get("sha256"))
    return version.weights, str(card["weights"]["sha256"])
