"""Do Prometheus, the dashboards, Caddy and the S3 server ask for things that exist?"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from libs.common import metrics
from libs.common.settings import PORTS
from tests.deploy.files import FOLDER, SERVICES, stack

BOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
# Prometheus adds these itself, and promises `up` for every target.
OF_PROMETHEUS = {"job", "instance", "le"}
WORDS = {
    "sum",
    "max",
    "min",
    "by",
    "rate",
    "increase",
    "histogram_quantile",
    "up",
    "and",
    "or",
    "absent",
    "label_replace",
}


def exported() -> dict[str, set[str]]:
    """Each series of `/metrics` with its labels."""
    found = {}
    for family in (m for m in vars(metrics).values() if hasattr(m, "_labelnames")):
        for suffix in SUFFIXES[family._type]:
            found[family._name + suffix] = set(family._labelnames)
    for family in REGISTRY.collect():
        if family.name.startswith("process_"):
            for sample in family.samples:
                found[sample.name] = set(sample.labels)
    return found


def queries() -> list[tuple[str, str]]:
    """Every query of every panel, with the panel's name."""
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in BOARDS]
    return [(panel["title"], target["expr"]) for b in boards for panel in b["panels"] for target in panel["targets"]]


def unknown_in(query: str) -> set[str]:
    """The series and labels of a query that no service exports."""
    known = exported()
    bare = re.sub(r'"[^"]*"', '""', query)
    series = set(re.findall(r"\b(?:voicewright|process)_\w+", bare))
    labels: set[str] = set(OF_PROMETHEUS)
    for name in series:
        labels |= known.get(name, set())
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", bare))
    asked |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", bare) for label in group.split(",")}
    functions = set(re.findall(r"\b([a-z_]+)\b(?=\s*[({])", re.sub(r"\{[^}]*\}", "", bare))) - series
    return (series - known.keys()) | (asked - labels) | (functions - WORDS)


def test_the_metrics_that_dashboards_may_use_are_those_of_the_services():
    assert exported()["voicewright_work_seconds_bucket"] == {"step"}
    assert exported()["voicewright_queue_commands"] == {"service", "lane", "state"}
    assert "process_resident_memory_bytes" in exported()


@pytest.mark.parametrize(("title", "query"), queries(), ids=[title for title, _ in queries()])
def test_a_panel_asks_for_metrics_and_labels_that_are_exported(title, query):
    assert unknown_in(query) == set()


@pytest.mark.parametrize(
    "query",
    [
        "rate(voicewright_costs_total[5m])",
        "sum by (voice) (rate(voicewright_work_total[5m]))",
        'voicewright_jobs{owner="x"}',
    ],
)
def test_a_query_for_something_else_would_be_seen(query):
    assert unknown_in(query) != set()


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.name)
def test_a_dashboard_is_one_that_grafana_can_provision(path):
    board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]

    assert board["uid"]
    assert board["title"]
    assert "id" not in board
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_grafana_finds_its_dashboards_where_they_are_mounted():
    provider = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/voicewright.yaml").read_text())["providers"][0]
    grafana = stack("full")["services"]["grafana"]
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]

    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in grafana["volumes"]
    assert source["url"] == "http://prometheus:9090"
    assert len({json.loads(path.read_text())["uid"] for path in BOARDS}) == len(BOARDS) == 2


def test_prometheus_asks_every_service_at_its_port():
    jobs = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    asked = {job["job_name"]: job["dns_sd_configs"][0] for job in jobs}

    assert {name: how["port"] for name, how in asked.items()} == PORTS
    assert all(how["names"] == [name] and how["type"] == "A" for name, how in asked.items())
    assert set(asked) == set(SERVICES)


def test_caddy_leads_to_the_gateway_and_keeps_the_metrics_inside():
    text = (FOLDER / "caddy" / "Caddyfile").read_text(encoding="utf-8")
    caddy = stack("full")["services"]["caddy"]

    assert f"reverse_proxy gateway:{PORTS['gateway']}" in text
    assert re.search(r"@inner path /metrics\n\s+respond @inner 404", text)
    assert "flush_interval -1" in text
    [inside] = re.findall(r"^(http://127\.0\.0\.1:\d+) \{\n\tbind 127\.0\.0\.1\n\trespond /healthz 200\n", text, re.M)
    assert caddy["healthcheck"]["test"][-1] == f"{inside}/healthz"
    assert set(re.findall(r"\{\$([A-Z_]+)", text)) == set(caddy["environment"])
    assert text.count("{") == text.count("}")


def test_the_s3_server_knows_one_key_pair_which_lies_in_no_file_that_others_read(tmp_path):
    weed = tmp_path / "weed"
    weed.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    weed.chmod(0o755)
    config = tmp_path / "s3.json"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "S3_CONFIG": str(config),
        "STORAGE_ACCESS_KEY": "key",
        "STORAGE_SECRET_KEY": "s3cret-_",
    }

    started = subprocess.run(
        ["/bin/sh", FOLDER / "seaweedfs" / "start.sh"], env=environment, capture_output=True, text=True, check=True
    )

    [identity] = json.loads(config.read_text())["identities"]
    assert identity["credentials"] == [{"accessKey": "key", "secretKey": "s3cret-_"}]
    assert config.stat().st_mode & 0o777 == 0o600
    assert f"-s3.config={config}" in started.stdout.splitlines()
    assert "-s3.port=8333" in started.stdout.splitlines()
    assert "s3cret" not in started.stdout + started.stderr


@pytest.mark.parametrize("missing", ["STORAGE_ACCESS_KEY", "STORAGE_SECRET_KEY"])
def test_the_s3_server_does_not_start_open_to_everybody(tmp_path, missing):
    environment = {"PATH": os.environ["PATH"], "S3_CONFIG": str(tmp_path / "s3.json"), "STORAGE_ACCESS_KEY": "a"}
    environment |= {"STORAGE_SECRET_KEY": "b"}
    del environment[missing]

    started = subprocess.run(["/bin/sh", FOLDER / "seaweedfs" / "start.sh"], env=environment, capture_output=True)

    assert started.returncode != 0
    assert not (tmp_path / "s3.json").exists()


def test_the_services_and_the_s3_server_agree_on_its_address():
    services = stack("full")["services"]

    for service in SERVICES:
        assert services[service]["environment"]["STORAGE_URL"] == "s3+http://s3:8333"
    assert "-s3.port=8333" in (FOLDER / "seaweedfs" / "start.sh").read_text()
    assert services["s3"]["healthcheck"]["test"][-1].startswith("http://127.0.0.1:8333/")
