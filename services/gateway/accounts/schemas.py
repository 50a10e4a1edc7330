"""What do accounts look like over HTTP?"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.gateway.accounts.keys import AccessKey, Scope
from services.gateway.accounts.tables import Role
from services.gateway.paging import NextCursor
from services.gateway.text import Name as KeyName

# Not checked against the list of top-level domains: an installation may have its own.
Email = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=3, max_length=320, pattern=r"^[^@\s]+@[^@\s]+$")
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]


class Login(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"email": "anna@example.com", "password": "correct horse battery"}]},
    )

    email: Annotated[str, StringConstraints(max_length=320)]
    password: Annotated[str, StringConstraints(max_length=256)]


class Refresh(BaseModel):
    model_config = ConfigDict(extra="forbid")

    refresh_token: Annotated[str, StringConstraints(max_length=200)] = Field(examples=["vwr_3x…"])


class Logout(BaseModel):
    model_config = ConfigDict(extra="forbid")

    refresh_token: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, description="Ends this session; without it, all sessions of the account", examples=["vwr_3x…"]
    )


class TokenPair(BaseModel):
    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiIs…"])
    refresh_token: str = Field(description="Usable once; the answer has the next one", examples=["vwr_3x…"])
    token_type: str = "bearer"  # noqa: S105  # the name of a scheme
    expires_in: int = Field(description="Seconds until the access token expires", examples=[1800])


class Me(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["usr_01JD0000000000000000000000"])
    email: str = Field(examples=["anna@example.com"])
    name: str = Field(examples=["Anna"])
    role: Role


class UserView(Me):
    is_active: bool = Field(description="Whether it may sign in")
    created_at: datetime


class UserPage(BaseModel):
    items: list[UserView]
    next_cursor: NextCursor = None


class NewUser(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"email": "ben@example.com", "name": "Ben", "role": "creator", "password": "a long pass phrase"}
            ]
        },
    )

    email: Email
    password: str = Field(description="At least PASSWORD_MIN_LENGTH characters")
    name: Name = ""
    role: Role = Role.creator


class UserChange(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"role": "viewer"}]})

    name: Name | None = None
    role: Role | None = None
    is_active: bool | None = Field(default=None, description="False: it may not sign in any more")
    password: str | None = Field(default=None, description="At least PASSWORD_MIN_LENGTH characters")


class NewKey(BaseModel):
    """A key for a program."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "door announcements", "scopes": ["use"]}]}
    )

    name: KeyName = Field(description="What it is for")
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=len(Scope),
        description="`look` at what you have, `use` voices (convert, synthesize), `make` and change what is yours",
    )
    lifetime_days: int | None = Field(default=365, ge=1, le=3650, description="null: it does not expire")


class KeyView(BaseModel):
    """A key as its owner sees it later on."""

    id: str = Field(examples=["key_01JD0000000000000000000000"])
    name: str
    begins_with: str = Field(description="The beginning of the secret", examples=["vwk_3xT4aB9c"])
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None = Field(description="The last time, to a minute")
    revoked_at: datetime | None = Field(description="Since then it does not work any more")

    @classmethod
    def of(cls, key: AccessKey) -> KeyView:
        """The row as JSON has it."""
        return cls(**{name: getattr(key, name) for name in KeyView.model_fields})


class KeyPage(BaseModel):
    items: list[KeyView]
    next_cursor: NextCursor = None


class CreatedKey(KeyView):
    """A new key. This is the only time that the secret is told."""

    token: str = Field(description="Send it as `Authorization: Bearer …`", examples=["vwk_3x…"])
