"""After a minute of training the `lite` voice is better than the trial that its design comes from was after five."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Two hundred steps are what one minute of training is on a quiet machine; a fixed number of them keeps the result free
# of the machine's mood. Measured: 0.825, 0.989 and 0.445 (docs/models.md); before there was a start, after 1,200 steps,
# phones were 0.40.
STEPS = 200
SIMILARITY, F0_CORRELATION, PHONES = 0.80, 0.98, 0.41


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.timeout(1500)
def test_a_voice_of_three_minutes_reaches_the_row_of_the_trial(voice_corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.quality", "--target", str(voice_corpus / "ljspeech")]
    command += ["--sources", str(voice_corpus / "librispeech"), "--output", str(tmp_path), "--steps", str(STEPS)]

    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=1500)

    report = json.loads((tmp_path / "report.json").read_text())
    rows = report["rows"]
    converted = rows["converted, index 0"]
    assert converted["recordings"] >= 18
    assert converted["similarity_target"] >= SIMILARITY
    assert converted["f0_correlation"] >= F0_CORRELATION
    assert converted["phone_agreement"] >= PHONES
    assert report["times"]["bases"]["generator"]["file"] == "voicewright-lite.safetensors"
    assert converted["similarity_source"] < rows["source, untouched"]["similarity_source"]
    assert rows["source, untouched"]["similarity_target"] < converted["similarity_target"]
