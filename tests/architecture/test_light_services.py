"""Do gateway and ingest start on a machine that has no torch, and the client without anything of the services?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

BLOCKED = """
import importlib, sys
blocked = set(sys.argv[2].split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked or name in blocked:
            raise ImportError(f"{name} is blocked in this test")
sys.meta_path.insert(0, Blocker())
importlib.import_module(sys.argv[1])
held = sorted(blocked & {name.partition(".")[0] for name in sys.modules})
sys.exit(f"loaded all the same: {held}" if held else 0)
"""


def imports(module: str, *blocked: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, module, ",".join(blocked)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("services.gateway.app", ("torch", "numpy", "av", "faiss", "soundfile", "librosa", "onnxruntime")),
        ("services.ingest.app", ("torch", "faiss", "librosa", "onnxruntime", "matplotlib")),
    ],
)
def test_a_light_service_starts_where_torch_is_blocked(module, blocked):
    result = imports(module, *blocked)

    assert result.returncode == 0, result.stderr[-2000:]


def test_the_command_line_needs_nothing_of_the_services():
    result = imports(
        "libs.client.cli", "torch", "numpy", "fastapi", "nats", "minio", "sqlalchemy", "services", "pydantic_settings"
    )

    assert result.returncode == 0, result.stderr[-2000:]


def test_the_blocker_blocks():
    result = imports("libs.voice.lite", "torch")

    assert result.returncode != 0
    assert "torch is blocked" in result.stderr
