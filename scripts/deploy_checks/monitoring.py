"""Do the dashboards load, do the rules parse, and does each of their queries have an answer?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts.deploy_checks.kustomize import Rendering
from scripts.deploy_checks.objects import called
from scripts.deploy_checks.queries import Query, faults_of, known_series, plain
from scripts.deploy_checks.rows import Row, found

NO_PROMTOOL = "promtool is not here; it comes with Prometheus (Debian's package `prometheus`)"


def dashboards(folder: Path) -> dict[Path, dict[str, Any]]:
    """The dashboards of `folder` (deploy/compose/grafana/dashboards); raises ValueError for one that is no JSON."""
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, those inside of rows as well."""
    for panel in board.get("panels", []):
        yield panel
        yield from panel.get("panels", [])


def queries_of(board: dict[str, Any]) -> Iterator[Query]:
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield Query(str(panel.get("title", "a panel without title")), str(target.get("expr", "")))


def groups_of(rules: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in rules.get("groups") or []:
        yield from group.get("rules") or []


def rule_files(deploy: Path) -> dict[Path, dict[str, Any]]:
    """The rules files of `deploy`."""
    paths = [*(deploy / "monitoring").glob("*.y*ml"), *(deploy / "compose" / "prometheus").rglob("*.y*ml")]
    loaded = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(paths)}
    return {path: content for path, content in loaded.items() if isinstance(content, dict) and "groups" in content}


def headings(markdown: str) -> set[str]:
    """What a link to a heading of a document may say after `#`."""
    found_here = re.findall(r"^#+ +(.+?) *$", markdown, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found_here}


def check_boards(folder: Path) -> Row:
    """Every dashboard: it loads, has a name of its own, and each query has an answer."""
    faults, known, count = [], known_series(), 0
    try:
        boards = dashboards(folder)
    except ValueError as error:
        return found("dashboards", "grafana", "", [f"a dashboard is no JSON: {error}"])
    for path, board in boards.items():
        if not board.get("uid") or not board.get("title"):
            faults.append(f"{path.name} has no uid or no title")
        for query in queries_of(board):
            count += 1
            faults += [f"{path.name}, {query.place}: {fault}" for fault in faults_of(query.text, known)]
    uids = [board.get("uid") for board in boards.values()]
    faults += [f"two dashboards have the uid {uid}" for uid in sorted({str(u) for u in uids if uids.count(u) > 1})]
    return found("dashboards", "grafana", f"{len(boards)} dashboards, {count} queries", faults)


def check_rules(subject: str, rules: list[dict[str, Any]], runbook: Path) -> Row:
    """Alert rules: each asks for something, says how bad it is, and leads to a heading of the runbook that exists."""
    known = known_series(str(rule["record"]) for rule in rules if "record" in rule)
    there, faults = headings(runbook.read_text(encoding="utf-8")), []
    for rule in rules:
        name = str(rule.get("alert") or rule.get("record"))
        faults += [f"{name}: {fault}" for fault in faults_of(str(rule.get("expr", "")), known)]
        if "alert" in rule:
            faults += [f"{name}: {fault}" for fault in _alert(rule, there)]
    names = [rule["alert"] for rule in rules if "alert" in rule]
    faults += [f"{name} is there twice" for name in sorted({name for name in names if names.count(name) > 1})]
    return found("rules", subject, f"{len(rules)} rules", faults)


def _alert(rule: dict[str, Any], there: set[str]) -> Iterator[str]:
    said = rule.get("annotations") or {}
    if "severity" not in (rule.get("labels") or {}):
        yield "it does not say how bad it is: labels.severity is missing"
    if not said.get("summary"):
        yield "it does not say what happened: annotations.summary is missing"
    link = str(said.get("runbook_url") or said.get("runbook") or "")
    if not link:
        yield "it leads to no runbook: annotations.runbook_url is missing"
    elif link.partition("#")[2] not in there:
        yield f"the runbook has no heading {link.partition('#')[2] or link}"


def check_files(deploy: Path, runbook: Path) -> Iterator[Row]:
    """Dashboards and rules of `deploy`."""
    yield check_boards(deploy / "compose" / "grafana" / "dashboards")
    for path, content in rule_files(deploy).items():
        yield check_rules(path.relative_to(deploy).as_posix(), list(groups_of(content)), runbook)
    yield check_mounts(deploy / "compose")


def check_mounts(folder: Path) -> Row:
    """Every rules file that Prometheus is told of is mounted where it looks, and exists on this side."""
    config = yaml.safe_load((folder / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    compose = yaml.safe_load((folder / "compose.full.yaml").read_text(encoding="utf-8"))
    mounts = {
        target: folder / source
        for source, target, *_ in (mount.split(":") for mount in compose["services"]["prometheus"]["volumes"])
    }
    wanted = config.get("rule_files") or []
    faults = [f"{path} is not mounted, or is no file here" for path in wanted if not mounts.get(path, folder).is_file()]
    return found("rules", "prometheus.yml", f"{len(wanted)} files", faults)


def check_rendering(rendering: Rendering, runbook: Path) -> Iterator[Row]:
    """The alert rules of one overlay, and what its scalers ask Prometheus for."""
    for one in rendering.of_kind("PrometheusRule"):
        yield check_rules(f"{rendering.name}, {called(one)}", list(groups_of(one.get("spec") or {})), runbook)
    asked, known = list(_asked_by_scalers(rendering)), known_series()
    if asked:
        faults = [f"{query.place}: {fault}" for query in asked for fault in faults_of(query.text, known)]
        yield found("scalers", f"{rendering.name}, Prometheus", f"{len(asked)} queries", faults)


def _asked_by_scalers(rendering: Rendering) -> Iterator[Query]:
    for one in rendering.of_kind("ScaledObject", "ScaledJob"):
        for trigger in one["spec"].get("triggers") or []:
            if trigger.get("type") == "prometheus":
                yield Query(f"{rendering.name}, {called(one)}", str(trigger["metadata"].get("query", "")))


def check_by_promtool(queries: Iterable[Query]) -> Row:
    """Whether Prometheus' own parser takes every query."""
    asked = list(queries)
    promtool = shutil.which("promtool")
    if promtool is None:
        return Row("promtool", "every query", f"{len(asked)} queries", skipped=NO_PROMTOOL)
    rules = [{"record": f"query:{number}", "expr": plain(query.text)} for number, query in enumerate(asked)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queries.yml"
        path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
        done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, timeout=120)
    faults = []
    for line in done.stderr.splitlines() if done.returncode else []:
        number = re.search(r"query:(\d+)", line)
        faults.append(f"{asked[int(number[1])].place}: {line.strip()}" if number else line.strip())
    return found("promtool", "every query", f"{len(asked)} queries", faults)


def check_by_tests(deploy: Path) -> Row:
    """Whether the alerts fire and keep silent as their own tests say, by `promtool test rules`."""
    tests, promtool = sorted((deploy / "monitoring").glob("*.test.yaml")), shutil.which("promtool")
    if promtool is None:
        return Row("promtool", "tests of rules", f"{len(tests)} files", skipped=NO_PROMTOOL)
    done = subprocess.run([promtool, "test", "rules", *map(str, tests)], capture_output=True, text=True, timeout=120)
    said = (line.strip() for line in (done.stdout + done.stderr).splitlines())
    return found("promtool", "tests of rules", f"{len(tests)} files", filter(None, said if done.returncode else ()))


def every_query(deploy: Path, renderings: Iterable[Rendering]) -> Iterator[Query]:
    """All that is asked of Prometheus anywhere in `deploy`."""
    for board in dashboards(deploy / "compose" / "grafana" / "dashboards").values():
        yield from queries_of(board)
    for content in rule_files(deploy).values():
        yield from (Query(str(r.get("alert") or r.get("record")), str(r.get("expr"))) for r in groups_of(content))
    for rendering in renderings:
        for one in rendering.of_kind("PrometheusRule"):
            for rule in groups_of(one.get("spec") or {}):
                yield Query(f"{rendering.name}, {rule.get('alert') or rule.get('record')}", str(rule.get("expr")))
        yield from _asked_by_scalers(rendering)
