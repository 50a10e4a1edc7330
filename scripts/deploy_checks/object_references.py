"""Does everything that an object names exist in the same overlay? No schema can say that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.deploy_checks.kustomize import Object, Rendering
from scripts.deploy_checks.objects import Pod, called, pods, selects
from scripts.deploy_checks.rows import Row, found


def check(rendering: Rendering) -> Row:
    """Every name and every selector of one overlay."""
    everybody = pods(rendering)
    faults = [f"{pod.name}: {fault}" for pod in everybody for fault in _pod(pod, rendering)]
    for one in rendering.objects:
        faults += [f"{called(one)}: {fault}" for fault in _object(one, everybody, rendering)]
    faults += _twice(rendering)
    return found("references", rendering.name, f"{len(rendering.objects)} objects", faults)


def _twice(rendering: Rendering) -> Iterator[str]:
    names = [(one.get("apiVersion"), called(one), one["metadata"].get("namespace")) for one in rendering.objects]
    for version, name, _ in {entry for entry in names if names.count(entry) > 1}:
        yield f"{name} of {version} is there twice"


def _pod(pod: Pod, rendering: Rendering) -> Iterator[str]:
    """What the pods mount and read. Secrets are made outside the manifests; `variables` looks at their names."""
    claims = {one["metadata"]["name"] for one in rendering.of_kind("PersistentVolumeClaim")}
    maps = {one["metadata"]["name"]: one for one in rendering.of_kind("ConfigMap")}
    accounts = {one["metadata"]["name"] for one in rendering.of_kind("ServiceAccount")} | {"default"}
    account = pod.spec.get("serviceAccountName", "default")
    if account not in accounts:
        yield f"there is no ServiceAccount/{account}"
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or []}
    for volume in volumes.values():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim and claim not in claims:
            yield f"there is no PersistentVolumeClaim/{claim}"
        config = volume.get("configMap") or {}
        if config and not config.get("optional"):
            if config.get("name") not in maps:
                yield f"there is no ConfigMap/{config.get('name')}"
            else:
                keys = {**(maps[config["name"]].get("data") or {}), **(maps[config["name"]].get("binaryData") or {})}
                for item in config.get("items") or []:
                    if item["key"] not in keys:
                        yield f"ConfigMap/{config['name']} has no {item['key']}"
    volumes |= {claim["metadata"]["name"]: claim for claim in pod.owner["spec"].get("volumeClaimTemplates") or []}
    mounted = set()
    for container in pod.containers():
        for mount in container.get("volumeMounts") or []:
            mounted.add(mount["name"])
            if mount["name"] not in volumes:
                yield f"{container['name']} mounts {mount['name']}, which is no volume of the pod"
        for source in container.get("envFrom") or []:
            name = (source.get("configMapRef") or {}).get("name")
            if name and name not in maps:
                yield f"{container['name']} reads ConfigMap/{name}, which is not there"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = ((container.get(probe) or {}).get("httpGet") or {}).get("port")
            if isinstance(port, str) and port not in _ports(container):
                yield f"{container['name']}: {probe} asks at port {port}, which it does not have"
    for name in set(volumes) - mounted:
        yield f"volume {name} is mounted by nobody"
    selector = pod.owner["spec"].get("selector")
    if isinstance(selector, dict) and "template" in pod.owner["spec"] and not selects(selector, pod.labels):
        yield "its selector does not take its own pods"


def _ports(container: dict[str, Any]) -> set[Any]:
    ports = container.get("ports") or []
    return {port.get("name") for port in ports} | {port["containerPort"] for port in ports}


def _object(one: Object, everybody: list[Pod], rendering: Rendering) -> Iterator[str]:
    kind, spec = one.get("kind"), one.get("spec") or {}
    if kind == "Service" and spec.get("selector"):
        yield from _service(spec, everybody)
    elif kind == "PodDisruptionBudget" and not _taken(spec.get("selector") or {}, everybody):
        yield "takes no pod"
    elif kind == "NetworkPolicy":
        if not _taken(spec.get("podSelector") or {}, everybody):
            yield "takes no pod"
        yield from _arrows(spec, everybody)
    elif kind == "StatefulSet" and not rendering.named("Service", str(spec.get("serviceName"))):
        yield f"there is no Service/{spec.get('serviceName')}"
    elif kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        target = spec.get("scaleTargetRef") or {}
        if not rendering.named(target.get("kind", "Deployment"), str(target.get("name"))):
            yield f"there is no {target.get('kind', 'Deployment')}/{target.get('name')} to scale"
    elif kind == "Ingress":
        yield from _ingress(spec, rendering)
    elif kind == "HTTPRoute":
        yield from _route(spec, rendering)
    elif kind == "ServiceMonitor":
        yield from _monitor(spec, rendering)
    elif kind == "PodMonitor":
        yield from _pod_monitor(spec, everybody)
    elif kind == "Certificate":
        wanted = spec.get("issuerRef") or {}
        if wanted.get("kind", "Issuer") == "Issuer" and not rendering.named("Issuer", str(wanted.get("name"))):
            yield f"there is no Issuer/{wanted.get('name')}"
    elif kind == "Issuer" and "ca" in spec:
        made = {(each.get("spec") or {}).get("secretName") for each in rendering.of_kind("Certificate")}
        if spec["ca"].get("secretName") not in made:
            yield f"no Certificate makes the Secret/{spec['ca'].get('secretName')}"
    if kind in ("ScaledObject", "ScaledJob"):
        for trigger in spec.get("triggers") or []:
            name = (trigger.get("authenticationRef") or {}).get("name")
            if name and not rendering.named("TriggerAuthentication", name):
                yield f"there is no TriggerAuthentication/{name}"


def _taken(selector: dict[str, Any], everybody: list[Pod]) -> list[Pod]:
    return [pod for pod in everybody if selects(selector, pod.labels)]


def _service(spec: dict[str, Any], everybody: list[Pod]) -> Iterator[str]:
    behind = _taken({"matchLabels": spec["selector"]}, everybody)
    if not behind:
        yield "leads to no pod"
        return
    for port in spec.get("ports") or []:
        target = port.get("targetPort", port["port"])
        if not any(target in _ports(container) for pod in behind for container in pod.containers()):
            yield f"port {port.get('name', port['port'])} leads to {target}, which no container behind it has"


def _arrows(spec: dict[str, Any], everybody: list[Pod]) -> Iterator[str]:
    """The pods of this namespace that a policy names must exist; other namespaces are not ours to know.

    Whoever is reached must have the port.
    """
    own = _taken(spec.get("podSelector") or {}, everybody)
    for way, side in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(way) or []:
            peers: list[Pod] = []
            for peer in rule.get(side) or []:
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    named = _taken(peer["podSelector"], everybody)
                    peers += named
                    if not named:
                        yield f"{way} names pods that are not there: {peer['podSelector']}"
            reached = own if way == "ingress" else peers
            for port in (each["port"] for each in rule.get("ports") or [] if "port" in each):
                if reached and not any(port in _ports(each) for pod in reached for each in pod.containers()):
                    yield f"{way} opens port {port}, which nobody there has"


def _ingress(spec: dict[str, Any], rendering: Rendering) -> Iterator[str]:
    backends = [spec["defaultBackend"]] if "defaultBackend" in spec else []
    for rule in spec.get("rules") or []:
        backends += [path["backend"] for path in (rule.get("http") or {}).get("paths") or []]
    if not spec.get("tls"):
        yield "has no TLS"
    for backend in backends:
        wanted = backend.get("service") or {}
        service = rendering.named("Service", str(wanted.get("name")))
        if service is None:
            yield f"there is no Service/{wanted.get('name')}"
        elif not _has_port(service, wanted.get("port") or {}):
            yield f"Service/{wanted['name']} has no port {wanted.get('port')}"


def _route(spec: dict[str, Any], rendering: Rendering) -> Iterator[str]:
    """A route of the Gateway API: the listeners that it names, their public names, and the services behind it."""
    for parent in spec.get("parentRefs") or []:
        gateway = rendering.named("Gateway", str(parent.get("name")))
        if gateway is None:
            yield f"there is no Gateway/{parent.get('name')}"
            continue
        listeners = gateway["spec"].get("listeners") or []
        taken = [one for one in listeners if parent.get("sectionName") in (None, one["name"])]
        if not taken:
            yield f"{called(gateway)} has no listener {parent.get('sectionName')}"
        for listener in taken:
            if listener.get("hostname") and spec.get("hostnames") and listener["hostname"] not in spec["hostnames"]:
                yield f"listener {listener['name']} is for {listener['hostname']}, which the route does not name"
    for wanted in (each for rule in spec.get("rules") or [] for each in rule.get("backendRefs") or []):
        service = rendering.named("Service", str(wanted.get("name")))
        if service is None:
            yield f"there is no Service/{wanted.get('name')}"
        elif not _has_port(service, {"number": wanted.get("port")}):
            yield f"{called(service)} has no port {wanted.get('port')}"


def _has_port(service: Object, wanted: dict[str, Any]) -> bool:
    ports = service["spec"].get("ports") or []
    return any(
        port.get("name") == wanted.get("name") if "name" in wanted else port["port"] == wanted.get("number")
        for port in ports
    )


def _monitor(spec: dict[str, Any], rendering: Rendering) -> Iterator[str]:
    services = [
        one
        for one in rendering.of_kind("Service")
        if selects(spec.get("selector") or {}, one["metadata"].get("labels") or {})
    ]
    if not services:
        yield "takes no Service"
    for endpoint in spec.get("endpoints") or []:
        for service in services:
            if not _has_port(service, {"name": endpoint.get("port")}):
                yield f"{called(service)} has no port {endpoint.get('port')}"


def _pod_monitor(spec: dict[str, Any], everybody: list[Pod]) -> Iterator[str]:
    taken = _taken(spec.get("selector") or {}, everybody)
    if not taken:
        yield "takes no pod"
    for endpoint in spec.get("podMetricsEndpoints") or []:
        for pod in taken:
            if not any(endpoint.get("port") in _ports(container) for container in pod.containers()):
                yield f"{pod.name} has no port {endpoint.get('port')}"
