"""Do the files of compose and Kubernetes set what the services read, and nothing that nobody reads?

The settings classes themselves decide: each is made from exactly the variables that its container would have, with
something in place of every secret, so a wrong value is found as well as a missing one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from libs.common.settings import CommonSettings
from scripts.deploy_checks import compose_policy
from scripts.deploy_checks.compose_files import VARIABLE, Stack
from scripts.deploy_checks.kustomize import Rendering
from scripts.deploy_checks.objects import Pod, is_ours, pods
from scripts.deploy_checks.rows import Row, found
from scripts.docs_tables import settings_classes

# What the images and the libraries in them read themselves, beside the settings.
OF_THE_IMAGE = re.compile(
    r"SERVICE|PYTHON[A-Z]+|PATH|HOME|TZ|NUMBA_CACHE_DIR|MPLCONFIGDIR|TORCH[A-Z_]*|(OMP|MKL|NCCL|CUDA|NVIDIA|OTEL)_[A-Z_]+"
)
STAND_IN = "stands-in-for-a-secret-of-more-than-32-characters"
ADDRESS = "postgresql+asyncpg://voicewright:stand-in@database.example.org/voicewright"
_ENV = re.compile(r"(\w+)=(\S+)")
_OTHER = re.compile(r"\$\((\w+)\)")


def of_dockerfile(text: str) -> dict[str, str]:
    """What the images set for every container."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.removeprefix("ENV ") for line in joined.splitlines() if line.startswith("ENV ")]
    return {name: value for line in lines for name, value in _ENV.findall(line)}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """This process with exactly these variables, for as long as a settings class is made."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def faults_of(service: str, given: Mapping[str, str], base: Mapping[str, str], hosts: set[str]) -> Iterator[str]:
    """What is wrong with the variables `given` to a container of `service`.

    `base`: those of the image; `hosts`: the names that can be reached beside it.
    """
    classes = settings_classes()
    if service not in classes:
        yield f"there is no service {service!r}; SERVICE must be one of {', '.join(classes)}"
        return
    fields = {name.upper() for name in classes[service].model_fields}
    for name in given:
        if name not in fields and not OF_THE_IMAGE.fullmatch(name):
            yield f"{name} is set, and {service} does not read it"
    try:
        with environment({**base, **given}):
            settings = classes[service]()
    except ValidationError as error:
        for each in error.errors():
            what = ".".join(str(step) for step in each["loc"]).upper() or "the settings together"
            missing = each["type"] == "missing"
            yield f"{what} is not set" if missing else f"{what}: {each['msg']}"
        return
    yield from _addresses(settings, hosts)


def _addresses(settings: CommonSettings, hosts: set[str]) -> Iterator[str]:
    """Addresses of this installation must lead somewhere; a name with dots is somebody else's."""
    for name, value in settings:
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if not isinstance(text, str) or "://" not in text or not urlsplit(text).hostname:
            continue
        host = urlsplit(text).hostname or ""
        if host in ("localhost", "127.0.0.1"):
            yield f"{name.upper()} leads to the container itself"
        elif "." not in host and host not in hosts:
            yield f"{name.upper()} leads to {host}, which is not there"


# -- compose -----------------------------------------------------------------------------------------------------------


def check_stack(stack: Stack, dockerfile: Path) -> Row:
    """Every service of ours in one stack."""
    base = of_dockerfile(dockerfile.read_text(encoding="utf-8"))
    faults, ours = [], 0
    for name, content in stack.services.items():
        if not compose_policy.is_ours(content):
            continue
        ours += 1
        given = {k: VARIABLE.sub(_stand_in, str(v)) for k, v in content.get("environment", {}).items()}
        service = given.get("SERVICE", "")
        faults += [f"{name}: {fault}" for fault in faults_of(service, given, base, set(stack.services))]
    return found("variables", stack.name, f"{ours} services", faults)


def _stand_in(variable: re.Match[str]) -> str:
    return variable["value"] if (variable["kind"] or "").endswith("-") else STAND_IN


def check_example(stacks: list[Stack], example: Path) -> Row:
    """`.env.example` lists what the compose files ask for, and nothing else."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in {path for stack in stacks for path in stack.files})
    asked = {variable["name"] for variable in VARIABLE.finditer(text)}
    lines = [line for line in example.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    listed = {line.split("=", 1)[0] for line in lines}
    faults = [f"{name} is asked for by a compose file and not listed" for name in sorted(asked - listed)]
    faults += [f"{name} is listed and asked for by no compose file" for name in sorted(listed - asked)]
    return found("variables", ".env.example", f"{len(listed)} variables", faults)


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def check_rendering(rendering: Rendering, dockerfile: Path) -> Row:
    """Every container of ours in one overlay."""
    base = of_dockerfile(dockerfile.read_text(encoding="utf-8"))
    hosts = {one["metadata"]["name"] for one in rendering.of_kind("Service")}
    faults, ours = [], 0
    for pod in pods(rendering):
        for container in filter(is_ours, pod.containers()):
            ours += 1
            place = f"{pod.name}, {container['name']}"
            names = [variable["name"] for variable in container.get("env") or []]
            faults += [f"{place}: {name} is set twice" for name in sorted({n for n in names if names.count(n) > 1})]
            given = _given(container, rendering)
            service = given.get("SERVICE") or _started(container)
            faults += [f"{place}: {fault}" for fault in faults_of(service, given, base, hosts)]
    return found("variables", rendering.name, f"{ours} containers", faults)


def _started(container: dict[str, Any]) -> str:
    """The service whose module a container starts, where SERVICE does not say it."""
    words = " ".join(str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])])
    module = re.search(r"services\.(\w+)", words)
    return module[1] if module else ""


def _given(container: dict[str, Any], rendering: Rendering) -> dict[str, str]:
    """The variables of a container; what comes from a Secret or from the cluster has a stand-in."""
    given: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        config = rendering.named("ConfigMap", str((source.get("configMapRef") or {}).get("name")))
        given |= {f"{source.get('prefix', '')}{k}": str(v) for k, v in ((config or {}).get("data") or {}).items()}
    for variable in container.get("env") or []:
        name, source = variable["name"], variable.get("valueFrom") or {}
        if "configMapKeyRef" in source:
            config = rendering.named("ConfigMap", str(source["configMapKeyRef"].get("name"))) or {}
            given[name] = str((config.get("data") or {}).get(source["configMapKeyRef"].get("key"), ""))
        elif "secretKeyRef" in source:
            given[name] = ADDRESS if name.endswith("_URL") else STAND_IN
        elif source:
            given[name] = "1"
        else:
            value = str(variable.get("value", ""))
            given[name] = _OTHER.sub(lambda other: given.get(other[1], other[0]), value)
    return given


def secrets_of(pod: Pod) -> set[tuple[str, str]]:
    """The names and keys of the Secrets that a pod's variables come from."""
    return {
        (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for container in pod.containers()
        for variable in container.get("env") or []
        if "secretKeyRef" in (variable.get("valueFrom") or {})
    }
