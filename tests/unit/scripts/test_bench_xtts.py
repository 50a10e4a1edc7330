"""Is what is measured the true size, and is what was measured told as it was?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from libs.voice.xtts.vocabulary import read_vocabulary
from scripts.bench_xtts import TEXT, most_memory
from scripts.xtts_base import TRUE, write_vocabulary

PROJECT = Path(__file__).resolve().parents[3]
KEPT = json.loads((PROJECT / "docs/benchmarks/2026-11-21-xtts.json").read_text(encoding="utf-8"))


def test_the_vocabulary_has_the_true_size_and_can_write_what_is_said(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocab.json", TRUE)

    found = read_vocabulary(tmp_path / "vocab.json")

    assert len(found.numbers) == TRUE.tokens == 6681
    assert found.languages == {"en"}
    assert found.unknown(TEXT.lower()) == []


def test_the_memory_of_another_process_is_watched_until_it_ends() -> None:
    program = "import time; held = bytearray(300_000_000); held[::4096] = b'x' * len(held[::4096]); time.sleep(1)"
    process = subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ))

    with most_memory(process.pid) as memory:
        process.wait(60)

    assert 0.3 < memory["gb"] < 0.6


def test_the_kept_figures_are_of_the_true_network_and_the_told_ones_are_theirs() -> None:
    told = (PROJECT / "docs/benchmarks.md").read_text(encoding="utf-8")
    told = told[told.index("## XTTS in its true size") :]
    one, two, spoken = KEPT["training, 1 at once"], KEPT["training, 2 at once"], KEPT["speaking"]

    assert KEPT["parameters"]["network"] + KEPT["parameters"]["DVAE"] == 518_442_047
    for figures in (one, two, spoken):
        assert all(value > 0 for value in figures.values())
    rows = {
        name.strip(): (first.strip(), second.strip())
        for name, first, second in re.findall(r"\|(.*)\|(.*)\|(.*)\|", told)
    }
    for name in ("seconds per step", "processor seconds per step", "most memory, GB", "checkpoint, GB", "voice, GB"):
        assert rows[name] == (str(one[name]), str(two[name]))
    for name in ("seconds to start and load", "times slower than speech"):
        assert f"{spoken[name]}" in told
