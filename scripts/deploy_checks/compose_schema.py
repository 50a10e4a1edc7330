"""Are the compose files what the Compose Specification allows? Asks its own schema, where somebody names a copy of it.

The schema is `schema/compose-spec.json` of the specification's repository (compose-spec/compose-spec), which compose v2
follows; docker-compose 1.29 has an older one inside and is asked itself (compose_config.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

from scripts.deploy_checks.compose_files import Stack
from scripts.deploy_checks.rows import Row, found

MISSING = "--compose-schema names no copy of the Compose Specification's schema (schema/compose-spec.json)"


def check(stacks: list[Stack], schema: Path | None) -> Iterator[Row]:
    """One row for each stack. Raises OSError and ValueError when `schema` cannot be read."""
    if schema is None:
        yield Row("compose schema", "every stack", skipped=MISSING)
        return
    text: dict[str, Any] = json.loads(schema.read_text(encoding="utf-8"))
    kind = jsonschema.validators.validator_for(text)
    kind.check_schema(text)
    validator = kind(text)
    for stack in stacks:
        faults = [
            f"{'.'.join(map(str, error.absolute_path)) or 'the file'}: {error.message[:300]}"
            for error in sorted(
                validator.iter_errors(stack.content), key=lambda one: [str(p) for p in one.absolute_path]
            )
        ]
        yield found("compose schema", stack.name, f"{len(stack.services)} services", faults)
