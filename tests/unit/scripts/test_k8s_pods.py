"""Is a container of the smoke run exactly what its manifest says?"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from scripts.k8s_pods import NotUnderstood, Objects, Pod, amount, claims, cores, environment, options
from scripts.k8s_secrets import NATS_USERS, ensured, secret_objects
from tests.deploy.k8s import OVERLAYS, rendered


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    held = secret_objects(ensured(tmp_path_factory.mktemp("secrets") / "env"), "file")
    return Objects(rendered("local"), tuple(held))


def the_pod(objects: Objects, name: str) -> Pod:
    return next(pod for pod in objects.pods() if pod.name == name)


def asked(objects: Objects, name: str, folder: Path) -> list[str]:
    pod = the_pod(objects, name)
    return options(pod.spec["containers"][0], pod, objects, "p", folder)


def test_a_pod_runs_as_its_manifest_says(objects: Objects, tmp_path: Path) -> None:
    found = asked(objects, "trainer-0", tmp_path)

    assert {
        "--user=10001:10001",
        "--group-add=10001",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--stop-timeout=120",
        f"--memory={6 * 2**30}",
        "--cpus=2.0",
        f"--tmpfs=/tmp:rw,exec,mode=1777,size={8 * 2**30}",
        f"--tmpfs=/dev/shm:rw,exec,mode=1777,size={2**30}",
        "--volume=p-data:/data:rw",
        "--volume=p-assets:/assets:ro",
        "--env=TRAINING_CONCURRENCY=1",
        "--restart=always",
    } <= set(found)
    assert found[-1] == "voicewright-voice:0.1.0"


def test_servers_of_the_broker_have_their_names_their_volumes_and_their_users(objects: Objects, tmp_path: Path) -> None:
    found = asked(objects, "nats-1", tmp_path)

    aliases = {option.partition("=")[2] for option in found if option.startswith("--network-alias")}
    assert aliases == {"nats", "nats-headless", "nats-1.nats-headless"}
    assert "--volume=p-store-nats-1:/store:rw" in found
    assert "--env=POD_NAME=nats-1" in found
    for user in NATS_USERS:
        password = objects.data("Secret", "nats")[user]
        assert f'--env=NATS_{user.upper()}="{password}"' in found
    [config] = [option for option in found if option.endswith(":/etc/nats:ro")]
    assert (Path(config.partition("=")[2].partition(":")[0]) / "users.conf").is_file()
    assert found[-3:] == ["nats:2.10-alpine", "-c", "/etc/nats/nats.conf"]


def test_a_job_runs_once_and_with_its_own_command(objects: Objects, tmp_path: Path) -> None:
    found = asked(objects, "migrate-0", tmp_path)

    assert "--restart=no" in found
    assert found[-3:] == ["python", "-m", "services.gateway.migrate"]
    assert "--env=DATABASE_URL=sqlite+aiosqlite:////var/lib/voicewright/gateway.db" in found


def test_a_number_that_stands_for_the_limit_of_cores_is_that_limit(objects: Objects) -> None:
    pod = the_pod(objects, "preprocessor-0")

    assert environment(pod.spec["containers"][0], pod, objects)["PREPROCESS_PROCESSES"] == "2"


def test_every_claim_becomes_a_volume_of_the_group_that_writes_to_it(objects: Objects) -> None:
    found = claims(objects.pods(), "p")

    assert found["p-data"] == found["p-models"] == found["p-gateway"] == 10001
    assert {found[f"p-store-nats-{number}"] for number in range(3)} == {10002}


@pytest.mark.parametrize("part", ["initContainers", "hostNetwork", "dnsPolicy"])
def test_what_is_not_imitated_is_refused(objects: Objects, tmp_path: Path, part: str) -> None:
    pod = the_pod(objects, "ingest-0")
    template: dict[str, Any] = copy.deepcopy(pod.template)
    template["spec"][part] = []
    changed = Pod(pod.name, pod.workload, pod.kind, template, pod.aliases)

    with pytest.raises(NotUnderstood, match=part):
        options(template["spec"]["containers"][0], changed, objects, "p", tmp_path)


def test_amounts_are_those_of_a_cluster() -> None:
    assert (amount("8Gi"), amount("16Mi"), amount(5)) == (8 * 2**30, 16 * 2**20, 5)
    assert (cores("250m"), cores("2")) == (0.25, 2.0)
    with pytest.raises(NotUnderstood):
        amount("1.5G")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_secrets_that_are_made_are_the_ones_that_manifests_name(overlay: str, tmp_path: Path) -> None:
    made = {found["metadata"]["name"]: set(found["stringData"]) for found in secret_objects(ensured(tmp_path / "env"))}
    named: set[tuple[str, str]] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if "secretKeyRef" in value:
                named.add((value["secretKeyRef"]["name"], value["secretKeyRef"]["key"]))
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(list(rendered(overlay)))

    assert named <= {(name, key) for name, keys in made.items() for key in keys}
    assert {name for name, _ in named} >= {"platform", "gateway", "storage", "nats"}


def test_secrets_stay_when_they_are_asked_for_again_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first = ensured(tmp_path / "env")

    assert ensured(tmp_path / "env") == first
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    assert len(set(first.values())) == len(first)
    [gateway] = [o for o in secret_objects(first) if o["metadata"]["name"] == "gateway"]
    assert first["POSTGRES_PASSWORD"] in gateway["stringData"]["DATABASE_URL"]
