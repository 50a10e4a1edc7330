"""Ingest is light: no torch inside, and small while nothing comes in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.factories_audio import make_speech
from tests.integration.ingest.conftest import ROOT, Service

MB = 1_000_000
WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "faiss", "scipy", "librosa"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import importlib
importlib.import_module(sys.argv[1])
print(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
"""


def imported_with(module: str) -> set[str]:
    """Packages that are loaded with `module` where torch cannot be."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, module], cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_ingest_starts_where_torch_is_blocked_and_does_not_decode_itself() -> None:
    packages = imported_with("services.ingest.app")

    assert "fastapi" in packages
    assert not packages & {"torch", "av", "numpy", "soundfile"}


def test_an_examiner_knows_sound_and_nothing_else() -> None:
    packages = imported_with("services.ingest.examiner")

    assert "av" in packages
    assert not packages & {"torch", "fastapi", "nats", "minio", "httpx"}


def test_ingest_is_small_when_idle_and_while_it_examines(ingest: Service, tmp_path: Path) -> None:
    assert ingest.process is not None
    service = psutil.Process(ingest.process.pid)
    idle = service.memory_info().rss

    recording = make_speech(60.0, "en-us", tmp_path / "a.mp3").read_bytes()
    answer = ingest.upload(*((f"{n}.mp3", recording) for n in range(6)))
    busy = sum(p.memory_info().rss for p in (service, *service.children()))

    assert all("upload_id" in file for file in answer.json()["files"])
    print(f"idle {idle / MB:.0f} MB, with {len(service.children())} examiners {busy / MB:.0f} MB")
    assert idle < 250 * MB
    assert service.memory_info().rss < 250 * MB
