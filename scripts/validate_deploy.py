"""`scripts/validate-deploy`: what is wrong with the files of `deploy/`, as far as one sees without running them?

compose config  every combination of files that scripts/compose can choose, by whichever compose is here
compose schema  the same by the Compose Specification's own schema, where --compose-schema names a copy of it
kustomize       every overlay renders (kubectl or kustomize)
objects         each object has the fields of its kind, in each supported Kubernetes version, and no others
references      every name and selector of an object leads to something in its overlay
policy          exact images, nobody is root, read-only roots, limits, no secret in plain text; compose and Kubernetes
variables       what the services read is set or has a default, what is set is read, addresses lead somewhere
scalers         KEDA looks at the queues that the services have, all lanes of them
dashboards, rules, promtool   every query names exported metrics, parses, and each alert leads to the runbook

What a machine lacks (compose, kubectl, promtool) is skipped with the reason; with --required, and where CI is set, a
missing compose or kubectl is a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema

from scripts.deploy_checks import (
    compose_config,
    compose_policy,
    compose_schema,
    kustomize,
    monitoring,
    object_policy,
    object_references,
    object_schemas,
    scalers,
    variables,
)
from scripts.deploy_checks.compose_files import stacks
from scripts.deploy_checks.kustomize import Rendering
from scripts.deploy_checks.rows import Row, as_table, found

PROJECT = Path(__file__).resolve().parents[1]
NEEDED = ("compose config", "kustomize")
"""Checks that must not be skipped where everything is required."""


def check_compose(project: Path, schema: Path | None = None) -> Iterator[Row]:
    """Everything about compose; `project`: the folder that holds deploy/, .env.example and docs/."""
    every = stacks(project / "deploy" / "compose")
    dockerfile = project / "deploy" / "Dockerfile"
    yield from (compose_policy.check(stack) for stack in every)
    yield from (variables.check_stack(stack, dockerfile) for stack in every)
    yield variables.check_example(every, project / ".env.example")
    yield from compose_config.check(every)
    yield from compose_schema.check(every, schema)


def render(project: Path) -> list[Rendering]:
    """Every overlay; none where nothing can render."""
    if kustomize.command() is None:
        return []
    return [kustomize.render(overlay) for overlay in kustomize.overlays(project / "deploy" / "k8s")]


def check_kubernetes(project: Path, renderings: list[Rendering]) -> Iterator[Row]:
    """Everything about the overlays that were rendered."""
    if kustomize.command() is None:
        yield Row("kustomize", "every overlay", skipped=kustomize.MISSING)
        return
    if not renderings:
        yield found("kustomize", "every overlay", "", ["there is no overlay"])
    for rendering in renderings:
        faults = [rendering.fault] if rendering.fault else []
        yield found("kustomize", rendering.name, f"{len(rendering.objects)} objects", faults)
    whole = [rendering for rendering in renderings if not rendering.fault]
    yield from object_schemas.check(whole)
    for rendering in whole:
        yield object_references.check(rendering)
        yield object_policy.check(rendering)
        yield variables.check_rendering(rendering, project / "deploy" / "Dockerfile")
        yield from scalers.check(rendering)


def check_monitoring(project: Path, renderings: list[Rendering]) -> Iterator[Row]:
    """Everything that Prometheus is asked, in files and in overlays."""
    deploy, runbook = project / "deploy", project / "docs" / "operations.md"
    whole = [rendering for rendering in renderings if not rendering.fault]
    yield from monitoring.check_files(deploy, runbook)
    for rendering in whole:
        yield from monitoring.check_rendering(rendering, runbook)
    yield monitoring.check_by_promtool(monitoring.every_query(deploy, whole))
    yield monitoring.check_by_tests(deploy)


def validate(project: Path = PROJECT, *, required: bool = False, schema: Path | None = None) -> list[Row]:
    """Every check of `deploy/` in `project`.

    `required`: nothing of NEEDED may be skipped. `schema`: see compose_schema; raises OSError, ValueError and
    jsonschema.SchemaError for one that is none.
    """
    renderings = render(project)
    rows = [
        *check_compose(project, schema),
        *check_kubernetes(project, renderings),
        *check_monitoring(project, renderings),
    ]
    if required:
        rows = [replace(r, faults=(r.skipped,), skipped="") if r.skipped and r.check in NEEDED else r for r in rows]
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0 when nothing is wrong, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="scripts/validate-deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--required", action="store_true", help="compose and kubectl must be here (also where CI is set)"
    )
    parser.add_argument("--project", type=Path, default=PROJECT, help="a folder with deploy/, docs/ and .env.example")
    parser.add_argument("--compose-schema", type=Path, help="schema/compose-spec.json of the Compose Specification")
    options = parser.parse_args(arguments)
    required = options.required or bool(os.environ.get("CI"))
    try:
        rows = validate(options.project.absolute(), required=required, schema=options.compose_schema)
    except (OSError, ValueError, jsonschema.SchemaError) as error:
        parser.error(f"--compose-schema {options.compose_schema}: {str(error).splitlines()[0]}")
    failed = [row for row in rows if row.faults]
    if options.json:
        print(json.dumps({"ok": not failed, "rows": [row.as_json() for row in rows]}, indent=2))
    else:
        print(as_table(rows))
        skipped = sum(1 for row in rows if row.skipped)
        print(f"\n{len(rows)} checks: {len(failed)} failed, {skipped} skipped", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
