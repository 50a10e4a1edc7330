"""Is any route open that should not be? Made from the OpenAPI document, so that a new route cannot be forgotten."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from libs.common.jobs import JobKind, JobState
from services.gateway.accounts import keys, scopes
from services.gateway.accounts.keys import Scope
from services.gateway.accounts.tables import Role
from services.gateway.app import create_app
from services.gateway.database import new_id, utcnow
from services.gateway.jobs.tables import Job
from services.gateway.routing import PREFIX
from services.gateway.voices import registry
from tests.integration.gateway.conftest import House, Person, gateway_settings, migrated_sqlite, running_house

assert migrated_sqlite

PUBLIC = {
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/health"),
    ("get", "/api/v1/version"),
    ("post", "/api/v1/auth/login"),
    ("post", "/api/v1/auth/refresh"),
}
# Not in the document, on purpose: FastAPI's own pages, the metrics, and the version beside /livez.
UNLISTED = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/metrics", "/version"}
# Lists that are the same for everybody, or an administrator's.
OF_THE_PLATFORM = {f"{PREFIX}/admin/users", f"{PREFIX}/system/services", f"{PREFIX}/providers"}
OPENAI = ("post", "/v1/audio/speech")
"""Refuses in OpenAI's form."""
METHODS = ("get", "post", "put", "patch", "delete")

_document = create_app(gateway_settings(Path("/tmp/voicewright-openapi"))).openapi()
OPERATIONS = [
    (method, path, operation)
    for path, item in _document["paths"].items()
    for method, operation in item.items()
    if method in METHODS
]
PRIVATE = [(method, path) for method, path, _ in OPERATIONS if (method, path) not in PUBLIC]


@pytest.fixture
async def house(tmp_path: Path, migrated_sqlite: Path) -> AsyncIterator[House]:
    shutil.copy(migrated_sqlite, tmp_path / "gateway.db")
    async with running_house(tmp_path, f"sqlite+aiosqlite:///{tmp_path}/gateway.db") as running:
        yield running


async def _belongings(house: House, owner: Person) -> dict[str, str]:
    """One object of each kind, by the name of the path parameter that stands for it."""
    made = await owner.upload("test", "one")
    jobs = {}
    async with house.database.write() as session:
        voice = await registry.reserve(session, owner_id=owner.id, name="test")
        for kind in JobKind:
            jobs[kind] = new_id("job")
            session.add(
                Job(
                    id=jobs[kind],
                    owner_id=owner.id,
                    kind=kind.value,
                    name="test",
                    dataset_id=made["dataset"]["id"],
                    dataset="test",
                    experiment="test",
                    voice="test",
                    preset="lite",
                    options={},
                    inputs=[],
                    losses={},
                    status=JobState.completed.value,
                    created_at=utcnow(),
                )
            )
    key, _ = await keys.create(house.database, owner.id, "test", [Scope.look], None, 50)
    return {
        "token_id": key.id,
        "dataset_id": made["dataset"]["id"],
        "sample_id": made["samples"][0]["id"],
        "model_id": voice.id,
        "training:job_id": jobs[JobKind.training],
        "preprocess:job_id": jobs[JobKind.preprocess],
        "model:job_id": jobs[JobKind.model],
        "convert:job_id": jobs[JobKind.conversion],
        "synthesize:job_id": jobs[JobKind.speech],
        "number": "1",
        "user_id": owner.id,
    }


def _filled(path: str, belongings: dict[str, str]) -> str:
    area = path.removeprefix(PREFIX).split("/")[1]

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        return belongings.get(f"{area}:{name}") or belongings[name]

    return re.sub(r"{(\w+)}", value, path)


def _body(operation: dict[str, Any]) -> dict[str, Any]:
    """A body that is accepted, from the examples of the document."""
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        return {"data": {"voice": "x", "exp_name": "x"}, "files": {"files": ("a.wav", b"RIFFx")}}
    if "application/json" not in content:
        return {}
    schema = content["application/json"]["schema"]
    schema = next((one for one in schema.get("anyOf", []) if "$ref" in one), schema)
    if "$ref" in schema:
        schema = _document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    examples = schema.get("examples") or [
        {name: (field.get("examples") or ["x"])[0] for name, field in schema.get("properties", {}).items()}
    ]
    return {"json": examples[0]}


async def test_every_route_but_the_public_ones_answers_401_without_a_token(house: House) -> None:
    anna = await house.person()
    belongings = await _belongings(house, anna)
    client = house.stranger()

    answers = {
        (method, path): await client.request(method, _filled(path, belongings), **_body(operation))
        for method, path, operation in OPERATIONS
    }

    refused = {key for key, answer in answers.items() if answer.status_code == 401}
    assert {key for key in answers if key not in PUBLIC} - refused == set()
    assert refused & PUBLIC == {("post", "/api/v1/auth/login"), ("post", "/api/v1/auth/refresh")}
    told = {key: answers[key].headers["content-type"] for key in refused}
    assert told == {key: "application/json" if key == OPENAI else "application/problem+json" for key in refused}


async def test_every_route_of_an_object_answers_404_to_a_stranger_and_changes_nothing(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    belongings = await _belongings(house, anna)
    of_objects = [
        (method, path, operation)
        for method, path, operation in OPERATIONS
        if "{" in path and not path.startswith(f"{PREFIX}/admin")
    ]

    answers = {
        (method, path): await ben.http.request(method, _filled(path, belongings), **_body(operation))
        for method, path, operation in of_objects
    }

    assert len(of_objects) > 15
    assert {key: answer.status_code for key, answer in answers.items()} == dict.fromkeys(answers, 404)
    assert all(belongings["user_id"] not in answer.text for answer in answers.values())
    assert (await anna.get("/datasets/test")).json()["version"] == 1
    assert (await anna.get(f"/samples/{belongings['sample_id']}")).status_code == 200


async def test_every_list_of_a_stranger_is_empty(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    await _belongings(house, anna)
    lists = [
        path
        for method, path, operation in OPERATIONS
        if method == "get" and "{" not in path and operation["operationId"].startswith("list_")
    ]

    answers = {path: (await ben.http.get(path)).json() for path in lists if path not in OF_THE_PLATFORM}

    assert len(answers) >= 4
    assert {path: answer["items"] for path, answer in answers.items()} == {key: [] for key in answers}


async def test_every_administrators_route_answers_403_to_everybody_else(house: House) -> None:
    anna, vera = await house.person("anna"), await house.person("vera", Role.viewer)
    routes = [entry for entry in OPERATIONS if entry[1].startswith(f"{PREFIX}/admin")]

    answers = [
        await person.http.request(method, _filled(path, {"user_id": anna.id}), **_body(operation))
        for person in (anna, vera)
        for method, path, operation in routes
    ]

    assert len(routes) >= 4
    assert [answer.status_code for answer in answers] == [403] * len(answers)


@pytest.mark.parametrize("scope", [None, *Scope])
async def test_a_key_is_good_for_the_routes_of_its_scope_and_for_no_other(house: House, scope: Scope | None) -> None:
    boss = await house.person("boss", Role.admin)
    nothing = dict.fromkeys(("dataset_id", "sample_id", "model_id", "job_id", "user_id", "token_id"), "x")
    _, secret = await keys.create(house.database, boss.id, "test", [scope] if scope else [], None, 50)
    program = house.stranger(secret)

    answers = {
        (method, path): await program.request(method, _filled(path, nothing | {"number": "1"}), **_body(operation))
        for method, path, operation in OPERATIONS
        if (method, path) not in PUBLIC
    }

    wanted = {key: scopes.needed(key[0].upper(), key[1]) for key in answers}
    refused = {key for key, answer in answers.items() if answer.status_code == 403}
    assert refused == {key for key in answers if wanted[key] is None or wanted[key] is not scope}
    assert all(answer.status_code != 401 for answer in answers.values())


def test_every_route_that_changes_something_needs_more_of_a_key_than_to_look() -> None:
    wanted = {operation["operationId"]: scopes.needed(method.upper(), path) for method, path, operation in OPERATIONS}

    of_nobody = {name for name, scope in wanted.items() if scope is None}
    assert {o["operationId"] for _, path, o in OPERATIONS if path.startswith(f"{PREFIX}/admin")} < of_nobody
    assert {"login", "refresh_token", "logout", "create_token", "list_tokens", "revoke_token"} < of_nobody
    for method, path, operation in OPERATIONS:
        assert method == "get" or wanted[operation["operationId"]] is not Scope.look, (method, path)
    using = {name for name, scope in wanted.items() if scope is Scope.use}
    assert {"synthesize", "synthesize_from_reference", "start_speech", "convert", "start_conversion"} < using
    assert {"openai_speech"} < using
    assert {"upload_samples", "start_training", "delete_model", "import_model"} & using == set()


async def test_a_viewer_changes_nothing(house: House) -> None:
    vera = await house.person("vera", Role.viewer)
    own = dict.fromkeys(("dataset_id", "sample_id", "model_id", "job_id", "user_id", "token_id"), "x")
    looking = {"logout", "revoke_token", "validate_dataset", "estimate_training"}

    answers = {
        operation["operationId"]: await vera.http.request(method, _filled(path, own), **_body(operation))
        for method, path, operation in OPERATIONS
        if method != "get" and (method, path) not in PUBLIC and operation["operationId"] not in looking
    }

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 403)


def test_no_route_is_hidden_from_the_document() -> None:
    app = create_app(gateway_settings(Path("/tmp/voicewright-openapi")))

    served = {route.path for route in _routes(app.router)}

    assert served - UNLISTED == set(_document["paths"])


def _routes(router: Any) -> list[Any]:
    found = []
    for route in router.routes:
        if hasattr(route, "path") and hasattr(route, "methods"):
            found.append(route)
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            found += _routes(inner)
    return found


def test_every_operation_has_a_readable_id_a_tag_a_summary_and_its_problems() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]

    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][a-z_]{1,40}", name) for name in ids)
    for method, path, operation in OPERATIONS:
        assert operation["tags"], path
        assert operation.get("summary"), path
        if not path.startswith(PREFIX):
            continue
        declared = set(operation["responses"])
        assert "422" in declared, path
        assert (method, path) in PUBLIC or "401" in declared, path
        assert "{" not in path or "404" in declared, path
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert "application/problem+json" in answer["content"], (path, status)


def test_every_post_that_creates_takes_an_idempotency_key() -> None:
    creating = {"create_user", "create_dataset", "upload_samples", "start_training", "start_preprocessing"} | {
        "start_conversion",
        "start_speech",
        "start_speech_from_file",
    }
    creating |= {"import_model", "extract_model", "merge_models"}

    having = {
        operation["operationId"]
        for _, _, operation in OPERATIONS
        if any(parameter["name"].lower() == "idempotency-key" for parameter in operation.get("parameters", []))
    }

    assert having == creating
    created = {operation["operationId"] for method, _, operation in OPERATIONS if "201" in operation["responses"]}
    assert created - {"create_token"} <= having  # kept answers are in the database, where no secret may be


def test_every_json_body_has_an_example() -> None:
    for _, path, operation in OPERATIONS:
        body = _body(operation)
        assert "json" not in body or any(value != "x" for value in body["json"].values()), path


def test_every_json_body_refuses_a_field_that_it_does_not_know() -> None:
    schemas = _document["components"]["schemas"]
    bodies = {
        (path, name)
        for _, path, operation in OPERATIONS
        if "application/json" in (content := operation.get("requestBody", {}).get("content", {}))
        for name in re.findall(r"schemas/(\w+)", str(content["application/json"]["schema"]))
    }

    assert len(bodies) > 10
    assert {(path, name) for path, name in bodies if schemas[name].get("additionalProperties") is not False} == set()
