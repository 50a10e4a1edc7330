"""What does the API's description hold besides the models? Problems, what each domain is, forms and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI

from services.gateway.routing import Problem

TAGS = {
    "accounts": "Sign in and out. A token goes with every other request, as `Authorization: Bearer …`.",
    "administration": "Accounts, for administrators.",
    "datasets": "Recordings of one voice, or of several speakers, and whether they suffice to train it.",
    "samples": "The recordings: send, listen, look, transcribe, delete.",
    "providers": "Who can make a voice, what that needs, takes and costs.",
    "preprocess": "Jobs that prepare a dataset; a training does it by itself as well.",
    "training": "Jobs that train a voice from a dataset.",
    "models": "Voices: look at, export, take in, merge, try; and the jobs that make them without training.",
    "conversion": "Recordings in another voice: one at once, or many as a job.",
    "speech": "Texts said by voices that speak.",
    "live": "Speech in another voice while it is spoken, over a WebSocket; docs/live.md has its messages.",
    "system": "What runs here, and whether it is ready.",
}
"""In the order in which a newcomer needs them."""


TEXT = {"type": "string"}
FILE = {"type": "string", "format": "binary"}


def multipart(properties: Mapping[str, Any], *, required: Sequence[str]) -> dict[str, Any]:
    """The `openapi_extra=` of a route that reads a multipart form itself, chunk by chunk."""
    schema = {"type": "object", "required": list(required), "properties": dict(properties)}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def binary(description: str, *kinds: str) -> dict[str, Any]:
    """The entry in `responses=` of an answer that is a file of one of these media types."""
    return {"description": description, "content": {kind: {"schema": FILE} for kind in kinds}}


def install(app: FastAPI) -> None:
    """Adds `Problem`, to which all declared refusals point, and the domains to the document of `app`."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {}).setdefault("schemas", {}).setdefault(
            "Problem", Problem.model_json_schema()
        )
        document["tags"] = [{"name": name, "description": what} for name, what in TAGS.items()]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
