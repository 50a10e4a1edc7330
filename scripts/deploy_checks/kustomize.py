"""What does kustomize make of each overlay?"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MISSING = (
    "neither kubectl (1.21 or newer) nor kustomize (4 or newer) is installed here: see kubernetes.io/docs/tasks/tools; "
    "Debian 12's kubernetes-client is 1.20, whose kustomize knows no components"
)
KUBECTL, KUSTOMIZE = (1, 21), (4, 0)
"""The first versions that render components."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Rendering:
    """The objects of one overlay; `fault` says why there are none."""

    name: str
    objects: tuple[Object, ...] = ()
    fault: str = ""

    def of_kind(self, *kinds: str) -> list[Object]:
        return [one for one in self.objects if one.get("kind") in kinds]

    def named(self, kind: str, name: str) -> Object | None:
        return next((one for one in self.of_kind(kind) if one["metadata"]["name"] == name), None)


def command() -> list[str] | None:
    """How an overlay is rendered on this machine; None where nothing can."""
    return _command(os.environ.get("PATH", ""))


@functools.cache
def _command(path: str) -> list[str] | None:
    """The same for one PATH."""
    if shutil.which("kubectl", path=path) and _version("kubectl", "version", "--client", "--output=json") >= KUBECTL:
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize", path=path) and _version("kustomize", "version") >= KUSTOMIZE:
        return ["kustomize", "build"]
    return None


def _version(*command: str) -> tuple[int, int]:
    """Major and minor version that a program says of itself; (0, 0) when it says none."""
    said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    try:
        said = json.loads(said)["clientVersion"]["gitVersion"]
    except (ValueError, KeyError, TypeError):
        pass  # kustomize says it in words of its own, which differ by version
    found = re.search(r"v(\d+)\.(\d+)\.", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def overlays(folder: Path) -> list[Path]:
    """Every folder that can be applied: the overlays of `folder` (deploy/k8s)."""
    return sorted(path.parent for path in folder.glob("overlays/*/kustomization.yaml"))


def render(overlay: Path) -> Rendering:
    """The objects of one overlay, or kustomize's own words about why it cannot be rendered."""
    how = command()
    assert how, MISSING
    done = subprocess.run([*how, str(overlay)], capture_output=True, text=True, timeout=120)
    if done.returncode:
        # Where a component lies is a path of this machine.
        return Rendering(overlay.name, fault=done.stderr.strip().replace(f"{overlay.parents[1]}/", ""))
    try:
        found = [one for one in yaml.safe_load_all(done.stdout) if one]
    except yaml.YAMLError as error:
        return Rendering(overlay.name, fault=f"its rendering is no YAML: {error}")
    if not found:
        return Rendering(overlay.name, fault="it renders nothing")
    return Rendering(overlay.name, tuple(found))
