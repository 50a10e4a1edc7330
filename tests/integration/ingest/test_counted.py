"""What Prometheus learns of uploads: how many, how much, how long, and why some were refused."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.factories_audio import make_tone
from tests.integration.ingest.conftest import Service


def test_accepted_and_refused_files_are_counted_with_bytes_length_and_reason(ingest: Service, tmp_path: Path) -> None:
    good = make_tone(2.0, tmp_path / "good.wav").read_bytes()
    bad = b"no sound at all" * 100

    ingest.upload(("good.wav", good), ("bad.wav", bad))

    text = httpx.get(f"{ingest.url}/metrics", trust_env=False).text
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["voicewright_uploads_total", "accepted", "recording"] == 1
    assert found["voicewright_uploads_total", "recording", "refused"] == 1
    assert found["voicewright_upload_refusals_total", "unsupported_audio"] == 1
    assert found["voicewright_upload_bytes_total", "recording"] == len(good) + len(bad)
    assert found[("voicewright_upload_sound_seconds_total",)] == pytest.approx(2.0, abs=0.1)
