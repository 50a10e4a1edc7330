"""Do the compose files say the same thing in development and in production, and nothing that is unsafe?"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from libs.common.settings import CommonSettings
from scripts.deploy_checks.compose_files import VARIABLE, with_defaults
from scripts.docs_tables import settings_classes
from scripts.secret_file import make_full_secrets, make_secrets
from tests.deploy.files import (
    FILES,
    FOLDER,
    PROJECT,
    SERVICES,
    STACKS,
    loaded,
    stack,
    variables,
)

# What the images read themselves, beside the settings.
OF_THE_IMAGE = {"SERVICE", "PYTHONPATH"}
EXAMPLE = dict(
    line.split("=", 1)
    for line in (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
ALL_TEXT = "\n".join(path.read_text(encoding="utf-8") for path in FILES)


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted at each place, with its mode."""
    found = {}
    for mount in service["volumes"]:
        source, target, *mode = with_defaults(mount).split(":")
        found[target] = ":".join([source, *mode])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_holds_only_what_both_generations_of_compose_know(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw = path.read_text(encoding="utf-8")

    assert {key for key in content if not key.startswith("x-")} <= {"services", "volumes"}
    assert not re.search(r"!(reset|override)", raw)
    for name, service in content["services"].items():
        assert not {"develop", "profiles", "extends", "container_name", "links"} & set(service), name
        for needed in service.get("depends_on", {}).values():
            assert set(needed) == {"condition"}
        assert isinstance(service.get("env_file", []), list)


@pytest.mark.parametrize("name", STACKS)
def test_what_a_service_waits_for_is_part_of_the_stack(name):
    services = stack(name)["services"]

    for service, content in services.items():
        for needed, how in content.get("depends_on", {}).items():
            assert needed in services, f"{service} waits for {needed}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{service} waits for the health of {needed}, which has none"


@pytest.mark.parametrize("name", STACKS)
def test_every_service_has_the_same_three_mounts_with_the_same_modes(name):
    for service in SERVICES:
        found = mounts(stack(name)["services"][service])

        assert {place: found[place] for place in ("/data", "/models", "/assets")} == {
            "/data": "data",
            "/models": "models",
            "/assets": "../../var/assets:ro",
        }


def test_development_differs_from_production_in_mounts_by_the_source_alone():
    for service in SERVICES:
        dev, prod = (mounts(stack(name)["services"][service]) for name in ("dev and full", "prod"))

        assert prod.items() <= dev.items()
        assert {place: dev[place] for place in dev.keys() - prod.keys()} == {
            "/src/libs": "../../libs:ro",
            "/src/services": "../../services:ro",
            "/src/reload.py": "../dev/reload.py:ro",
        }


@pytest.mark.parametrize("name", STACKS)
def test_our_containers_have_a_read_only_root_and_no_capability(name):
    for service in SERVICES:
        content = stack(name)["services"][service]

        assert content["read_only"] is True
        assert content["tmpfs"] == ["/tmp"]
        assert content["cap_drop"] == ["ALL"]
        assert "cap_add" not in content
        assert content["security_opt"] == ["no-new-privileges:true"]
        assert content["init"] is True
        assert not content.get("privileged")


@pytest.mark.parametrize("name", STACKS)
def test_no_container_sees_the_engines_socket_or_the_machines_network(name):
    for service, content in stack(name)["services"].items():
        assert not any("docker.sock" in mount for mount in content.get("volumes", [])), service
        assert not {"network_mode", "pid", "ipc", "userns_mode"} & set(content), service


@pytest.mark.parametrize("name", STACKS)
def test_images_have_exact_tags_and_can_be_pinned_by_a_digest(name):
    for service, content in stack(name)["services"].items():
        image = content["image"]
        tag = with_defaults(image).partition(":")[2]

        assert re.search(r"\d", tag), f"{service}: {image}"
        assert "latest" not in tag
        assert VARIABLE.match(image) or image.startswith("voicewright-"), f"{service}: {image}"


def test_only_caddy_can_be_reached_from_outside_and_only_when_one_says_so():
    for service, content in stack("prod")["services"].items():
        addresses = {with_defaults(port).split(":")[0] for port in content.get("ports", [])}

        assert addresses <= {"127.0.0.1"}, service
        if any("PUBLIC_ADDRESS" in port for port in content.get("ports", [])):
            assert service == "caddy"


def test_production_leaves_time_to_save_the_work_in_hand():
    usual = CommonSettings.model_fields["drain_timeout"].default.total_seconds()

    for service in SERVICES:
        content = stack("prod")["services"][service]
        drain = float(content["environment"].get("DRAIN_TIMEOUT", usual))
        assert int(content["stop_grace_period"].removesuffix("s")) > drain + 10
        # What docs/benchmarks.md measured of the largest checkpoint on a busy machine, and as long for the step before.
        assert service != "trainer" or drain > 2 * 30


def test_production_limits_memory_and_logs_of_every_service_of_ours():
    for service in (*SERVICES, "nats"):
        content = stack("prod")["services"][service]

        assert re.fullmatch(r"\d+g", with_defaults(content["mem_limit"]))
        assert set(content["logging"]["options"]) == {"max-size", "max-file"}
        assert content["restart"] == "always"


def test_the_gpu_file_gives_cards_to_those_that_compute_and_takes_another_image():
    services = stack("prod and gpu")["services"]

    for service in ("preprocessor", "trainer", "inference"):
        assert services[service]["image"].endswith("-cuda")
        assert services[service]["build"]["args"]["TORCH_INDEX_URL"] == "${TORCH_CUDA_INDEX_URL-}"
        assert services[service]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert not services["gateway"]["image"].endswith("-cuda")
    assert "deploy" not in services["ingest"]


# -- secrets and variables ---------------------------------------------------------------------------------------------


def test_no_secret_has_a_default_and_each_is_made_by_the_script():
    secrets = set(make_full_secrets())
    used = [found for found in variables(ALL_TEXT) if found["name"] in secrets]

    assert {found["name"] for found in used} == secrets
    assert {(found["name"], found["kind"]) for found in used} == {(name, ":?") for name in secrets}
    for found in used:
        expected = "run scripts/secrets" + ("" if found["name"] in make_secrets() else " --full")
        assert found["value"] == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_that_looks_like_a_secret_is_written_out(path):
    for service, content in loaded(path.name)["services"].items():
        for name, value in content.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{service}: {name}"
            else:
                assert not re.search(r"://[^/@]+:(?!\$\{)[^/@]+@", value), f"{service}: {name}"


def test_only_the_gateway_knows_what_signs_its_tokens_and_opens_its_database():
    for service in set(SERVICES) - {"gateway"}:
        environment = stack("prod")["services"][service]["environment"]
        assert not {"JWT_SECRET", "ADMIN_PASSWORD", "DATABASE_URL"} & set(environment), service


def test_every_variable_of_the_example_is_used_and_every_used_one_is_in_it():
    used = {found["name"] for found in variables(ALL_TEXT)}

    assert set(EXAMPLE) == used


def test_the_example_shows_the_defaults_and_no_secret():
    for found in variables(ALL_TEXT):
        expected = found["value"] if (found["kind"] or "").endswith("-") else ""
        assert EXAMPLE[found["name"]] == expected, found["name"]


@pytest.mark.parametrize("name", STACKS)
def test_every_variable_that_a_service_is_given_is_read_by_it(name):
    classes = settings_classes()
    for service in SERVICES:
        known = {field.upper() for field in classes[service].model_fields} | OF_THE_IMAGE

        assert set(stack(name)["services"][service]["environment"]) - known == set(), service


@pytest.mark.parametrize("name", STACKS)
def test_named_volumes_are_declared_and_mounted_files_exist(name):
    merged = stack(name)
    used = set()
    for service, content in merged["services"].items():
        for mount in content.get("volumes", []):
            source = with_defaults(mount).split(":")[0]
            if source.startswith("."):
                # var/assets is a person's own folder, which the scripts make.
                assert source == "../../var/assets" or (FOLDER / source).exists(), f"{service}: {source}"
            else:
                used.add(source)

    assert used == set(merged["volumes"])


def test_a_secret_with_a_default_would_be_seen():
    [found] = variables("${POSTGRES_PASSWORD:-postgres}")

    assert (found["kind"], found["value"]) == (":-", "postgres")
    assert with_defaults("x:${A:-b:c}:${B:?say it}") == "x:b:c:"
