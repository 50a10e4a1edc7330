"""`voicewright keys`: what programs sign in with."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from libs.client.terminal import JsonOption, connected, err, out, show_json, speaks, table, when

keys_app = typer.Typer(help="Keys for programs: made here, sent as the token.", no_args_is_help=True)


class Scope(StrEnum):
    """What a key is good for."""

    look = "look"
    use = "use"
    make = "make"


@keys_app.command("create")
@speaks
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for")],
    scope: Annotated[
        list[Scope],
        typer.Option(help="look at what you have, use voices, make and change what is yours; repeatable"),
    ],
    days: Annotated[int, typer.Option(min=1, max=3650, help="After so many days it ends")] = 365,
    forever: Annotated[bool, typer.Option("--forever", help="It does not end by itself")] = False,
) -> None:
    """Make a key. It is printed once; standard output has the key alone, for a script to keep."""
    with connected() as client:
        key = client.create_key(name, [each.value for each in scope], lifetime_days=None if forever else days)
    until = f"until {when(key.expires_at)}" if key.expires_at else "until it is taken back"
    err.print(f"Key {key.id} is good to {', '.join(key.scopes)} {until}. Keep it: it is not shown again.", markup=False)
    print(key.token)


@keys_app.command("list")
@speaks
def list_keys(json: JsonOption = False) -> None:
    """Your keys, newest first; no secrets."""
    with connected() as client:
        found = client.keys()
    if json:
        show_json(found)
        return
    rows = table("id", "name", "begins with", "scopes", "last used", "ends")
    for key in found:
        ends = "taken back" if key.revoked_at else when(key.expires_at) if key.expires_at else "never"
        rows.add_row(key.id, key.name, key.begins_with, " ".join(key.scopes), when(key.used_at), ends)
    out.print(rows)


@keys_app.command("revoke")
@speaks
def revoke_key(key_id: str) -> None:
    """Take a key back; it stops to work at once."""
    with connected() as client:
        client.revoke_key(key_id)
    out.print(f"Key {key_id} does not work any more.", markup=False)
