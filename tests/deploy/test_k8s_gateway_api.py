"""Is the way in by the Gateway API the one that the Ingress is, and is a mistake in it found?"""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import yaml

from scripts.deploy_checks import object_references, object_schemas
from scripts.deploy_checks.kustomize import Rendering
from scripts.deploy_checks.rows import as_table
from tests.deploy.k8s import FOLDER, of_kind, rendered, rendering

GATEWAY_API = FOLDER / "components" / "gateway-api"


@pytest.fixture(scope="module")
def rendered_once(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    """The overlay `staging` with the component."""
    folder = tmp_path_factory.mktemp("gateway-api")
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "voicewright",
                "resources": [os.path.relpath(FOLDER / "overlays" / "staging", folder.resolve())],
                "components": [os.path.relpath(GATEWAY_API, folder.resolve())],
            }
        )
    )
    return Rendering("staging by the Gateway API", rendering(folder))


@pytest.fixture
def staging(rendered_once: Rendering) -> Rendering:
    """A copy to plant mistakes in."""
    return copy.deepcopy(rendered_once)


def spec(rendering: Rendering, kind: str, name: str = "gateway") -> Any:
    one = rendering.named(kind, name)
    assert one is not None, f"no {kind}/{name}"
    return one["spec"]


def faults(rendering: Rendering) -> str:
    rows = [*object_schemas.check([rendering]), object_references.check(rendering)]
    return "\n".join(fault for row in rows for fault in row.faults)


def test_nothing_is_wrong_with_it_and_no_ingress_is_left(staging: Rendering) -> None:
    rows = [*object_schemas.check([staging]), object_references.check(staging)]

    assert [row for row in rows if row.faults] == [], as_table(rows)
    assert staging.named("Ingress", "gateway") is None
    assert staging.named("NetworkPolicy", "gateway-from-ingress") is None


def test_it_passes_on_what_the_ingress_does_by_tls_alone(staging: Rendering) -> None:
    [rule] = of_kind("staging", "Ingress")["gateway"]["spec"]["rules"]
    by_ingress = {(path["path"].rstrip("/"), path["pathType"]) for path in rule["http"]["paths"]}
    [route] = spec(staging, "HTTPRoute")["rules"]
    [elsewhere] = spec(staging, "HTTPRoute", "gateway-to-https")["rules"]
    listeners = {one["name"]: one["protocol"] for one in spec(staging, "Gateway")["listeners"]}

    kinds = {"PathPrefix": "Prefix", "Exact": "Exact"}
    assert {(m["path"]["value"], kinds[m["path"]["type"]]) for m in route["matches"]} == by_ingress
    assert [parent["sectionName"] for parent in spec(staging, "HTTPRoute")["parentRefs"]] == ["https"]
    assert listeners == {"https": "HTTPS", "http": "HTTP"}
    assert "backendRefs" not in elsewhere
    assert elsewhere["filters"][0]["requestRedirect"]["scheme"] == "https"


def test_production_comes_in_by_it_under_one_name() -> None:
    objects = rendered("production")
    [gateway] = of_kind("production", "Gateway").values()
    routes = of_kind("production", "HTTPRoute").values()

    assert not [one for one in objects if one["kind"] == "Ingress"]
    names = {one["hostname"] for one in gateway["spec"]["listeners"]}
    assert {host for route in routes for host in route["spec"]["hostnames"]} == names
    assert len(names) == 1


def test_only_the_pods_of_this_gateway_may_reach_ours(staging: Rendering) -> None:
    [way] = spec(staging, "NetworkPolicy", "gateway-from-gateway-api")["ingress"]
    [peer] = way["from"]

    assert way["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert peer["podSelector"]["matchLabels"]["gateway.envoyproxy.io/owning-gateway-name"] == "gateway"
    assert "namespaceSelector" in peer


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("HTTPRoute", lambda s: s["rules"][0]["backendRefs"][0].update(name="door"), "there is no Service/door"),
        ("HTTPRoute", lambda s: s["rules"][0]["backendRefs"][0].update(port=80), "Service/gateway has no port 80"),
        ("HTTPRoute", lambda s: s["parentRefs"][0].update(sectionName="tls"), "Gateway/gateway has no listener tls"),
        ("HTTPRoute", lambda s: s["parentRefs"][0].update(name="other"), "there is no Gateway/other"),
        ("HTTPRoute", lambda s: s.update(hostnames=["a.example.org"]), "listener https is for voices.example.org"),
        ("HTTPRoute", lambda s: s["rules"][0].update(timeouts={"request": "never"}), "'never' does not match"),
        ("HTTPRoute", lambda s: s["rules"][0].update(backendRef=[]), "'backendRef' was unexpected"),
        ("Gateway", lambda s: s["listeners"][0].pop("tls"), "'tls' is a required property"),
        ("Gateway", lambda s: s["listeners"][0].update(port=0), "0 is less than the minimum of 1"),
    ],
)
def test_a_mistake_in_it_is_found(staging: Rendering, kind: str, change: Any, said: str) -> None:
    change(spec(staging, kind))

    assert said in faults(staging)
