"""Is any container of the compose files more powerful, more reachable or less limited than it has to be?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from scripts.deploy_checks.compose_files import VARIABLE, Stack, with_defaults
from scripts.deploy_checks.rows import Row, found

SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL")
_OF_THE_ENVIRONMENT = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")
_KEY_IN_ADDRESS = re.compile(r"://[^/@\s]+:(?!\$\{[A-Z_]+:\?)[^/@\s]+@")
_EXACT = re.compile(r"@sha256:[0-9a-f]{64}$|:[\w.-]*\d[\w.-]*$")


def exact(image: str) -> bool:
    """Whether an image is named by its digest, or by a tag that is a version and not `latest`."""
    return bool(_EXACT.search(image)) and ":latest" not in image


def is_ours(service: dict[str, Any]) -> bool:
    return str(service.get("image", "")).startswith("voicewright-")


def check(stack: Stack) -> Row:
    """Every service of a stack against the rules."""
    faults = [f"{name}: {fault}" for name, service in stack.services.items() for fault in _faults(service, stack)]
    return found("policy", stack.name, f"{len(stack.services)} services", faults)


def _faults(service: dict[str, Any], stack: Stack) -> Iterator[str]:
    image = with_defaults(str(service.get("image", "")))
    if not exact(image):
        yield f"image {image or 'of no name'} has no exact tag"
    if str(service.get("user", "10001")).split(":")[0] in ("0", "root"):
        yield "runs as root"
    if service.get("privileged") or service.get("cap_add"):
        yield "asks for more rights than a container has"
    for key in ("network_mode", "pid", "ipc", "userns_mode"):
        if key in service:
            yield f"{key}: {service[key]} shares what belongs to the machine"
    if any("docker.sock" in str(mount) for mount in service.get("volumes", [])):
        yield "sees the engine's socket"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges: no-new-privileges is missing"
    if is_ours(service):
        if service.get("read_only") is not True:
            yield "its root can be written"
        if service.get("cap_drop") != ["ALL"]:
            yield "keeps capabilities"
    health = service.get("healthcheck", {})
    if health.get("disable") or not (is_ours(service) or health.get("test")):  # ours have one in the image
        yield "nobody asks whether it is healthy"
    for port in service.get("ports", []):
        if with_defaults(str(port)).split(":")[0] != "127.0.0.1":
            yield f"port {port} can be reached from outside without being asked for"
    if "prod" in stack.options and not service.get("mem_limit"):
        yield "has no limit of memory"
    if "prod" in stack.options and not service.get("logging", {}).get("options", {}).get("max-size"):
        yield "its log has no end"
    yield from _secrets(service.get("environment", {}))


def _secrets(environment: dict[str, Any]) -> Iterator[str]:
    for name, value in environment.items():
        text = str(value)
        if SECRET.search(name) and not _OF_THE_ENVIRONMENT.fullmatch(text) and not text.startswith("/"):
            shown = "has a default" if VARIABLE.search(text) else "is written out"
            yield f"the secret {name} {shown}"
        elif _KEY_IN_ADDRESS.search(text):
            yield f"{name} holds a password in plain text"
