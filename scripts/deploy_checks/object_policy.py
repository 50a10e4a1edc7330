"""Is any pod more powerful or less limited than it has to be, and is there a secret in a manifest?

The rules are those of Pod Security `restricted`, and a few of our own: exact images, limits, read-only roots, probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libs.common.settings import CommonSettings
from scripts.deploy_checks.compose_policy import SECRET, exact
from scripts.deploy_checks.kustomize import Rendering
from scripts.deploy_checks.objects import SERVING, Pod, called, is_ours, pods
from scripts.deploy_checks.rows import Row, found

SPARE_GRACE = 10
"""Seconds that a pod has after DRAIN_TIMEOUT before it is killed."""


def check(rendering: Rendering) -> Row:
    """Every pod and every Secret of one overlay against the rules."""
    everybody = pods(rendering)
    faults = [f"{pod.name}: {fault}" for pod in everybody for fault in _pod(pod)]
    faults += [f"{called(one)}: {fault}" for one in rendering.objects for fault in _object(one)]
    return found("policy", rendering.name, f"{len(everybody)} kinds of pod", faults)


def _pod(pod: Pod) -> Iterator[str]:
    context = pod.spec.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield f"{key} shares what belongs to the node"
    for volume in pod.spec.get("volumes") or []:
        if "hostPath" in volume:
            yield f"volume {volume.get('name')} is a folder of the node"
    if pod.spec.get("automountServiceAccountToken") is not False and not pod.spec.get("serviceAccountName"):
        yield "has a token for the cluster's API: automountServiceAccountToken is not false"
    containers = list(pod.containers())
    if not containers:
        yield "has no container"
    for container in containers:
        yield from (f"{container.get('name')}: {fault}" for fault in _container(container, context))
    if str(pod.owner["kind"]) in SERVING:
        for container in pod.containers(init=False):
            for probe in ("livenessProbe", "readinessProbe"):
                if is_ours(container) and probe not in container:
                    yield f"{container.get('name')}: nobody asks for its health: {probe} is missing"
    if any(is_ours(container) for container in containers) and pod.owner["kind"] not in ("Job", "CronJob"):
        yield from _grace(pod)


def _container(container: dict[str, Any], of_pod: dict[str, Any]) -> Iterator[str]:
    image, own = str(container.get("image", "")), container.get("securityContext") or {}
    if not exact(image):
        yield f"image {image or 'of no name'} has no exact tag"
    user = own.get("runAsUser", of_pod.get("runAsUser"))
    if own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True or user == 0:
        yield "may run as root: runAsNonRoot is not true, or the user is 0"
    if (own.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if own.get("privileged"):
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges: allowPrivilegeEscalation is not false"
    if "ALL" not in (own.get("capabilities") or {}).get("drop", []) or (own.get("capabilities") or {}).get("add"):
        yield "keeps capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written: readOnlyRootFilesystem is not true"
    resources = container.get("resources") or {}
    for kind, names in (("requests", ("cpu", "memory")), ("limits", ("memory",))):
        for name in names:
            if name not in (resources.get(kind) or {}):
                yield f"has no resources.{kind}.{name}"
    if any("hostPort" in port for port in container.get("ports") or []):
        yield "takes a port of the node"
    for variable in container.get("env") or []:
        value = str(variable.get("value") or "")
        # A path to a file, or another variable that came from a Secret, is none.
        if SECRET.search(variable["name"]) and value and not value.startswith(("/", "$(", '"$(')):
            yield f"the secret {variable['name']} is written out"


def _grace(pod: Pod) -> Iterator[str]:
    drain = CommonSettings.model_fields["drain_timeout"].default.total_seconds()
    for container in pod.containers(init=False):
        for variable in container.get("env") or []:
            if variable["name"] == "DRAIN_TIMEOUT" and "value" in variable:
                drain = max(drain, float(variable["value"]))
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    if grace < drain + SPARE_GRACE:
        yield f"is killed {grace} s after it is asked to go, and takes up to {drain:g} s: raise the grace period"


def _object(one: dict[str, Any]) -> Iterator[str]:
    if one.get("kind") == "Secret":
        held = {**(one.get("data") or {}), **(one.get("stringData") or {})}
        if any(held.values()):
            yield f"a secret is in the manifest: {', '.join(sorted(held))}"
    if one.get("kind") == "ConfigMap":
        for name, value in (one.get("data") or {}).items():
            if SECRET.search(name) and value:
                yield f"the secret {name} is in a ConfigMap"
