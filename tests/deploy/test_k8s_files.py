"""Do the manifests of deploy/k8s say what the services need? Everything here is only rendered."""

from __future__ import annotations

import copy
import functools
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from libs.common import metrics
from libs.common.bus.broker import COMMANDS
from libs.common.bus.queues import CommandQueue
from libs.common.jobs import Lane
from scripts.deploy_checks import object_schemas
from scripts.deploy_checks.kustomize import Rendering
from scripts.docs_tables import settings_classes
from tests.deploy.files import PROJECT
from tests.deploy.k8s import (
    CLUSTER,
    FOLDER,
    KEEPS_OBJECTS,
    OVERLAYS,
    PORTS,
    SERVICES,
    WORKLOADS,
    Object,
    config_map,
    environment,
    name_of,
    of_kind,
    pod_templates,
    rendered,
)

# What an image reads itself, beside the settings.
OF_THE_IMAGE = {"SERVICE"}


def containers(overlay: str) -> Iterator[tuple[str, Object]]:
    for (kind, name), template in pod_templates(overlay).items():
        for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
            yield f"{kind} {name}: {container['name']}", container


# -- pods -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_into_one_namespace_that_takes_only_restricted_pods(overlay):
    [space] = of_kind(overlay, "Namespace").values()
    names = [(content["kind"], content["metadata"]["name"]) for content in rendered(overlay)]

    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {content["metadata"].get("namespace", "") for content in rendered(overlay)} == {"", "voicewright"}
    assert len(names) == len(set(names))
    assert {name_of(template) for template in pod_templates(overlay).values()} >= {*WORKLOADS, "nats"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_nobody_special_has_no_account_and_can_write_only_to_its_volumes(overlay):
    for (kind, name), template in pod_templates(overlay).items():
        spec, security = template["spec"], template["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, (kind, name)
        assert security["runAsUser"] >= 999
        assert security["fsGroup"] == security["runAsGroup"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
    for name, container in containers(overlay):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_container_has_requests_and_limits_and_an_image_with_an_exact_tag(overlay):
    for name, container in containers(overlay):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), name
        assert {"cpu", "memory"} <= set(resources["limits"]), name
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        assert re.fullmatch(r"[0-9][0-9A-Za-z.-]*", tag), container["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_that_stays_says_whether_it_lives_and_whether_it_is_ready(overlay):
    for (kind, name), template in pod_templates(overlay).items():
        for container in template["spec"]["containers"]:
            if kind == "Job":
                continue
            assert {"livenessProbe", "readinessProbe"} <= set(container), (name, container["name"])
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                assert port is None or port in [each["name"] for each in container["ports"]]
        if name_of(template) in SERVICES:
            [service] = template["spec"]["containers"]
            asked = {probe: service[probe]["httpGet"]["path"] for probe in service if probe.endswith("Probe")}
            assert asked == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
            assert service["ports"] == [{"containerPort": PORTS[name_of(template)], "name": "http"}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_caches_can_be_written_assets_cannot_and_shared_folders_lie_where_the_settings_say(overlay):
    for template in pod_templates(overlay).values():
        name = name_of(template)
        if name not in SERVICES:
            continue
        mounts = {mount["mountPath"]: mount for mount in template["spec"]["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
        assert volumes[mounts["/data"]["name"]]["persistentVolumeClaim"]["claimName"] == "data"
        assert mounts.get("/assets", {"readOnly": True}).get("readOnly") is True
        assert ("/assets" in mounts) == (name not in ("gateway", "ingest"))
        assert ("/models" in mounts) == (name not in ("ingest", "preprocessor"))
        assert mounts.get("/models", {}).get("readOnly", False) == (name == "inference")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_many_nodes_share_can_be_written_from_many_nodes(overlay):
    claims = of_kind(overlay, "PersistentVolumeClaim")

    shared = {name: claims[name]["spec"]["accessModes"] for name in ("data", "models", "assets")}
    assert shared == {
        name: ["ReadWriteOnce"] if overlay == "local" else ["ReadWriteMany"] for name in ("data", "models", "assets")
    }


# -- variables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_read_and_every_service_can_be_set_up_by_its_variables(overlay, monkeypatch):
    secrets = {"JWT_SECRET": "j" * 40, "SERVICE_TOKEN": "s" * 40, "DATABASE_URL": "postgresql+asyncpg://v:w@db/v"}
    classes = settings_classes()
    for (kind, name), template in pod_templates(overlay).items():
        service = WORKLOADS.get(name_of(template))
        if service is None:
            continue
        told = environment(overlay, template)
        known = {field.upper() for field in classes[service].model_fields}
        assert set(told) - OF_THE_IMAGE <= known, (kind, name)
        for variable in set(os.environ) & known:
            monkeypatch.delenv(variable)
        for variable, value in told.items():
            is_given = isinstance(value, str)
            number = "2" if not is_given and "resourceFieldRef" in value else secrets.get(variable, "s" * 20)
            monkeypatch.setenv(variable, value if is_given else number)

        settings = classes[service]()

        assert settings.environment == "production"
        assert settings.nats_replicas == 3
        assert settings.nats_url.startswith("tls://nats:" if overlay in CLUSTER else "nats://nats:")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_stands_in_a_manifest_and_each_service_is_told_only_its_own(overlay):
    assert of_kind(overlay, "Secret") == {}
    for template in pod_templates(overlay).values():
        told = environment(overlay, template)
        name = name_of(template)
        for variable, value in told.items():
            if re.search(r"(TOKEN|SECRET|PASSWORD|ACCESS_KEY|DATABASE_URL)", variable):
                assert isinstance(value, dict), (name, variable)
        if name in SERVICES:
            assert told["NATS_USER"] == name
            assert told["NATS_PASSWORD"]["secretKeyRef"] == {"name": "nats", "key": name}
            assert ("JWT_SECRET" in told) == (name == "gateway")
            assert ("STORAGE_SECRET_KEY" in told) == (name in KEEPS_OBJECTS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_given_the_time_that_its_service_takes_to_save_its_work(overlay):
    classes = settings_classes()
    for template in pod_templates(overlay).values():
        name = name_of(template)
        if name not in SERVICES:
            continue
        default = classes[WORKLOADS[name]].model_fields["drain_timeout"].default.total_seconds()
        drain = float(environment(overlay, template).get("DRAIN_TIMEOUT", default))
        # Open answers first, where there are any, then what is in hand.
        answers = drain if "lifecycle" in template["spec"]["containers"][0] else 0.0
        assert template["spec"]["terminationGracePeriodSeconds"] > drain + answers + 5, name


@pytest.mark.parametrize("overlay", CLUSTER)
def test_prometheus_asks_every_service_and_the_broker_and_knows_the_alerts(overlay):
    monitors = [*of_kind(overlay, "ServiceMonitor").values(), *of_kind(overlay, "PodMonitor").values()]
    asked = {
        name for m in monitors for rule in m["spec"]["selector"].get("matchExpressions", []) for name in rule["values"]
    }
    alerts = yaml.safe_load((PROJECT / "deploy" / "monitoring" / "alerts.yaml").read_text(encoding="utf-8"))

    assert asked == SERVICES
    assert of_kind(overlay, "PrometheusRule")["voicewright"]["spec"]["groups"] == alerts["groups"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_patch_for_a_restore_leaves_a_gateway_that_has_everything_and_does_nothing(overlay):
    gateway = copy.deepcopy(of_kind(overlay, "Deployment")["gateway"])
    container = gateway["spec"]["template"]["spec"]["containers"][0]
    usual = copy.deepcopy(container)

    for change in yaml.safe_load((FOLDER / "restore.yaml").read_text(encoding="utf-8")):
        *way, last = change["path"].strip("/").split("/")
        place = functools.reduce(lambda found, part: found[int(part) if part.isdigit() else part], way, gateway)
        assert change["op"] == "add" or last in place, change
        if change["op"] == "remove":
            del place[last]
        else:
            place[last] = change["value"]

    assert gateway["spec"]["replicas"] == 1
    assert container["args"] == ["sleep", "infinity"]
    assert not [key for key in container if key.endswith("Probe")]
    assert {"/data", "/models"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    for part in ("env", "envFrom", "volumeMounts", "securityContext", "image"):
        assert container[part] == usual[part]
    assert not [fault for row in object_schemas.check([Rendering(overlay, (gateway,))]) for fault in row.faults]


# -- scaling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", CLUSTER)
@pytest.mark.parametrize("service", ["preprocessor", "trainer"])
def test_a_pod_is_started_for_each_command_that_waits_or_is_in_hand_in_any_lane(overlay, service):
    spec = of_kind(overlay, "ScaledJob")[service]["spec"]
    told = environment(overlay, spec["jobTargetRef"]["template"])

    assert told["WORKER_COMMANDS"] == "1"
    assert told.get("TRAINING_CONCURRENCY", told.get("PREPROCESS_SLOTS", "1")) == "1"
    assert spec["scalingStrategy"] == {"strategy": "default", "multipleScalersCalculation": "sum"}
    assert {trigger["type"] for trigger in spec["triggers"]} == {"nats-jetstream"}
    assert all(trigger["metadata"]["lagThreshold"] == "1" for trigger in spec["triggers"])
    assert queues(spec["triggers"], overlay) == {(COMMANDS, f"{service}-{lane}") for lane in Lane}
    assert spec["jobTargetRef"]["backoffLimit"] == 0
    assert spec["rollout"] == {"strategy": "gradual"}  # else a new version would end the pods at work
    assert service not in of_kind(overlay, "Deployment")


@pytest.mark.parametrize("service", ["preprocessor", "trainer"])
def test_a_pod_of_one_command_is_the_service_as_it_is_elsewhere(service):
    pod = of_kind("staging", "ScaledJob")[service]["spec"]["jobTargetRef"]["template"]["spec"]
    usual = of_kind("local", "Deployment")[service]["spec"]["template"]["spec"]
    [container], [its] = pod["containers"], usual["containers"]

    assert pod["restartPolicy"] == "Never"
    assert {v["name"] for v in container["env"]} - {v["name"] for v in its["env"]} == {"WORKER_COMMANDS"}
    for part in ("ports", "securityContext", "livenessProbe", "readinessProbe"):
        assert container[part] == its[part]
    assert pod["securityContext"] == usual["securityContext"]


@pytest.mark.parametrize("overlay", CLUSTER)
def test_inference_grows_with_what_waits_for_it(overlay):
    spec = of_kind(overlay, "ScaledObject")["inference"]["spec"]
    [asked] = [t["metadata"]["query"] for t in spec["triggers"] if t["type"] == "prometheus"]
    exported = {metric._name for group in metrics.EXPORTED.values() for metric in group}

    assert set(re.findall(r"voicewright_\w+", asked)) <= exported
    assert queues(spec["triggers"], overlay) == {(COMMANDS, f"inference-{lane}") for lane in Lane}
    assert spec["scaleTargetRef"] == {"name": "inference"}
    assert "replicas" not in of_kind(overlay, "Deployment")["inference"]["spec"]
    assert spec["minReplicaCount"] >= 2


def queues(triggers: list[Any], overlay: str) -> set[tuple[str, str]]:
    """Stream and consumer of each trigger, which all ask the monitoring page of the broker's own account."""
    [headless] = [s for s in of_kind(overlay, "Service").values() if s["metadata"]["name"] == "nats-headless"]
    [port] = [each["port"] for each in headless["spec"]["ports"] if each["name"] == "monitor"]
    found = set()
    for trigger in (t["metadata"] for t in triggers if t["type"] == "nats-jetstream"):
        assert trigger["natsServerMonitoringEndpoint"] == f"nats-headless.voicewright.svc.cluster.local:{port}"
        assert f"  {trigger['account']} {{" in config_map(overlay, "nats")["users.conf"]
        found.add((trigger["stream"], trigger["consumer"]))
    return found


def test_the_consumers_that_are_counted_have_the_names_of_the_queues():
    class Named:
        service = "trainer"

    assert [CommandQueue(Named(), lane).durable for lane in Lane] == ["trainer-high", "trainer-normal", "trainer-low"]  # type: ignore[arg-type]


def test_cards_are_for_those_who_use_them_on_nodes_that_nobody_else_lands_on():
    pods = {name_of(t): t["spec"] for t in pod_templates("production").values()}
    with_card = {n for n, s in pods.items() if "nvidia.com/gpu" in s["containers"][0]["resources"]["limits"]}

    assert with_card == {"trainer", "inference"}
    for name, spec in pods.items():
        tolerated = {toleration["key"] for toleration in spec.get("tolerations", [])}
        wanted = {"trainer": {"nvidia.com/gpu", "voicewright/spot"}, "inference": {"nvidia.com/gpu"}}.get(name, set())
        assert tolerated == wanted
        assert ("nodeSelector" in spec) == (name in with_card)
        assert ("cuda" in spec["containers"][0]["image"]) == (name in with_card)
    told = environment("production", next(t for t in pod_templates("production").values() if name_of(t) == "trainer"))
    assert told["TRAINING_PROCESSES"] == str(pods["trainer"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])


# -- the broker -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_broker_has_a_server_for_each_replica_of_a_stream_and_a_user_for_each_service(overlay):
    files, nats = config_map(overlay, "nats"), of_kind(overlay, "StatefulSet")["nats"]["spec"]
    told = environment(overlay, nats["template"])
    users = set(re.findall(r"user: (\w+), password: \$NATS_(\w+)", files["users.conf"]))

    assert nats["replicas"] == 3
    assert config_map(overlay, "settings")["NATS_REPLICAS"] == "3"
    for number in range(nats["replicas"]):
        assert f"nats://nats-{number}.{nats['serviceName']}:6222" in files["nats.conf"]
    assert {user for user, _ in users} == {*SERVICES, "operator"}
    for user, variable in users:
        assert variable == user.upper()
        assert told[f"NATS_{variable}"] == f'"$(PASSWORD_{variable})"'
        assert told[f"PASSWORD_{variable}"]["secretKeyRef"] == {"name": "nats", "key": user}
    limit = re.search(r"max_payload: (\S+)", files["limits.conf"])
    assert limit is not None
    assert limit[0] in (PROJECT / "deploy" / "nats.conf").read_text(encoding="utf-8")
    assert set(re.findall(r"include (\S+)", files["nats.conf"])) | {"nats.conf"} == set(files)


def test_the_object_stores_start_script_is_the_one_of_compose():
    assert config_map("staging", "s3")["start.sh"] == (
        PROJECT / "deploy" / "compose" / "seaweedfs" / "start.sh"
    ).read_text(encoding="utf-8")
