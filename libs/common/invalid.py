"""How is a model's refusal told? By the first field at fault and what is wrong with it."""

from __future__ import annotations

from pydantic import ValidationError

from libs.common.errors import InvalidInput


def first_at_fault(error: ValidationError, otherwise: str | None = None) -> InvalidInput:
    """The problem that names the first field at fault; `otherwise` names what has no field."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or otherwise
    return InvalidInput(f"{name}: {first['msg']}", field=name, actions=("Correct the field that is named.",))
