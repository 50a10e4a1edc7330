"""Can `scripts/k8s-smoke` be tried here, and what did it say when it was? The run itself takes an engine."""

from __future__ import annotations

import re

from scripts import k8s_smoke
from scripts.k8s_pods import Objects, options
from scripts.k8s_secrets import ensured, secret_objects
from tests.deploy.files import PROJECT
from tests.deploy.k8s import rendered

LOG = PROJECT / "docs" / "proofs" / "k8s-smoke.log"


def test_without_an_engine_it_says_so_and_tries_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert k8s_smoke.main(["--log", str(tmp_path / "log")]) == 2

    assert "docker" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_the_pods_that_are_started_by_the_queue_find_all_that_they_name(tmp_path):
    rendered("local")  # skips without kubectl
    held = tuple(secret_objects(ensured(tmp_path / "env"), "file"))
    scaled = Objects(k8s_smoke.render_scaled(tmp_path / "scaled"), held)

    for job in scaled.all("ScaledJob"):
        pod = scaled.pod(job, 100, job["spec"]["jobTargetRef"]["template"])
        found = options(pod.spec["containers"][0], pod, scaled, "p", tmp_path)
        assert {"--env=WORKER_COMMANDS=1", "--restart=no", "--read-only"} <= set(found)
    assert not {"trainer", "preprocessor"} & {pod.workload for pod in scaled.pods()}


def test_the_kept_run_worked_from_the_images_to_the_last_pod_and_names_no_place_of_its_machine():
    said = LOG.read_text(encoding="utf-8")

    assert said.rstrip().endswith("everything worked")
    for deed in ("images built", "voice trained", "converted", "pods of one command", "network or volume is left"):
        assert deed in said, deed
    assert not re.search(r"(^|[^a-z.])/(home|root|tmp|work|Users)/", said)
