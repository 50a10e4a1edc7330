"""Who gets in, and for how long?"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from services.gateway.accounts.bootstrap import ensure_first_admin
from services.gateway.accounts.tables import Role, User
from services.gateway.accounts.tokens import issue_access_token
from services.gateway.audit.tables import AuditEntry
from services.gateway.database import Database, utcnow
from services.gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import ADMIN, House, Person, gateway_settings


async def _login(house: House, email: str = ADMIN[0], password: str = ADMIN[1]) -> Any:
    return await house.stranger().post("/api/v1/auth/login", json={"email": email, "password": password})


async def _admin(house: House) -> Person:
    tokens = (await _login(house)).json()
    return Person("", house.stranger(tokens["access_token"]))


async def test_the_first_admin_signs_in_and_sees_who_they_are(house: House) -> None:
    answer = await _login(house)

    me = await house.stranger(answer.json()["access_token"]).get("/api/v1/auth/me")

    assert answer.status_code == 200
    assert answer.json()["token_type"] == "bearer"
    assert answer.json()["expires_in"] == 1800
    assert me.json()["email"] == ADMIN[0]
    assert me.json()["role"] == "admin"


@pytest.mark.parametrize(("email", "password"), [(ADMIN[0], "wrong"), ("nobody@example.org", ADMIN[1]), ("", "")])
async def test_a_wrong_address_and_a_wrong_password_sound_the_same(
    sqlite_house: House, email: str, password: str
) -> None:
    answer = await _login(sqlite_house, email, password)

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["detail"] == "the e-mail address or the password is wrong"


async def test_a_token_that_is_expired_foreign_or_garbled_is_refused(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    settings = sqlite_house.settings
    claims = {
        "iss": "voicewright",
        "sub": anna.id,
        "typ": "access",
        "iat": utcnow(),
        "exp": utcnow() + timedelta(hours=1),
    }
    secret = settings.jwt_secret.get_secret_value()
    good = issue_access_token(settings, anna.id, "creator")
    tokens = {
        "expired": issue_access_token(settings, anna.id, "creator", utcnow() - timedelta(hours=2)),
        "foreign": jwt.encode(claims, "another installation's secret 0123456789", algorithm="HS256"),
        "no signature": jwt.encode(claims, None, algorithm="none"),
        "other issuer": jwt.encode(claims | {"iss": "x"}, secret, algorithm="HS256"),
        "other kind": jwt.encode(claims | {"typ": "refresh"}, secret, algorithm="HS256"),
        "no expiry": jwt.encode({k: v for k, v in claims.items() if k != "exp"}, secret, algorithm="HS256"),
        "unknown account": issue_access_token(settings, "usr_unknown", "admin"),
        "cut": good[:-3],
        "garbled": "%%%.\u00e4.x",
        "service token": settings.service_token.get_secret_value(),
    }

    answers = {
        name: await sqlite_house.stranger().get(
            "/api/v1/auth/me", headers={"Authorization": f"Bearer {token}".encode()}
        )
        for name, token in tokens.items()
    }
    basic = await sqlite_house.stranger().get("/api/v1/auth/me", headers={"Authorization": "Basic eDp5"})

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(tokens, 401)
    assert answers["expired"].json()["reason"] == "token_expired"
    assert basic.status_code == 401
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers.values())


async def test_a_refresh_token_works_once_and_a_second_use_ends_the_session(house: House) -> None:
    first = (await _login(house)).json()
    client = house.stranger()

    second = await client.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    stolen = await client.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    after = await client.post("/api/v1/auth/refresh", json={"refresh_token": second.json()["refresh_token"]})
    unknown = await client.post("/api/v1/auth/refresh", json={"refresh_token": "vwr_unknown"})

    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert stolen.status_code == after.status_code == unknown.status_code == 401
    async with house.database.read() as session:
        actions = list(await session.scalars(select(AuditEntry.action)))
        kept = (await session.execute(text("SELECT token_hash FROM refresh_tokens"))).scalars().all()
    assert "session.reuse_detected" in actions
    assert first["refresh_token"] not in kept


async def test_of_two_refreshes_at_once_one_wins(house: House) -> None:
    first = (await _login(house)).json()
    client = house.stranger()

    answers = await asyncio.gather(
        *(client.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]}) for _ in range(4))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


async def test_logout_ends_this_session_or_all(sqlite_house: House) -> None:
    one, two = (await _login(sqlite_house)).json(), (await _login(sqlite_house)).json()
    client = sqlite_house.stranger(one["access_token"])

    out = await client.post("/api/v1/auth/logout", json={"refresh_token": one["refresh_token"]})
    first = await client.post("/api/v1/auth/refresh", json={"refresh_token": one["refresh_token"]})
    second = await client.post("/api/v1/auth/refresh", json={"refresh_token": two["refresh_token"]})
    everywhere = await client.post("/api/v1/auth/logout")
    third = await client.post("/api/v1/auth/refresh", json={"refresh_token": second.json()["refresh_token"]})

    assert out.status_code == everywhere.status_code == 204
    assert first.status_code == third.status_code == 401
    assert second.status_code == 200


async def test_guessing_is_slowed_down_per_account(house: House) -> None:
    house.settings.login_attempts = 3
    wrong = [(await _login(house, password="guess")).status_code for _ in range(3)]

    blocked = await _login(house)
    other = await _login(house, "nobody@example.org", "x")

    assert wrong == [401, 401, 401]
    assert blocked.status_code == 429
    assert 1 <= int(blocked.headers["retry-after"]) <= 300
    assert other.status_code == 401


async def test_guesses_that_come_all_at_once_are_slowed_down_as_well(house: House) -> None:
    house.settings.login_attempts = 3

    answers = await asyncio.gather(*(_login(house, password=f"guess {number}") for number in range(16)))
    right = await _login(house)

    assert Counter(answer.status_code for answer in answers) == {401: 3, 429: 13}
    assert right.status_code == 429


async def test_two_administrators_cannot_leave_at_once(house: House) -> None:
    admin = await _admin(house)
    made = await admin.post("/admin/users", json={"email": "b@example.org", "password": "a long one!", "role": "admin"})
    first = (await admin.get("/auth/me")).json()["id"]

    answers = await asyncio.gather(
        *(admin.patch(f"/admin/users/{who}", json={"role": "viewer"}) for who in (first, made.json()["id"])),
    )

    assert sorted(answer.status_code for answer in answers) in ([200, 409], [200, 403])
    async with house.database.read() as session:
        assert await session.scalar(select(func.count()).where(User.role == "admin", User.is_active)) == 1


async def test_an_admin_adds_changes_and_ends_accounts(house: House) -> None:
    admin = await _admin(house)

    made = await admin.post("/admin/users", json={"email": "Ben@Example.org", "name": "Ben", "password": "a long one!"})
    taken = await admin.post("/admin/users", json={"email": "ben@example.org", "password": "a long one!"})
    weak = await admin.post("/admin/users", json={"email": "x@example.org", "password": "short"})
    ben = (await _login(house, "ben@example.org", "a long one!")).json()
    person = Person("", house.stranger(ben["access_token"]))
    user = f"/admin/users/{made.json()['id']}"
    made_by_ben = await person.post("/datasets", json={"name": "mine"})
    refused = await person.get("/admin/users")
    viewer = await admin.patch(user, json={"role": "viewer"})
    as_viewer = await person.post("/datasets", json={"name": "mine too"})
    listed = (await admin.get("/admin/users")).json()["items"]
    gone = await admin.delete(user)
    after = await person.get("/auth/me")
    again = await admin.post("/admin/users", json={"email": "ben@example.org", "password": "a long one!"})

    assert made.status_code == 201
    assert made.json()["email"] == "ben@example.org"
    assert made.json()["role"] == "creator"
    assert "password" not in made.text
    assert taken.status_code == 409
    assert weak.status_code == 422
    assert weak.json()["field"] == "password"
    assert made_by_ben.status_code == 201
    assert refused.status_code == 403
    assert viewer.json()["role"] == "viewer"
    assert as_viewer.status_code == 403
    assert [item["email"] for item in listed] == [ADMIN[0], "ben@example.org"]
    assert gone.status_code == 204
    assert after.status_code == 401
    assert again.status_code == 201
    assert again.json()["id"] != made.json()["id"]
    assert (await admin.get(f"/datasets/{made_by_ben.json()['id']}")).status_code == 200


async def test_the_last_admin_stays(house: House) -> None:
    admin = await _admin(house)
    own = f"/admin/users/{(await admin.get('/auth/me')).json()['id']}"

    answers = [
        await admin.delete(own),
        await admin.patch(own, json={"role": "viewer"}),
        await admin.patch(own, json={"is_active": False}),
    ]

    assert [answer.status_code for answer in answers] == [409, 409, 409]
    assert (await admin.get("/auth/me")).json()["role"] == "admin"


async def test_a_new_password_ends_the_sessions(sqlite_house: House) -> None:
    admin = await _admin(sqlite_house)
    own = (await admin.get("/auth/me")).json()["id"]
    old = (await _login(sqlite_house)).json()

    await admin.patch(f"/admin/users/{own}", json={"password": "another long one"})
    refreshed = await sqlite_house.stranger().post("/api/v1/auth/refresh", json={"refresh_token": old["refresh_token"]})

    assert refreshed.status_code == 401
    assert (await _login(sqlite_house)).status_code == 401
    assert (await _login(sqlite_house, password="another long one")).status_code == 200


async def test_the_audit_trail_only_grows(house: House) -> None:
    await _login(house)

    async with house.database.read() as session:
        actions = list(await session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))
    for change in ("UPDATE audit SET action = 'x'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with house.database.write() as session:
                await session.execute(text(change))

    assert actions == ["user.created", "session.opened"]


async def test_a_first_admin_without_a_password_gets_one_that_is_printed_once(
    tmp_path: Path, migrated_sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.db").write_bytes(migrated_sqlite.read_bytes())
    settings = gateway_settings(tmp_path, admin_password=None)
    database = Database(settings)

    await ensure_first_admin(database, settings)
    first = capsys.readouterr().err
    await ensure_first_admin(database, settings)
    second = capsys.readouterr().err
    async with database.read() as session:
        roles = list(await session.scalars(select(User.role)))
    await database.close()

    assert "password" in first
    assert ADMIN[0] in first
    assert second == ""
    assert roles == [Role.admin.value]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": "production"}, "JWT_SECRET"),
        ({"environment": "container"}, "JWT_SECRET"),
        ({"jwt_secret": "short"}, "32"),
        ({"database_url": "sqlite+aiosqlite:////srv/data/gateway.db", "data_root": "/srv/data"}, "DATA_ROOT"),
    ],
)
def test_settings_that_would_be_unsafe_do_not_start(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gateway_settings(tmp_path, **changes)


def test_a_container_has_its_database_on_a_volume_of_its_own() -> None:
    settings = GatewaySettings(environment="container", service_token="x" * 16, jwt_secret="y" * 32)

    assert str(settings.sqlite_file) == "/var/lib/voicewright/gateway.db"
