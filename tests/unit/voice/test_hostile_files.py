"""Every attack is refused with its reason, in bounded memory, and nothing of it runs.

One child process opens all files under a limit of its address space: an allocation of a hundred gigabytes fails there.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.voice.hostile import all_cases
from tests.unit.voice.hostile.parts import Case, Payload, Sleeper

PROOF = "it-ran"
SPARE_BYTES = 2**30
CASES = all_cases(Path("/nonexistent") / PROOF)

CHILD = """
import json, resource, sys
from pathlib import Path
import torch
from libs.common.errors import PlatformError
from libs.voice.array_file import read_array
from libs.voice.artefact import load_synthesizer
from libs.voice.retrieval import read_index
from libs.voice.tools import open_archive

readers = {".pth": load_synthesizer, ".safetensors": load_synthesizer, ".npy": read_array, ".index": read_index}
readers[".zip"] = lambda path: open_archive(path, Path(sys.argv[3]))
torch.set_num_threads(1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
results = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        readers[path.suffix](path)
        results[path.name] = ["loaded", ""]
    except PlatformError as error:
        results[path.name] = [error.code, error.detail]
    except BaseException as error:
        results[path.name] = [type(error).__name__, str(error)[:300]]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], Path]:
    """What became of each file, and where the proof would be."""
    folder, out = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("out")
    proof = tmp_path_factory.mktemp("proof") / PROOF
    for case in all_cases(proof):
        (folder / f"{case.name}{case.suffix}").write_bytes(case.content)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(SPARE_BYTES), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(out.iterdir()) == []
    results: dict[str, Any] = json.loads(done.stdout)
    return results, proof


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}{case.suffix}")
def test_an_attack_is_refused_with_its_reason(case: Case, opened: tuple[dict[str, list[str]], Path]) -> None:
    kind, detail = opened[0][f"{case.name}{case.suffix}"]

    assert kind == "model_file_refused", (kind, detail)
    assert re.search(case.reason, detail), detail


def test_no_payload_ran(opened: tuple[dict[str, list[str]], Path]) -> None:
    results, proof = opened

    assert len(results) == len(CASES)
    assert not proof.exists()


def test_the_payloads_are_real(tmp_path: Path) -> None:
    for number, evil in enumerate((Payload, Sleeper)):
        proof = tmp_path / str(number)
        pickle.loads(pickle.dumps(evil(proof)))
        assert proof.exists()
