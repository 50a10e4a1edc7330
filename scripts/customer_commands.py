"""The eight curl commands of the customer's validation list, as their document has them, for any installation."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# `{job_id}` is the id that the command before answered.
COMMANDS = {
    "preprocessor health": "curl http://localhost:8003/health",
    "trainer health": "curl http://localhost:8002/health",
    "upload": """curl -X POST http://localhost:8003/api/v1/preprocess/upload \\
  -F "exp_name=test_model" \\
  -F "files=@sample.wav" """,
    "start preprocessing": """curl -X POST http://localhost:8003/api/v1/preprocess/start \\
  -H "Content-Type: application/json" \\
  -d '{"exp_name": "test_model"}' """,
    "preprocessing status": "curl http://localhost:8003/api/v1/preprocess/status/{job_id}",
    "validate": "curl http://localhost:8003/api/v1/preprocess/validate/test_model",
    "start training": """curl -X POST http://localhost:8002/api/v1/trainer/start \\
  -H "Content-Type: application/json" \\
  -d '{"exp_name": "test_model", "epochs": 10}' """,
    "training status": "curl http://localhost:8002/api/v1/trainer/status/{job_id}",
}


def run(name: str, folder: Path, urls: Mapping[str, str], token: str | None, job_id: str = "") -> tuple[int, Any]:
    """Runs one command in `folder`, which holds sample.wav; returns the status and the body.

    `urls`: where `preprocessor` and `trainer` are, in place of the document's ports; `token`: of a signed-in user,
    None for the command as it is written.
    """
    text = COMMANDS[name].replace("{job_id}", job_id).replace("\\\n", " ")
    for port, service in (("8003", "preprocessor"), ("8002", "trainer")):
        text = text.replace(f"http://localhost:{port}", urls[service])
    arguments = [*shlex.split(text), "-sS", "-w", "\n%{http_code}"]
    if token is not None:
        arguments += ["-H", f"Authorization: Bearer {token}"]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(body)
