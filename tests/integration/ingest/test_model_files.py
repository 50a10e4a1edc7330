"""How are model files received? Into quarantine, as they came, with limits of their own, and never opened."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path

import httpx

from tests.integration.ingest.conftest import HEADERS, Service, StartIngest


class Payload:
    """Touches a file when somebody unpickles it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def send(ingest: Service, *files: tuple[str, str, bytes], **fields: str) -> httpx.Response:
    """One form with these model files (field, name, content)."""
    with httpx.Client(base_url=ingest.url, headers=HEADERS, timeout=60, trust_env=False) as client:
        parts = [(field, (name, io.BytesIO(content))) for field, name, content in files]
        return client.post("/model-files", data=fields, files=parts)


def test_model_files_wait_as_they_came_and_nothing_in_them_runs(ingest: Service, tmp_path: Path) -> None:
    hostile = pickle.dumps(Payload(tmp_path / "ran"))

    answer = send(ingest, ("model", "../../Anna é.pth", hostile), ("index", "a.index", b"IwFl"), name="Anna")

    assert answer.status_code == 200, answer.text
    model, index = answer.json()["files"]
    assert answer.json()["fields"] == {"name": "Anna"}
    assert (model["field"], model["name"]) == ("model", "../../Anna é.pth")
    assert (index["field"], index["size_bytes"]) == ("index", 4)
    assert model["sha256"] == hashlib.sha256(hostile).hexdigest()
    assert ingest.paths.staged_upload(model["upload_id"]).original.read_bytes() == hostile
    assert not (tmp_path / "ran").exists()
    assert ingest.staged == sorted((model["upload_id"], index["upload_id"]))


def test_model_files_have_limits_of_their_own(start_ingest: StartIngest) -> None:
    ingest = start_ingest(MODEL_FILE_LIMIT=1000, UPLOAD_FILE_LIMIT=10, MODEL_COUNT_LIMIT=2)

    fits = send(ingest, ("model", "a.pth", b"x" * 1000))
    too_large = send(ingest, ("model", "b.pth", b"x" * 1001))
    too_many = send(ingest, *[("model", f"{n}.pth", b"x") for n in range(3)])

    assert "upload_id" in fits.json()["files"][0]
    assert too_large.json()["files"][0]["problem"]["code"] == "too_large"
    assert too_large.json()["files"][0]["problem"]["limit_bytes"] == 1000
    assert (too_many.status_code, too_many.json()["code"]) == (413, "too_many_files")
    assert ingest.staged == [fits.json()["files"][0]["upload_id"]]
