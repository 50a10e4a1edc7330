"""Has every object the fields that its kind has, in each Kubernetes version that is supported, and no others?

The schemas of Kubernetes come with the package kubernetes-validate, so nothing is asked of the network. Those of
KEDA and of the Prometheus operator are our own, in `schemas/`: the fields that we use and no more, so a misspelt one is
seen; what of Kubernetes is in them (a pod's template) is Kubernetes' own again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

from scripts.deploy_checks.kustomize import Object, Rendering
from scripts.deploy_checks.objects import called
from scripts.deploy_checks.rows import Row, found

SUPPORTED = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
"""Kubernetes versions whose schemas every object must fit."""
OWN = Path(__file__).with_name("schemas")
_GROUP = re.compile(r"^([^./]*)(?:\.[^/]*)?/")


@cache
def _definitions(version: str) -> tuple[Any, Any]:
    """The folder of one version's schemas, which refuse unknown fields, and the definitions that they share."""
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    shared = Resource.from_contents(json.loads((folder / "_definitions.json").read_text(encoding="utf-8")))
    return folder, shared @ Registry()


@cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    """The validator of one kind, None where that version does not know it."""
    folder, registry = _definitions(version)
    # apps/v1 → apps-v1, networking.k8s.io/v1 → networking-v1
    group = _GROUP.sub(r"\1-", api_version)
    schema = folder / f"{kind.lower()}-{group}.json"
    if not schema.is_file():
        return None
    content = json.loads(schema.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(content, registry=Resource.from_contents(content) @ registry)


@cache
def _own_validator(version: str, api_version: str, kind: str) -> Any:
    """The validator of a kind that is not Kubernetes' own, None where we have no schema of it."""
    path = OWN / f"{kind.lower()}.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["properties"]["apiVersion"]["const"] != api_version:
        return None
    shared = Resource.from_contents(json.loads((OWN / "_shared.json").read_text(encoding="utf-8")))
    _, registry = _definitions(version)
    return jsonschema.Draft202012Validator(content, registry=[shared, Resource.from_contents(content)] @ registry)


def faults_of(one: Object, version: str) -> list[str]:
    """What is wrong with one object in one version."""
    api_version, kind = str(one.get("apiVersion", "")), str(one.get("kind", ""))
    validator = _own_validator(version, api_version, kind) or _validator(version, api_version, kind)
    if validator is None:
        return [f"there is no {kind or 'object without kind'} of {api_version or 'no version'}"]
    errors = sorted(validator.iter_errors(one), key=lambda error: str(error.json_path))
    return [f"{_place(error)}{_said(error)}" for error in errors]


def _place(error: Any) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")
    return f"{path}: " if path else ""


def _said(error: Any) -> str:
    """The message without the whole object in it."""
    text = str(error.message)
    return text if len(text) <= 200 else f"{text[:90]} … {text[-90:]}"


def check(renderings: list[Rendering]) -> Iterator[Row]:
    """One row for each overlay; an object that several overlays have alike is looked at once."""
    known: dict[str, list[str]] = {}
    for rendering in renderings:
        faults = []
        for one in rendering.objects:
            text = json.dumps(one, sort_keys=True, default=str)
            if text not in known:
                known[text] = _in_every_version(one)
            faults += [f"{called(one)}: {fault}" for fault in known[text]]
        versions = f"{SUPPORTED[0]}-{SUPPORTED[-1]}"
        yield found("objects", rendering.name, f"{len(rendering.objects)} objects, Kubernetes {versions}", faults)


def _in_every_version(one: Object) -> list[str]:
    """The faults of one object; one that not every version has is said with the versions that have it."""
    seen: dict[str, list[str]] = {}
    for version in SUPPORTED:
        for fault in faults_of(one, version):
            seen.setdefault(fault, []).append(version)
    return [
        fault if len(versions) == len(SUPPORTED) else f"{fault} (Kubernetes {', '.join(versions)})"
        for fault, versions in seen.items()
    ]
