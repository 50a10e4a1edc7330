"""Where in a Kubernetes object are its pods, and what is each object called?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scripts.deploy_checks.kustomize import Object, Rendering

# Where a pod's template is in each kind that has one.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "ScaledJob": ("spec", "jobTargetRef", "template"),
    "Pod": (),
}
SERVING = ("Deployment", "StatefulSet", "DaemonSet")
"""Kinds whose pods are there for good."""


@dataclass(frozen=True)
class Pod:
    """The pods of one object: who makes them, their labels and their specification."""

    owner: Object
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        return called(self.owner)

    def containers(self, *, init: bool = True) -> Iterator[dict[str, Any]]:
        """Every container, those that run before the others first."""
        if init:
            yield from self.spec.get("initContainers") or []
        yield from self.spec.get("containers") or []


def called(one: Object) -> str:
    """`Deployment/gateway`."""
    return f"{one.get('kind', 'an object without kind')}/{one.get('metadata', {}).get('name', 'without name')}"


def pods(rendering: Rendering) -> list[Pod]:
    """The pods of every object that makes some."""
    found = []
    for one in rendering.objects:
        steps = TEMPLATES.get(str(one.get("kind")))
        if steps is None:
            continue
        template: Any = one
        for step in steps:
            template = (template or {}).get(step) or {}
        found.append(Pod(one, template.get("metadata", {}).get("labels") or {}, template.get("spec") or {}))
    return found


def is_ours(container: dict[str, Any]) -> bool:
    """Whether a container runs one of the platform's own images, in whatever registry."""
    return str(container.get("image", "")).rsplit("/", 1)[-1].startswith("voicewright-")


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector (matchLabels, matchExpressions; {} takes everything) takes `labels`."""
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    for rule in selector.get("matchExpressions") or []:
        value, how, values = labels.get(rule["key"]), rule["operator"], rule.get("values") or []
        fits = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fits.get(how, False):
            return False
    return True
