"""The overlays of deploy/k8s as kubectl renders them, and what of them tests ask for."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.deploy_checks import kustomize
from tests.deploy.files import PROJECT

FOLDER = PROJECT / "deploy" / "k8s"
CLUSTER = ("staging", "production")
OVERLAYS = ("local", *CLUSTER)
# The deployments and jobs of our own images, with the service whose settings each reads.
WORKLOADS = {
    "gateway": "gateway",
    "migrate": "gateway",
    "ingest": "ingest",
    "preprocessor": "preprocessor",
    "trainer": "trainer",
    "models": "trainer",
    "inference": "inference",
}
PORTS = {"gateway": 8000, "ingest": 8001, "trainer": 8002, "models": 8002, "preprocessor": 8003, "inference": 8004}
SERVICES = frozenset(PORTS)
KEEPS_OBJECTS = ("gateway", "ingest", "trainer", "models")
Object = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> tuple[Object, ...]:
    """Every object of an overlay. Skips, with the reason, where nothing can render it; in CI that is a failure."""
    return rendering(FOLDER / "overlays" / overlay)


def must_render() -> list[str]:
    """How an overlay is rendered here; in CI a machine that cannot is a failure, elsewhere a skip with the reason."""
    how = kustomize.command()
    if how is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(kustomize.MISSING)
    return how


def rendering(folder: Path) -> tuple[Object, ...]:
    """Every object of a folder that can be applied."""
    how = must_render()
    done = subprocess.run([*how, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Object]:
    """The objects of one kind by name."""
    return {found["metadata"]["name"]: found for found in rendered(overlay) if found["kind"] == kind}


def pod_templates(overlay: str) -> dict[tuple[str, str], Object]:
    """The pod of each workload, by kind and name."""
    found = {}
    for content in rendered(overlay):
        kind, spec = content["kind"], content.get("spec") or {}
        template = spec.get("jobTargetRef", spec).get("template") if kind != "Certificate" else None
        if template:
            found[kind, content["metadata"]["name"]] = template
    return found


def config_map(overlay: str, name: str) -> dict[str, str]:
    """The data of the ConfigMap of this name; kustomize adds a hash to it."""
    [data] = [
        content["data"] for key, content in of_kind(overlay, "ConfigMap").items() if key.rpartition("-")[0] == name
    ]
    return dict(data)


def environment(overlay: str, template: Object) -> dict[str, Any]:
    """What a pod's own container is told: plain values as text, all others as the source that they come from."""
    [container] = [found for found in template["spec"]["containers"] if found["name"] != "exporter"]
    found: dict[str, Any] = {}
    for source in container.get("envFrom", []):
        found |= config_map(overlay, source["configMapRef"]["name"].rpartition("-")[0])
    for variable in container.get("env", []):
        found[variable["name"]] = variable.get("value", variable.get("valueFrom"))
    return found


def name_of(template: Object) -> str:
    """The name of the service, or server, that a pod is."""
    return str(template["metadata"]["labels"]["app.kubernetes.io/name"])


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector means a pod with these labels."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", [])
    )
