"""What would a cluster run of rendered objects, and with which options of `docker run` is a container exactly that?

Only what the manifests of deploy/k8s use is known; anything else raises NotUnderstood, so that nothing is left out
unseen. Network policies, probes' restarts, scaling and scheduling belong to a cluster and are not imitated here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Object = dict[str, Any]
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_POD = {
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "nodeSelector",
    "restartPolicy",
    "securityContext",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
}


class NotUnderstood(Exception):
    """A manifest uses something that is not imitated here."""


@dataclass(frozen=True)
class Pod:
    """One pod: its name, its template, the names under which others find it, and its own volumes."""

    name: str
    workload: str
    kind: str
    template: Object
    aliases: tuple[str, ...]
    own_claims: tuple[str, ...] = ()

    @property
    def spec(self) -> Object:
        spec: Object = self.template["spec"]
        if unknown := set(spec) - _POD:
            raise NotUnderstood(f"{self.name}: {sorted(unknown)}")
        return spec

    @property
    def grace(self) -> int:
        return int(self.spec.get("terminationGracePeriodSeconds", 30))


@dataclass(frozen=True)
class Objects:
    """Everything that was rendered, and the Secrets that come from elsewhere."""

    rendered: tuple[Object, ...]
    secrets: tuple[Object, ...] = field(default=())

    def all(self, kind: str) -> Iterator[Object]:
        return (found for found in (*self.rendered, *self.secrets) if found["kind"] == kind)

    def data(self, kind: str, name: str) -> dict[str, str]:
        """The data of a ConfigMap or Secret."""
        [found] = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        plain = dict(found.get("data", {}) if kind == "ConfigMap" else found.get("stringData", {}))
        if kind == "Secret":
            plain |= {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}
        return plain

    def pods(self) -> list[Pod]:
        """Every pod that a cluster would start by itself, those of Jobs first."""
        found = []
        for kind in ("Job", "StatefulSet", "Deployment"):
            for workload in self.all(kind):
                count = 1 if kind == "Job" else workload["spec"].get("replicas", 1)
                found += [self.pod(workload, number) for number in range(count)]
        return found

    def pod(self, workload: Object, number: int, template: Object | None = None) -> Pod:
        """The pod with this number of a workload; of a ScaledJob with `template`."""
        spec, name = workload["spec"], f"{workload['metadata']['name']}-{number}"
        template = template or spec["template"]
        labels = template["metadata"]["labels"]
        services = [s for s in self.all("Service") if s["spec"]["selector"].items() <= labels.items()]
        aliases = [service["metadata"]["name"] for service in services]
        if workload["kind"] == "StatefulSet":
            aliases.append(f"{name}.{spec['serviceName']}")
        own = tuple(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ()))
        return Pod(name, workload["metadata"]["name"], workload["kind"], template, tuple(aliases), own)


def amount(text: str | int) -> int:
    """`8Gi` → bytes."""
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi|)", str(text))
    if found is None:
        raise NotUnderstood(f"an amount of {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def cores(text: str | int) -> float:
    """`250m` → 0.25."""
    text = str(text)
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def environment(container: Object, pod: Pod, objects: Objects) -> dict[str, str]:
    """What a container is told, in the order of the manifest; `$(NAME)` stands for what was told before."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if set(source) != {"configMapRef"}:
            raise NotUnderstood(f"{pod.name}: {source}")
        found |= objects.data("ConfigMap", source["configMapRef"]["name"])
    for variable in container.get("env", ()):
        if "value" in variable:
            value = _VARIABLE.sub(lambda named: found.get(named[1], named[0]), variable["value"])
        else:
            value = _from(variable["valueFrom"], container, pod, objects)
        found[variable["name"]] = value
    return found


def _from(source: Mapping[str, Any], container: Object, pod: Pod, objects: Objects) -> str:
    match source:
        case {"secretKeyRef": {"name": name, "key": key}}:
            return objects.data("Secret", name)[key]
        case {"fieldRef": {"fieldPath": "metadata.name"}}:
            return pod.name
        case {"resourceFieldRef": {"resource": "limits.cpu"}}:
            return str(-(-int(1000 * cores(container["resources"]["limits"]["cpu"])) // 1000))
    raise NotUnderstood(f"{pod.name}: {source}")


def mounts(container: Object, pod: Pod, objects: Objects, project: str, folder: Path) -> Iterator[str]:
    """The options for each mount. Files of ConfigMaps and Secrets are written below `folder`."""
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        name, place = mount["name"], mount["mountPath"]
        mode = "ro" if mount.get("readOnly") else "rw"
        match {key: value for key, value in volumes.get(name, {"claim": name}).items() if key != "name"}:
            case {"emptyDir": options}:
                size = f",size={amount(options['sizeLimit'])}" if "sizeLimit" in options else ""
                yield f"--tmpfs={place}:rw,exec,mode=1777{size}"
            case {"persistentVolumeClaim": {"claimName": claim}}:
                yield f"--volume={project}-{claim}:{place}:{mode}"
            case {"claim": claim} if claim in pod.own_claims:
                yield f"--volume={project}-{claim}-{pod.name}:{place}:{mode}"
            case {"configMap": {"name": config}}:
                yield f"--volume={_written(folder / config, objects.data('ConfigMap', config))}:{place}:ro"
            case {"secret": {"secretName": secret}}:
                yield f"--volume={_written(folder / secret, objects.data('Secret', secret))}:{place}:ro"
            case other:
                raise NotUnderstood(f"{pod.name}: the volume {name}: {other}")


def _written(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if not (folder / name).is_file():  # another pod may be reading it
            (folder / name).write_text(content, encoding="utf-8")
    return folder


def claims(pods: Iterable[Pod], project: str) -> dict[str, int]:
    """Every volume that pods mount, by Docker's name, with the group that may write to it."""
    found: dict[str, int] = {}
    for pod in pods:
        group = pod.spec["securityContext"]["fsGroup"]
        for volume in pod.spec.get("volumes", ()):
            if "persistentVolumeClaim" in volume:
                found[f"{project}-{volume['persistentVolumeClaim']['claimName']}"] = group
        found |= {f"{project}-{claim}-{pod.name}": group for claim in pod.own_claims}
    return found


def options(container: Object, pod: Pod, objects: Objects, project: str, folder: Path) -> list[str]:
    """The arguments of `docker run` after the name: options, image, command."""
    security = pod.spec["securityContext"] | container.get("securityContext", {})
    limits = container["resources"]["limits"]
    found = [
        f"--hostname={pod.name}",
        f"--network={project}",
        *(f"--network-alias={alias}" for alias in pod.aliases),
        f"--user={security['runAsUser']}:{security['runAsGroup']}",
        f"--group-add={security['fsGroup']}",
        *(f"--cap-drop={capability}" for capability in security["capabilities"].get("drop", ())),
        *(f"--cap-add={capability}" for capability in security["capabilities"].get("add", ())),
        f"--memory={amount(limits['memory'])}",
        f"--cpus={cores(limits['cpu'])}",
        f"--stop-timeout={pod.grace}",
        f"--restart={'no' if pod.kind in ('Job', 'ScaledJob') else 'always'}",
    ]
    if security.get("readOnlyRootFilesystem"):
        found.append("--read-only")
    if security.get("allowPrivilegeEscalation") is False:
        found.append("--security-opt=no-new-privileges")
    found += [f"--env={name}={value}" for name, value in environment(container, pod, objects).items()]
    found += mounts(container, pod, objects, project, folder)
    command, arguments = container.get("command", ()), container.get("args", ())
    if command:
        found.append(f"--entrypoint={command[0]}")
    return [*found, container["image"], *command[1:], *arguments]
