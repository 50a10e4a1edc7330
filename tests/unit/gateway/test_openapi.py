"""Does the API's description tell a newcomer what each operation does, how it is refused, and in which unit?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.app import create_app
from services.gateway.openapi import TAGS
from services.gateway.routing import PREFIX
from services.gateway.settings import GatewaySettings

# Numbers whose name says what they count, or of what they are.
PLAIN = {"id", "total", "waiting", "completed", "failed", "cancelled", "total_steps"}
UNITS = ("_seconds", "_bytes", "_hz", "_db")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of a gateway that is not running."""
    root: Path = tmp_path_factory.mktemp("gateway")
    settings = GatewaySettings(
        service_token="x" * 32,
        data_root=root / "data",
        models_root=root / "models",
        database_url=f"sqlite+aiosqlite:///{root}/gateway.db",
    )
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation of the API, with a name for a message."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith(PREFIX):
                yield f"{method.upper()} {path}", operation


def test_every_operation_has_a_summary_of_its_own_and_a_known_domain(document: dict[str, Any]) -> None:
    made_up = {
        name: operation["summary"]
        for name, operation in operations(document)
        if operation["summary"].lower().replace(" ", "_") in (operation["operationId"], "")
        or operation["summary"].istitle()
    }

    assert made_up == {}
    assert {tag for _, operation in operations(document) for tag in operation["tags"]} <= set(TAGS)
    assert [tag["name"] for tag in document["tags"]] == list(TAGS)


def test_every_refusal_is_described_as_problem_details(document: dict[str, Any]) -> None:
    refusals = [
        (name, status, answer)
        for name, operation in operations(document)
        for status, answer in operation["responses"].items()
        if int(status) >= 400
    ]

    assert [(name, status) for name, status, answer in refusals if not answer["description"]] == []
    pointers = {str(answer["content"]["application/problem+json"]["schema"]) for _, _, answer in refusals}
    assert pointers == {"{'$ref': '#/components/schemas/Problem'}"}
    assert {"code", "detail", "suggested_actions"} <= set(document["components"]["schemas"]["Problem"]["properties"])


def test_what_may_be_repeated_under_a_key_says_that_it_may_still_be_at_work(document: dict[str, Any]) -> None:
    keyed = {
        name: operation
        for name, operation in operations(document)
        if any(parameter["name"].lower() == "idempotency-key" for parameter in operation.get("parameters", []))
    }

    assert "POST /api/v1/datasets" in keyed
    assert [name for name, operation in keyed.items() if "409" not in operation["responses"]] == []


def test_what_is_answered_in_ranges_says_which_range_it_has_not(document: dict[str, Any]) -> None:
    ranged = {name for name, operation in operations(document) if "206" in operation["responses"]}
    refusing = {name for name, operation in operations(document) if "416" in operation["responses"]}

    assert "GET /api/v1/samples/{sample_id}/audio" in ranged
    assert ranged == refusing


def test_every_number_names_its_unit_or_is_described(document: dict[str, Any]) -> None:
    unclear = []
    for model, schema in document["components"]["schemas"].items():
        for name, field in schema.get("properties", {}).items():
            kinds = {field.get("type"), *(kind.get("type") for kind in field.get("anyOf", []))}
            is_clear = "description" in field or name in PLAIN or name.endswith(UNITS)
            if kinds & {"integer", "number"} and not is_clear and model != "Problem":
                unclear.append(f"{model}.{name}")

    assert unclear == []


PROJECT = Path(__file__).resolve().parents[3]
GUIDES = [
    *(path for path in (PROJECT / "docs").glob("*.md") if path.name != "features.md"),  # it has addresses of others too
    *(PROJECT / "services").glob("*/README.md"),
]
INNER = ("/preprocess/", "/trainer/")
"""Older addresses, which preprocessor and trainer answer on ports of their own."""


def test_every_address_that_the_documents_tell_people_to_ask_is_one_of_the_api(document: dict[str, Any]) -> None:
    named = {
        address.split("?")[0].rstrip(".,")
        for guide in GUIDES
        for address in re.findall(r"(?:/api/v1|\$API)(/[^\s\"'`),]+)", guide.read_text(encoding="utf-8"))
        if not address.startswith(INNER)
    }
    # a WebSocket is in no OpenAPI document
    known = [re.sub(r"\{\w+\}", "[^/]+", path.removeprefix(PREFIX)) for path in (*document["paths"], "/ws/convert")]

    assert {"/training/stats", "/system/services", "/admin/logs"} <= named
    assert sorted(address for address in named if not any(re.fullmatch(path, address) for path in known)) == []
