"""Does `scripts/validate-deploy` find what is planted in a copy of deploy/, and nothing in the files as they are?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scripts import validate_deploy
from scripts.deploy_checks import compose_config, compose_policy, compose_schema, kustomize, monitoring, variables
from scripts.deploy_checks.compose_files import Stack, stacks
from scripts.deploy_checks.queries import Query
from scripts.deploy_checks.rows import Row, as_table
from tests.deploy.files import PROJECT

DOCKERFILE = PROJECT / "deploy" / "Dockerfile"
RUNBOOK = PROJECT / "docs" / "operations.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what is looked at, to plant mistakes in."""
    root = tmp_path / "project"
    shutil.copytree(PROJECT / "deploy", root / "deploy")
    shutil.copy(PROJECT / ".env.example", root)
    (root / "docs").mkdir()
    shutil.copy(RUNBOOK, root / "docs")
    return root


def plant(path: Path, right: str, wrong: str) -> None:
    """Replaces `right`, which must be there, once."""
    text = path.read_text(encoding="utf-8")
    assert right in text, f"{path.name} has no {right!r}"
    path.write_text(text.replace(right, wrong, 1), encoding="utf-8")


def stack(project: Path, options: str) -> Stack:
    [found] = [one for one in stacks(project / "deploy" / "compose") if one.options == options]
    return found


def faults(*rows: Row) -> str:
    return "\n".join(fault for row in rows for fault in row.faults)


# -- as they are -------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_the_compose_files_as_compose_and_we_read_them():
    rows = list(validate_deploy.check_compose(PROJECT))

    assert [row for row in rows if row.faults] == [], as_table(rows)
    assert {row.check for row in rows} == {"policy", "variables", "compose config", "compose schema"}


def test_every_query_of_dashboards_and_rules_has_an_answer_and_parses_where_promtool_is():
    rows = list(validate_deploy.check_monitoring(PROJECT, []))

    assert [row for row in rows if row.faults] == [], as_table(rows)
    assert next(row for row in rows if row.check == "dashboards").looked_at.endswith(" queries")


# -- planted mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "right", "wrong", "options", "said"),
    [
        ("compose.yaml", "nats:2.10-alpine", "nats:latest", "", "nats: image nats:latest has no exact tag"),
        ("compose.full.yaml", "postgres:16", "postgres", "--full", "postgres: image postgres has no exact tag"),
        (
            "compose.full.yaml",
            "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?run scripts/secrets --full}",
            "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:-postgres}",
            "--full",
            "postgres: the secret POSTGRES_PASSWORD has a default",
        ),
        (
            "compose.yaml",
            "JWT_SECRET: ${JWT_SECRET:?run scripts/secrets}",
            "JWT_SECRET: not-so-secret-but-long-enough-to-sign",
            "",
            "gateway: the secret JWT_SECRET is written out",
        ),
        (
            "compose.full.yaml",
            "voicewright:${POSTGRES_PASSWORD:?run scripts/secrets --full}@",
            "voicewright:postgres@",
            "--full",
            "gateway: DATABASE_URL holds a password in plain text",
        ),
        ("compose.yaml", "init: true", "user: root", "", "trainer: runs as root"),
        ("compose.yaml", "init: true\n  read_only: true", "init: true", "", "trainer: its root can be written"),
        ("compose.yaml", "init: true", "privileged: true", "", "trainer: asks for more rights than a container has"),
        ("compose.yaml", "init: true", "pid: host", "", "trainer: pid: host shares what belongs to the machine"),
        (
            "compose.yaml",
            '"127.0.0.1:${GATEWAY_PORT:-8000}:8000"',
            '"${GATEWAY_PORT:-8000}:8000"',
            "",
            "gateway: port ${GATEWAY_PORT:-8000}:8000 can be reached from outside",
        ),
        ("compose.prod.yaml", "mem_limit: 1g", "mem_reservation: 1g", "--prod", "nats: has no limit of memory"),
        ("compose.prod.yaml", "max-size: 10m", "compress: 'true'", "--prod", "trainer: its log has no end"),
        (
            "compose.full.yaml",
            '/-/ready"]',
            '/-/ready"]\n      disable: true',
            "--full",
            "nobody asks whether it is healthy",
        ),
        ("compose.yaml", "healthcheck:", "x-healthcheck:", "", "nats: nobody asks whether it is healthy"),
    ],
)
def test_an_unsafe_container_is_found(project, file, right, wrong, options, said):
    assert compose_policy.check(stack(project, options)).faults == ()

    plant(project / "deploy" / "compose" / file, right, wrong)

    assert said in faults(compose_policy.check(stack(project, options)))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("SERVICE_TOKEN: ${", "SERVICE_TOKEM: ${", "ingest: SERVICE_TOKEN is not set"),
        ("SERVICE_TOKEN: ${", "SERVICE_TOKEM: ${", "ingest: SERVICE_TOKEM is set, and ingest does not read it"),
        ("SERVICE: ingest", "SERVICE: injest", "ingest: there is no service 'injest'"),
        ("ENVIRONMENT: container", "ENVIRONMENT: prodution", "trainer: ENVIRONMENT: Input should be"),
        ("SERVICE: trainer", "SERVICE: trainer\n      HEARTBEAT: often", "trainer: HEARTBEAT: "),
        (
            "SERVICE: trainer",
            "SERVICE: trainer\n      NATS_URL: nats://broker:4222",
            "trainer: NATS_URL leads to broker, which is not there",
        ),
        (
            "SERVICE: gateway",
            "SERVICE: gateway\n      INGEST_URL: http://127.0.0.1:8001",
            "gateway: INGEST_URL leads to the container itself",
        ),
    ],
)
def test_a_variable_that_does_not_fit_the_settings_is_found(project, right, wrong, said):
    plant(project / "deploy" / "compose" / "compose.yaml", right, wrong)

    assert said in faults(variables.check_stack(stack(project, ""), DOCKERFILE))


def test_a_variable_that_only_one_of_example_and_compose_knows_is_found(project):
    plant(project / ".env.example", "GRAFANA_PORT=3000", "GRAFANA_PROT=3000")

    said = faults(variables.check_example(stacks(project / "deploy" / "compose"), project / ".env.example"))

    assert "GRAFANA_PORT is asked for by a compose file and not listed" in said
    assert "GRAFANA_PROT is listed and asked for by no compose file" in said


def test_what_compose_itself_refuses_is_found(project):
    if not compose_config.commands():
        pytest.skip(compose_config.MISSING)
    plant(project / "deploy" / "compose" / "compose.yaml", "read_only: true", "reed_only: true")

    assert "reed_only" in faults(*compose_config.check([stack(project, "")]))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("voicewright_work_seconds_bucket", "voicewright_work_secs_bucket", "nobody exports voicewright_work_secs"),
        ("histogram_quantile(", "histogram_quartile(", "Prometheus has no histogram_quartile()"),
        ("(step, le)", "(stage, le)", "no series of it has the label stage"),
    ],
)
def test_a_panel_that_would_stay_empty_is_found(tmp_path, right, wrong, said):
    query = "histogram_quantile(0.9, sum by (step, le) (rate(voicewright_work_seconds_bucket[$__rate_interval])))"
    for name, text in (("right", query), ("wrong", query.replace(right, wrong))):
        (tmp_path / name).mkdir()
        board = {"uid": "a", "title": "A", "panels": [{"title": "Time", "targets": [{"expr": text}]}]}
        (tmp_path / name / "a.json").write_text(json.dumps(board))

    assert monitoring.check_boards(tmp_path / "right").faults == ()
    assert f"a.json, Time: {said}" in faults(monitoring.check_boards(tmp_path / "wrong"))


def test_a_dashboard_that_does_not_load_is_found(tmp_path):
    (tmp_path / "a.json").write_text("{")

    assert "a dashboard is no JSON" in faults(monitoring.check_boards(tmp_path))


RULE = {
    "alert": "QueueStandsStill",
    "expr": 'sum by (service) (max_over_time(voicewright_queue_commands{state="pending"}[1h30m] offset 5m)) > 1.5e3',
    "labels": {"severity": "warning"},
    "annotations": {"summary": "…", "runbook_url": "https://example.org/operations.md#a-queue-stands-still"},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {}}, "it does not say how bad it is"),
        ({"annotations": {"runbook_url": "#a-queue-stands-still"}}, "it does not say what happened"),
        ({"annotations": {"summary": "…"}}, "it leads to no runbook"),
        ({"annotations": {"summary": "…", "runbook_url": "#gone"}}, "the runbook has no heading gone"),
        ({"expr": "vector(1)"}, "it asks for no series"),
        ({"expr": "voicewright_qeue_commands > 0"}, "nobody exports voicewright_qeue_commands"),
    ],
)
def test_an_alert_that_helps_nobody_is_found(tmp_path, change, said):
    (tmp_path / "operations.md").write_text("# Operations\n\n### A queue stands still\n")

    assert monitoring.check_rules("rules", [RULE], tmp_path / "operations.md").faults == ()
    wrong = monitoring.check_rules("rules", [RULE | change], tmp_path / "operations.md")
    assert f"QueueStandsStill: {said}" in faults(wrong)


def test_rules_that_prometheus_would_not_find_are_found(project):
    plant(project / "deploy" / "compose" / "prometheus" / "prometheus.yml", "/rules/alerts.yaml", "/rules/alarms.yaml")

    said = faults(monitoring.check_mounts(project / "deploy" / "compose"))

    assert said == "/etc/prometheus/rules/alarms.yaml is not mounted, or is no file here"


@pytest.mark.skipif(shutil.which("promtool") is None, reason=monitoring.NO_PROMTOOL)
def test_what_prometheus_itself_refuses_and_an_alert_that_does_not_fire_are_found(project):
    plant(
        project / "deploy" / "monitoring" / "alerts.yaml", "max(voicewright_outbox_oldest_seconds) > 120", "max(up) > 9"
    )

    assert "OutboxStuck" in faults(monitoring.check_by_tests(project / "deploy"))
    assert "a panel: " in faults(monitoring.check_by_promtool([Query("a panel", "sum(rate(up))")]))


def test_what_the_compose_specification_does_not_allow_is_found_where_somebody_names_its_schema(project, tmp_path):
    schema = tmp_path / "schema.json"
    services = {
        "type": "object",
        "additionalProperties": {"properties": {"read_only": {"type": ["boolean", "string"]}}},
    }
    schema.write_text(json.dumps({"type": "object", "properties": {"services": services}}))
    compose = project / "deploy" / "compose"

    assert {row.result for row in compose_schema.check(stacks(compose), schema)} == {"ok"}
    plant(compose / "compose.yaml", "    read_only: true", "    read_only: 7")

    assert "services.nats.read_only: 7 is not of type" in faults(*compose_schema.check(stacks(compose), schema))
    [row] = compose_schema.check(stacks(compose), None)
    assert row.skipped == compose_schema.MISSING


@pytest.mark.parametrize("content", [None, "no JSON", '{"type": "nothing of this world"}'])
def test_a_schema_that_cannot_be_read_is_said_and_nothing_else(project, tmp_path, content, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    schema = tmp_path / "schema.json"
    if content is not None:
        schema.write_text(content)

    with pytest.raises(SystemExit) as ended:
        validate_deploy.main(["--project", str(project), "--compose-schema", str(schema)])

    assert ended.value.code == 2
    assert f"--compose-schema {schema}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "said", "how"),
    [
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.20.2"}}', None),
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.21.0-beta"}}', ["kubectl", "kustomize"]),
        ("kubectl", "it is broken", None),
        ("kustomize", "{Version:kustomize/v3.8.7 GitCommit:ad0}", None),
        ("kustomize", "v5.5.0", ["kustomize", "build"]),
    ],
)
def test_only_what_knows_components_renders_overlays(tmp_path, monkeypatch, program, said, how):
    (tmp_path / program).write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert kustomize.command() == how


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_mistake_makes_the_command_fail_and_is_in_its_table_and_its_json(project, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(project))  # nothing is here that renders, so the rest is all the quicker
    monkeypatch.delenv("CI", raising=False)
    plant(project / "deploy" / "compose" / "compose.yaml", "nats:2.10-alpine", "nats:latest")

    assert validate_deploy.main(["--project", str(project)]) == 1
    table = capsys.readouterr().out
    assert validate_deploy.main(["--project", str(project), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)

    assert "  nats: image nats:latest has no exact tag" in table
    assert not report["ok"]
    assert {row["subject"] for row in report["rows"] if row["result"] == "failed"} >= {"compose", "compose --prod"}
    assert all(row["faults"] == ["nats: image nats:latest has no exact tag"] for row in report["rows"] if row["faults"])


def test_what_is_missing_here_is_skipped_with_the_reason_and_a_fault_where_it_is_required(project, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(project))
    monkeypatch.delenv("CI", raising=False)

    assert validate_deploy.main(["--project", str(project)]) == 0
    said = capsys.readouterr().out
    assert f"skipped: {kustomize.MISSING}" in said
    assert f"skipped: {compose_config.MISSING}" in said

    monkeypatch.setenv("CI", "true")
    assert validate_deploy.main(["--project", str(project)]) == 1
    assert f"\n  {kustomize.MISSING}" in capsys.readouterr().out
