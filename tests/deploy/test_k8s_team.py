"""Is the Job of several nodes a team of trainers that find each other?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.deploy_checks import object_schemas
from scripts.deploy_checks.kustomize import Rendering
from services.trainer.settings import TrainerSettings
from tests.conftest import TOKEN
from tests.deploy.k8s import FOLDER, matches, rendering


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """What an installation with cards has when it takes the component."""
    folder = tmp_path_factory.mktemp("overlay")
    below = ("components/gpu", "components/team", "components/keda")
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [_from(folder, "base")],
                "components": [_from(folder, part) for part in below],
            }
        )
    )
    return {(found["kind"], found["metadata"]["name"]): found for found in rendering(folder)}


def _from(folder: Path, part: str) -> str:
    return os.path.relpath(FOLDER / part, folder.resolve())


def test_the_pods_of_a_team_are_trainers_that_know_their_number_and_where_they_meet(objects):
    job, trainer = objects["Job", "team"]["spec"], objects["ScaledJob", "trainer"]["spec"]["jobTargetRef"]["template"]
    [container], [usual] = job["template"]["spec"]["containers"], trainer["spec"]["containers"]
    told = {variable["name"]: variable for variable in container["env"]}

    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == int(told["TRAINING_NODES"]["value"])
    assert told["TRAINING_NODE"]["valueFrom"]["fieldRef"]["fieldPath"].endswith(
        "['batch.kubernetes.io/job-completion-index']"
    )
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    own = {"TRAINING_NODES", "TRAINING_NODE", "TRAINING_MEETING", "WORKER_IDLE"}
    assert set(told) - {variable["name"] for variable in usual["env"]} == own
    for part in ("image", "resources", "securityContext", "volumeMounts"):
        assert container[part] == usual[part]
    values = {
        name.lower(): each["value"] for name, each in told.items() if name.startswith("TRAINING_") and "value" in each
    }
    first, last = (TrainerSettings(service_token=TOKEN, training_node=n, **values) for n in (0, job["completions"] - 1))
    assert first.training_meeting == last.training_meeting


def test_the_address_where_they_meet_is_the_first_pods_and_open_to_the_team_alone(objects):
    job, service = objects["Job", "team"]["spec"]["template"], objects["Service", "team"]["spec"]
    policy = objects["NetworkPolicy", "team"]["spec"]
    [meeting] = [v["value"] for v in job["spec"]["containers"][0]["env"] if v["name"] == "TRAINING_MEETING"]
    labels = job["metadata"]["labels"]

    assert meeting == f"team-0.{job['spec']['subdomain']}:{service['ports'][0]['port']}"
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    assert matches({"matchLabels": service["selector"]}, labels)
    assert matches(policy["podSelector"], labels)
    assert not matches(
        policy["podSelector"], objects["ScaledJob", "trainer"]["spec"]["jobTargetRef"]["template"]["metadata"]["labels"]
    )
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]
    assert policy["egress"] == [{"to": [{"podSelector": policy["podSelector"]}]}]


def test_a_cluster_would_take_its_objects(objects):
    rows = object_schemas.check([Rendering("a team", tuple(objects.values()))])

    assert [row.faults for row in rows] == [()]
