"""Where does the command line keep whom it speaks for? One file that only its owner can read; the environment wins."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel

DEFAULT_URL = "http://127.0.0.1:8000"


class Credentials(BaseModel):
    """An address, and the tokens of one account there."""

    url: str = DEFAULT_URL
    email: str = ""
    access_token: str | None = None
    refresh_token: str | None = None


def location() -> Path:
    """`$XDG_CONFIG_HOME/voicewright/credentials.json`, by default under ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "voicewright" / "credentials.json"


def stored() -> Credentials:
    """What the file holds; defaults when there is none or it cannot be read."""
    try:
        return Credentials.model_validate(json.loads(location().read_text()))
    except (OSError, ValueError):
        return Credentials()


def load(url: str | None = None) -> Credentials:
    """The credentials to use: `url`, VOICEWRIGHT_URL and VOICEWRIGHT_TOKEN go over the file.

    Tokens of the file are only ever sent to the address that they were issued by.
    """
    kept = stored()
    address = (url or os.environ.get("VOICEWRIGHT_URL") or kept.url).rstrip("/")
    if token := os.environ.get("VOICEWRIGHT_TOKEN"):
        return Credentials(url=address, access_token=token)
    return kept if address == kept.url else Credentials(url=address)


def save(credentials: Credentials) -> Path:
    """Writes the file with mode 600, whole or not at all."""
    path = location()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(credentials.model_dump_json(indent=2) + "\n")
    draft.replace(path)
    return path


def forget() -> None:
    """Removes the tokens; the address stays."""
    kept = stored()
    if location().exists():
        save(Credentials(url=kept.url))
