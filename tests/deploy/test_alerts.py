"""Does every alert ask for metrics that exist, say what to do, and fire when it should?"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.docs_tables import settings_classes
from tests.deploy.files import FOLDER, PROJECT, stack
from tests.deploy.test_monitoring import unknown_in

RULES = PROJECT / "deploy" / "monitoring" / "alerts.yaml"
[GROUP] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS: list[dict[str, Any]] = GROUP["rules"]
RUNBOOK = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")


def entries() -> dict[str, str]:
    """What the runbook says, by alert."""
    part = RUNBOOK.split("\n## Alerts\n", 1)[1].split("\n## ", 1)[0]
    _, *pieces = re.split(r"^### (\w+)$", part, flags=re.M)
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def test_each_alert_has_its_entry_in_the_runbook_and_each_entry_its_alert() -> None:
    assert list(entries()) == [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_what_is_exported_and_leads_to_its_entry(alert: dict[str, Any]) -> None:
    annotations = alert["annotations"]

    assert unknown_in(alert["expr"]) == set()
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert annotations["summary"]
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"


@pytest.mark.parametrize("name", [alert["alert"] for alert in ALERTS])
def test_an_entry_says_what_it_means_and_what_to_do(name: str) -> None:
    said = entries()[name]

    assert len(said.split()) > 25
    assert re.search(r"^1\. ", said, re.M), "steps to follow, in their order"


def test_the_commands_of_the_runbook_exist() -> None:
    text = "".join(entries().values())

    modules = set(re.findall(r"python -m (services[\w.]+)", text))
    assert modules == {"services.gateway.dead_letters"}
    assert all((PROJECT / (module.replace(".", "/") + ".py")).is_file() for module in modules)
    for script in re.findall(r"(scripts/[\w-]+)", text):
        assert (PROJECT / script).is_file(), script


def test_the_variables_of_the_runbook_are_settings() -> None:
    known = {name.upper() for settings in settings_classes().values() for name in settings.model_fields}

    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", "".join(entries().values())))
    assert named
    assert named - known == set()


def test_prometheus_loads_the_rules_from_where_they_are_mounted() -> None:
    [loaded] = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text())["rule_files"]
    mounts = stack("full")["services"]["prometheus"]["volumes"]

    assert f"../monitoring/{RULES.name}:{loaded}:ro" in mounts


def test_every_alert_is_tried_by_the_tests_of_the_rules() -> None:
    tried = yaml.safe_load(RULES.with_name("alerts.test.yaml").read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in tried for case in test["alert_rule_test"] if case.get("exp_alerts")}

    assert fired == {alert["alert"] for alert in ALERTS}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def test_prometheus_own_tool_accepts_the_rules() -> None:
    checked = promtool("check", "rules", RULES)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    tested = promtool("test", "rules", RULES.with_name("alerts.test.yaml"))

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_rule_that_never_fires_would_be_seen(tmp_path: Path) -> None:
    shutil.copy(RULES.with_name("alerts.test.yaml"), tmp_path)
    broken = RULES.read_text(encoding="utf-8").replace('{stream="DEADLETTERS"}) > 0', '{stream="DEADLETTERS"}) > 9')
    (tmp_path / RULES.name).write_text(broken, encoding="utf-8")

    assert promtool("test", "rules", tmp_path / "alerts.test.yaml").returncode != 0
