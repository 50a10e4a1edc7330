"""Can trainer and inference speak on Kubernetes, and nobody else?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.voice.xtts.base import LICENCE
from scripts.deploy_checks import object_schemas, variables
from scripts.deploy_checks.kustomize import Rendering
from tests.deploy.files import PROJECT
from tests.deploy.k8s import FOLDER, rendering


@pytest.fixture(scope="module")
def rendered_once(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    """The base with the component, and with pods of one command."""
    folder = tmp_path_factory.mktemp("xtts")

    def path(part: str) -> str:
        return os.path.relpath(FOLDER / part, Path(folder).resolve())

    content: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [path("base")],
        "components": [path("components/xtts"), path("components/keda")],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return Rendering("xtts", rendering(folder))


def told(template: Any) -> dict[str, Any]:
    [container] = template["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_trainings_and_inference_accept_the_licence_and_nobody_else_hears_of_it(rendered_once: Rendering) -> None:
    trainer, inference = rendered_once.named("ScaledJob", "trainer"), rendered_once.named("Deployment", "inference")
    assert trainer is not None
    assert inference is not None

    accepted = [trainer["spec"]["jobTargetRef"]["template"], inference["spec"]["template"]]

    assert [told(template)["XTTS_LICENCE_ACCEPTED"] for template in accepted] == [LICENCE, LICENCE]
    assert yaml.safe_dump_all(rendered_once.objects).count("XTTS_LICENCE_ACCEPTED") == 2


def test_a_cluster_and_the_services_take_it(rendered_once: Rendering) -> None:
    rows = [
        *object_schemas.check([rendered_once]),
        variables.check_rendering(rendered_once, PROJECT / "deploy" / "Dockerfile"),
    ]

    assert [fault for row in rows for fault in row.faults] == []
