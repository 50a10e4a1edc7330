"""What does the API's description hold besides the routes? The shape of a problem."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from services.gateway.routing import Problem


def install(app: FastAPI) -> None:
    """Adds `Problem`, to which all declared refusals point, to the document of `app`."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {}).setdefault("schemas", {}).setdefault(
            "Problem", Problem.model_json_schema()
        )
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
