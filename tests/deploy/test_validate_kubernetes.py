"""Does `scripts/validate-deploy` find what is planted in the overlays, and nothing in them as they are?"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import validate_deploy
from scripts.deploy_checks import (
    kustomize,
    monitoring,
    object_policy,
    object_references,
    object_schemas,
    scalers,
    variables,
)
from scripts.deploy_checks.kustomize import Object, Rendering
from scripts.deploy_checks.rows import Row, as_table
from tests.deploy.files import PROJECT
from tests.deploy.k8s import must_render

DOCKERFILE = PROJECT / "deploy" / "Dockerfile"


@pytest.fixture(scope="module")
def renderings() -> list[Rendering]:
    """Every overlay. Where nothing can render them this is skipped, and in CI a failure."""
    must_render()
    return validate_deploy.render(PROJECT)


@pytest.fixture
def staging(renderings: list[Rendering]) -> Rendering:
    """A copy of the overlay that has most components, to plant mistakes in."""
    [found] = [rendering for rendering in renderings if rendering.name == "staging"]
    return copy.deepcopy(found)


def spec(rendering: Rendering, kind: str, name: str) -> Any:
    """The specification of the pods of one object."""
    one = rendering.named(kind, name)
    assert one is not None, f"no {kind}/{name}"
    return one["spec"]["jobTargetRef"]["template"]["spec"] if kind == "ScaledJob" else one["spec"]["template"]["spec"]


def first(pod: Any) -> Any:
    return pod["containers"][0]


def service(rendering: Rendering, name: str, kind: str = "Deployment") -> Any:
    """The container of one of our services."""
    return first(spec(rendering, kind, name))


def trigger(rendering: Rendering, number: int = 0) -> Any:
    """One of the trainer's triggers."""
    return scaled(rendering, "ScaledJob", "trainer")["triggers"][number]


def scaled(rendering: Rendering, kind: str, name: str) -> Any:
    one = rendering.named(kind, name)
    assert one is not None, f"no {kind}/{name}"
    return one["spec"]


def faults(*rows: Row) -> str:
    return "\n".join(fault for row in rows for fault in row.faults)


Plant = Callable[[Rendering], object]


def test_nothing_is_wrong_with_any_overlay(renderings):
    rows = [
        *validate_deploy.check_kubernetes(PROJECT, renderings),
        *(
            row
            for rendering in renderings
            for row in monitoring.check_rendering(rendering, PROJECT / "docs" / "operations.md")
        ),
    ]

    assert {rendering.name for rendering in renderings} == {"local", "staging", "production"}
    assert [row for row in rows if row.faults] == [], as_table(rows)


def test_every_kind_that_is_not_kubernetes_own_has_a_schema_that_is_used(renderings):
    kinds = {(str(o["apiVersion"]), str(o["kind"])) for r in renderings for o in r.objects if "." in o["apiVersion"]}
    foreign = {kind for api_version, kind in kinds if "k8s.io" not in api_version}

    assert {"ScaledJob", "ScaledObject", "Certificate"} <= foreign
    assert {kind.lower() for kind in foreign} <= {path.stem for path in object_schemas.OWN.glob("*.json")}


def misspell(rendering: Rendering) -> None:
    pod = spec(rendering, "Deployment", "gateway")
    pod["terminationGracePeriodSecond"] = pod.pop("terminationGracePeriodSeconds")


def of_an_old_version(rendering: Rendering) -> None:
    next(one for one in rendering.objects if one["kind"] == "PodDisruptionBudget")["apiVersion"] = "policy/v1beta1"


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (misspell, "Deployment/gateway: spec.template.spec: Additional properties are not allowed"),
        (of_an_old_version, "there is no PodDisruptionBudget of policy/v1beta1"),
        (
            lambda r: service(r, "gateway")["ports"][0].update(containerPort="http"),
            "Deployment/gateway: spec.template.spec.containers[0].ports[0].containerPort: 'http' is not of type",
        ),
        (
            lambda r: service(r, "trainer", "ScaledJob").update(commands=["sh"]),
            "ScaledJob/trainer: spec.jobTargetRef.template.spec.containers[0]: Additional properties",
        ),
        (
            lambda r: trigger(r)["metadata"].update(lagThreshold=1),
            "ScaledJob/trainer: spec.triggers[0].metadata.lagThreshold: 1 is not of type 'string'",
        ),
        (
            lambda r: scaled(r, "ScaledObject", "inference")["triggers"][-1].update(type="nats-jetsteam"),
            "ScaledObject/inference: spec.triggers[",
        ),
        (lambda r: r.objects[0].update(kind="Namespase"), "there is no Namespase of v1"),
    ],
)
def test_an_object_that_a_cluster_would_not_take_is_found(staging, plant, said):
    plant(staging)

    assert said in faults(*object_schemas.check([staging]))


def test_a_kind_that_only_newer_versions_know_is_said_with_the_versions_that_lack_it():
    one: Object = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "a"},
        "spec": {"mutations": [], "failurePolicy": "Fail", "reinvocationPolicy": "Never"},
    }

    [row] = object_schemas.check([Rendering("made up", (one,))])

    assert "there is no MutatingAdmissionPolicy" in faults(row)
    assert f"(Kubernetes {object_schemas.SUPPORTED[0]}" in faults(row)
    assert "1.37" not in faults(row)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda r: service(r, "gateway").update(image="voicewright-light"), "has no exact tag"),
        (lambda r: service(r, "nats", "StatefulSet").update(image="nats:latest"), "nats:latest has no exact tag"),
        (
            lambda r: spec(r, "Deployment", "gateway")["securityContext"].update(runAsUser=0),
            "Deployment/gateway: service: may run as root",
        ),
        (
            lambda r: spec(r, "ScaledJob", "trainer")["securityContext"].pop("runAsNonRoot"),
            "ScaledJob/trainer: service: may run as root",
        ),
        (
            lambda r: service(r, "ingest")["securityContext"].update(readOnlyRootFilesystem=False),
            "Deployment/ingest: service: its root can be written",
        ),
        (
            lambda r: service(r, "ingest")["securityContext"].pop("allowPrivilegeEscalation"),
            "may gain privileges",
        ),
        (lambda r: service(r, "ingest")["securityContext"].pop("capabilities"), "keeps capabilities"),
        (lambda r: spec(r, "Deployment", "ingest")["securityContext"].pop("seccompProfile"), "has no seccomp profile"),
        (
            lambda r: service(r, "inference")["resources"].pop("limits"),
            "Deployment/inference: service: has no resources.limits.memory",
        ),
        (lambda r: spec(r, "Deployment", "gateway").update(hostNetwork=True), "hostNetwork shares"),
        (
            lambda r: spec(r, "Deployment", "gateway")["volumes"].append({"name": "a", "hostPath": {"path": "/"}}),
            "volume a is a folder of the node",
        ),
        (
            lambda r: spec(r, "Deployment", "gateway").pop("automountServiceAccountToken"),
            "has a token for the cluster's API",
        ),
        (lambda r: service(r, "gateway").pop("readinessProbe"), "readinessProbe is missing"),
        (
            lambda r: spec(r, "ScaledJob", "trainer").update(terminationGracePeriodSeconds=30),
            "is killed 30 s after it is asked to go",
        ),
        (
            lambda r: service(r, "gateway")["env"].append({"name": "JWT_SECRET", "value": "hunter2"}),
            "Deployment/gateway: service: the secret JWT_SECRET is written out",
        ),
        (
            lambda r: r.named("Service", "gateway").update(kind="Secret", data={"SERVICE_TOKEN": "aHVudGVyMg=="}),
            "Secret/gateway: a secret is in the manifest: SERVICE_TOKEN",
        ),
    ],
)
def test_an_unsafe_pod_and_a_secret_in_a_manifest_are_found(staging, plant, said):
    plant(staging)

    assert said in faults(object_policy.check(staging))


def settings_map(rendering: Rendering) -> Any:
    return next(o for o in rendering.of_kind("ConfigMap") if o["metadata"]["name"].startswith("settings"))


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (
            lambda r: r.named("Service", "ingest")["spec"]["selector"].update({"app.kubernetes.io/name": "injest"}),
            "Service/ingest: leads to no pod",
        ),
        (
            lambda r: r.named("Service", "gateway")["spec"]["ports"][0].update(targetPort="web"),
            "Service/gateway: port http leads to web, which no container behind it has",
        ),
        (
            lambda r: spec(r, "Deployment", "gateway")["volumes"][0].update(
                persistentVolumeClaim={"claimName": "gone"}
            ),
            "Deployment/gateway: there is no PersistentVolumeClaim/gone",
        ),
        (
            lambda r: service(r, "gateway")["volumeMounts"].append({"name": "gone", "mountPath": "/x"}),
            "Deployment/gateway: service mounts gone, which is no volume of the pod",
        ),
        (
            lambda r: service(r, "gateway")["envFrom"][0]["configMapRef"].update(name="settings"),
            "reads ConfigMap/settings, which is not there",
        ),
        (
            lambda r: scaled(r, "ScaledObject", "inference")["scaleTargetRef"].update(name="infrence"),
            "ScaledObject/inference: there is no Deployment/infrence to scale",
        ),
        (
            lambda r: r.named("Ingress", "gateway")["spec"]["rules"][0]["http"]["paths"][0].update(
                backend={"service": {"name": "gateway", "port": {"number": 80}}}
            ),
            "Ingress/gateway: Service/gateway has no port",
        ),
        (lambda r: r.named("Ingress", "gateway")["spec"].pop("tls"), "Ingress/gateway: has no TLS"),
        (
            lambda r: r.named("NetworkPolicy", "ingest")["spec"]["ingress"][0]["ports"][0].update(port=8000),
            "NetworkPolicy/ingest: ingress opens port 8000, which nobody there has",
        ),
        (
            lambda r: r.named("PodDisruptionBudget", "gateway")["spec"]["selector"]["matchLabels"].update(a="b"),
            "PodDisruptionBudget/gateway: takes no pod",
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_found(staging, plant, said):
    plant(staging)

    assert said in faults(object_references.check(staging))


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (
            lambda r: service(r, "trainer", "ScaledJob")["env"].append({"name": "TRAINING_CONCURENCY", "value": "1"}),
            "ScaledJob/trainer, service: TRAINING_CONCURENCY is set, and trainer does not read it",
        ),
        (
            lambda r: service(r, "trainer", "ScaledJob")["env"].append({"name": "LEASE_TTL", "value": "a while"}),
            "ScaledJob/trainer, service: LEASE_TTL: ",
        ),
        (
            lambda r: service(r, "ingest")["env"].append({"name": "EXAMINERS", "value": "3"}),
            "Deployment/ingest, service: EXAMINERS is set twice",
        ),
        (
            lambda r: service(r, "ingest").update(
                env=[e for e in service(r, "ingest")["env"] if e["name"] != "SERVICE_TOKEN"]
            ),
            "Deployment/ingest, service: SERVICE_TOKEN is not set",
        ),
        (
            lambda r: settings_map(r)["data"].update(NATS_URL="nats://broker:4222"),
            "Deployment/gateway, service: NATS_URL leads to broker, which is not there",
        ),
        (lambda r: settings_map(r)["data"].update(NATS_REPLICAS="9"), "Deployment/gateway, service: NATS_REPLICAS: "),
    ],
)
def test_a_variable_that_does_not_fit_the_settings_is_found(staging, plant, said):
    plant(staging)

    assert said in faults(variables.check_rendering(staging, DOCKERFILE))


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (
            lambda r: trigger(r)["metadata"].update(consumer="trainer-urgent"),
            "ScaledJob/trainer: there is no consumer trainer-urgent",
        ),
        (
            lambda r: scaled(r, "ScaledJob", "trainer")["triggers"].pop(),
            "is not looked at, so nothing comes for it",
        ),
        (
            lambda r: trigger(r)["metadata"].update(stream="EVENTS"),
            "there is no stream EVENTS",
        ),
        (
            lambda r: trigger(r)["metadata"].update(natsServerMonitoringEndpoint="broker:8222"),
            "there is no Service/broker to ask",
        ),
        (lambda r: spec(r, "ScaledJob", "trainer").pop("restartPolicy"), "need restartPolicy Never or OnFailure"),
    ],
)
def test_a_scaler_that_looks_at_the_wrong_queue_is_found(staging, plant, said):
    plant(staging)

    assert said in faults(*scalers.check(staging))


def test_an_overlay_that_cannot_be_rendered_is_said_in_kustomizes_own_words(renderings, tmp_path):
    shutil.copytree(PROJECT / "deploy" / "k8s", tmp_path / "k8s")
    (tmp_path / "k8s" / "base" / "gateway.yaml").unlink()

    rendering = kustomize.render(tmp_path / "k8s" / "overlays" / "local")

    assert rendering.objects == ()
    assert "gateway.yaml" in rendering.fault
    [row, *_] = validate_deploy.check_kubernetes(Path("/nowhere"), [rendering])
    assert (row.check, row.result) == ("kustomize", "1 faults")
