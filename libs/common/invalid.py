"""How is a model's refusal told? By the field at fault and what is wrong with it, in words for who sent it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from libs.common.errors import InvalidInput

_OBJECT = {"model_attributes_type", "model_type", "dict_type"}
_PLACES = ("body", "query", "path")


def field_of(fault: Mapping[str, Any]) -> str:
    """The name of the field of one of pydantic's errors, with its place in lists; "" for the whole."""
    place = fault["loc"]
    if fault["type"] == "json_invalid":  # its place is a character of the body, and no field
        place = ()
    return ".".join(str(part) for part in place if part not in _PLACES)


def message_of(fault: Mapping[str, Any]) -> str:
    """What is wrong with it: pydantic's words, where they are not about Python."""
    if fault["type"] == "json_invalid":
        reason = (fault.get("ctx") or {}).get("error", "")
        return f"this is not JSON: {reason} at character {fault['loc'][-1]}"
    if not field_of(fault) and fault["type"] in _OBJECT | {"missing"}:
        return "a JSON object is expected, sent with `Content-Type: application/json`"
    return str(fault["msg"]).removeprefix("Value error, ")


def first_at_fault(error: ValidationError, otherwise: str | None = None) -> InvalidInput:
    """The problem that names the first field at fault; `otherwise` names what has no field."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = field_of(first) or otherwise
    return InvalidInput(f"{name}: {message_of(first)}", field=name, actions=("Correct the field that is named.",))
