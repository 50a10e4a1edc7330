"""How does a client change only what it has seen? ETag on answers, If-Match on changes, If-None-Match on polls."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from libs.common.errors import PreconditionFailed

IfMatch = Annotated[
    str | None, Header(description="The ETag that you read: refused with 412 when it has changed since")
]
IfNoneMatch = Annotated[str | None, Header(description="The ETag that you have: answered with 304 while it is current")]


def etag(object_id: str, version: int) -> str:
    """The strong tag of one version of an object."""
    return f'"{object_id}.{version}"'


def _tags(header: str) -> list[str]:
    return [tag.strip() for tag in header.split(",")]


def check_match(if_match: str | None, current: str) -> None:
    """Raises PreconditionFailed when the client saw another version.

    Compared strongly (RFC 9110, 13.1.1): a weak tag says that two answers are much alike, and not that nothing changed.
    """
    if if_match is not None and if_match.strip() != "*" and current not in _tags(if_match):
        raise PreconditionFailed("it was changed by somebody else", current_etag=current)


def is_unchanged(if_none_match: str | None, current: str) -> bool:
    """Whether the client has this version already: answer 304. Compared weakly (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or current in [tag.removeprefix("W/") for tag in _tags(if_none_match)]
