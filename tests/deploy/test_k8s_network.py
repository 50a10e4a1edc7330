"""Is the network of deploy/k8s shut but for the arrows of the architecture? The policies are only read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from tests.deploy.k8s import (
    CLUSTER,
    KEEPS_OBJECTS,
    OVERLAYS,
    PORTS,
    SERVICES,
    Object,
    matches,
    name_of,
    of_kind,
    pod_templates,
)

# -- the arrows of docs/architecture.md: who reaches whom, at which port ----------------------------------------------
INSIDE = {
    *((name, "nats", 4222) for name in SERVICES),
    ("gateway", "ingest", 8001),
    ("gateway", "inference", 8004),
    ("nats", "nats", 6222),
}
DATABASE = ("gateway", "migrate")
PROMETHEUS, KEDA = "monitoring/prometheus", "keda/keda-operator"
INGRESS, GATEWAY_API = "ingress-nginx/controller", "envoy-gateway-system/gateway/voicewright"
FROM_OUTSIDE = {
    *((PROMETHEUS, name, PORTS[name]) for name in SERVICES),
    (PROMETHEUS, "nats", 7777),
    (KEDA, "nats", 8222),
}
ARROWS = {
    "local": INSIDE,
    "staging": INSIDE
    | FROM_OUTSIDE
    | {(INGRESS, "gateway", 8000)}
    | {(name, "postgres", 5432) for name in DATABASE}
    | {(name, "s3", 8333) for name in KEEPS_OBJECTS},
    "production": INSIDE
    | FROM_OUTSIDE
    | {(GATEWAY_API, "gateway", 8000)}
    | {(name, "outside", 5432) for name in DATABASE}
    | {(name, "outside", 443) for name in KEEPS_OBJECTS},
}


def ends(peers: list[Object], names: list[str], labels: dict[str, dict[str, str]]) -> Iterator[str]:
    """Who a policy's peers are: names of our pods, `namespace/pod` of others, `outside` for addresses."""
    for peer in peers:
        if "ipBlock" in peer:
            yield "outside"
        elif "namespaceSelector" in peer:
            [space] = peer["namespaceSelector"]["matchLabels"].values()
            yield "/".join([space, *sorted(peer["podSelector"]["matchLabels"].values())])
        else:
            yield from (name for name in names if matches(peer["podSelector"], labels[name]))


def open_ways(overlay: str, direction: str) -> set[tuple[str, str, int]]:
    """(from, to, port) as the policies of one direction allow it; names of ports are those of the pods."""
    labels = {name_of(t): t["metadata"]["labels"] for t in pod_templates(overlay).values()}
    names = list(labels)
    found = set()
    for policy in of_kind(overlay, "NetworkPolicy").values():
        selected = [name for name in names if matches(policy["spec"]["podSelector"], labels[name])]
        assert selected, f"{policy['metadata']['name']} selects no pod"
        for rule in policy["spec"].get(direction, []):
            others = list(ends(rule["to" if direction == "egress" else "from"], names, labels))
            assert others, policy["metadata"]["name"]
            for own in selected:
                for other in others:
                    for port in rule["ports"]:
                        number = PORTS[own] if port["port"] == "http" else port["port"]
                        found.add((own, other, number) if direction == "egress" else (other, own, number))
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_is_shut_but_for_the_arrows_of_the_architecture(overlay):
    everybody = {name_of(template) for template in pod_templates(overlay).values()}
    shut = of_kind(overlay, "NetworkPolicy")["default-deny"]["spec"]
    names = {(who, "kube-system/kube-dns", 53) for who in everybody}
    strangers = {PROMETHEUS, KEDA, INGRESS, GATEWAY_API}

    going, coming = open_ways(overlay, "egress"), open_ways(overlay, "ingress")

    assert shut == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert going == {arrow for arrow in ARROWS[overlay] if arrow[0] not in strangers} | names
    assert coming == {arrow for arrow in ARROWS[overlay] if arrow[1] != "outside"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_addresses_budgets_and_monitors_mean_pods_that_exist(overlay):
    templates = pod_templates(overlay).values()
    ports = {name_of(t): {p["name"] for c in t["spec"]["containers"] for p in c.get("ports", [])} for t in templates}
    labels = {name_of(t): t["metadata"]["labels"] for t in templates}
    for service in of_kind(overlay, "Service").values():
        [name] = [n for n in labels if matches({"matchLabels": service["spec"]["selector"]}, labels[n])]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports[name]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for content in of_kind(overlay, kind).values():
            assert [n for n in labels if matches(content["spec"]["selector"], labels[n])], content["metadata"]["name"]
    for monitor in of_kind(overlay, "ServiceMonitor").values():
        found = [
            s
            for s in of_kind(overlay, "Service").values()
            if matches(monitor["spec"]["selector"], s["metadata"]["labels"])
        ]
        assert {service["metadata"]["name"] for service in found} == {"gateway", "ingest", "inference"}


def ways_in(overlay: str) -> list[tuple[str, str]]:
    """What the Ingress, or the route of the Gateway API, passes on: paths, each with `Exact` or `Prefix`."""
    if ingress := of_kind(overlay, "Ingress"):
        [rule] = ingress["gateway"]["spec"]["rules"]
        return [(path["path"], path["pathType"]) for path in rule["http"]["paths"]]
    [rule] = of_kind(overlay, "HTTPRoute")["gateway"]["spec"]["rules"]
    return [(match["path"]["value"], match["path"]["type"].removeprefix("Path")) for match in rule["matches"]]


def is_passed_on(path: str, ways: list[tuple[str, str]]) -> bool:
    """`Exact` is to the letter, `Prefix` by whole parts of the path."""
    parts = path.strip("/").split("/")
    for way, kind in ways:
        wanted = way.strip("/").split("/")
        if path == way if kind == "Exact" else parts[: len(wanted)] == wanted:
            return True
    return False


@pytest.mark.parametrize("overlay", CLUSTER)
def test_every_address_of_the_api_is_passed_on_and_what_is_for_the_inside_is_not(overlay, tmp_path, make_settings):
    given = make_settings().model_dump(include={"service_token", "data_root"})
    app = create_app(GatewaySettings(**given, database_url=f"sqlite+aiosqlite:///{tmp_path}/gateway.db"))
    inside = {"/livez", "/readyz", "/health", "/metrics"}

    asked = {*app.openapi()["paths"], "/docs", "/openapi.json", "/version", "/metrics"}
    passed = {path for path in asked if is_passed_on(path, ways_in(overlay))}

    assert asked - passed == inside
    assert "/v1/audio/speech" in passed


def test_people_come_in_by_tls_alone_and_see_nothing_that_is_for_the_inside():
    ingress = of_kind("staging", "Ingress")["gateway"]["spec"]
    [rule] = ingress["rules"]

    assert [tls["hosts"] for tls in ingress["tls"]] == [[rule["host"]]]
    paths = [path["path"] for path in rule["http"]["paths"]]
    assert not any(inner.startswith(path) for path in paths for inner in ("/metrics", "/livez", "/readyz"))
    assert "/api/" in paths
    assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {"gateway"}
