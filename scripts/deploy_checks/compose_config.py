"""Does compose itself accept the files? Asks whichever of `docker compose` and `docker-compose` is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from scripts.deploy_checks.compose_files import Stack
from scripts.deploy_checks.rows import Row, found
from scripts.secret_file import ensure_secrets

MISSING = "neither docker compose nor docker-compose is installed here"


def commands() -> list[list[str]]:
    """Every compose of this machine, `docker compose` first."""
    return [
        command
        for command in (["docker", "compose"], ["docker-compose"])
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0
    ]


def check(stacks: list[Stack]) -> Iterator[Row]:
    """One row for each stack and each compose: `config` with secrets, and for the plain stack a refusal without."""
    here = commands()
    if not here:
        yield Row("compose config", "every stack", skipped=MISSING)
    with tempfile.TemporaryDirectory() as folder:
        env_file = Path(folder) / "env"
        ensure_secrets(env_file, full=True)
        (Path(folder) / "empty").write_text("")
        for command in here:
            # compose spends its time starting: several at once.
            with ThreadPoolExecutor(4) as together:
                answers = list(together.map(partial(_config, command, env_file), stacks))
            for stack, answer in zip(stacks, answers, strict=True):
                faults = [line for line in answer.stderr.splitlines() if line.strip()] if answer.returncode else []
                name = f"{stack.name}, by {' '.join(command)}"
                yield found("compose config", name, f"{len(stack.services)} services", faults)
            bare = _config(command, Path(folder) / "empty", stacks[0])
            refused = bare.returncode != 0 and "run scripts/secrets" in bare.stderr
            faults = [] if refused else ["it starts without secrets, and does not say to run scripts/secrets"]
            yield found("compose config", f"without secrets, by {' '.join(command)}", "", faults)


def _config(command: list[str], env_file: Path, stack: Stack) -> subprocess.CompletedProcess[str]:
    files = [argument for file in stack.files for argument in ("-f", str(file))]
    return subprocess.run(
        [*command, "--env-file", str(env_file), *files, "config", "-q"],
        env={"PATH": os.environ["PATH"], "HOME": str(env_file.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
