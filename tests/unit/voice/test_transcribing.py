"""Is it said what is missing, before anybody waits for transcripts? Where faster-whisper is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from libs.common.errors import ProviderUnavailable
from libs.voice.transcribing import FILES, Transcriber, check_model, missing_files


def test_a_model_that_is_not_there_is_named_by_its_files_and_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable) as unset:
        check_model(None)
    (tmp_path / "config.json").touch()
    (tmp_path / "vocabulary.txt").touch()

    with pytest.raises(ProviderUnavailable) as incomplete:
        Transcriber(tmp_path)

    assert "WHISPER_PATH is not set" in unset.value.detail
    assert missing_files(tmp_path) == ["model.bin at WHISPER_PATH", "tokenizer.json at WHISPER_PATH"]
    assert incomplete.value.problem()["missing"] == missing_files(tmp_path)
    assert any("metadata.csv" in action for action in incomplete.value.actions)
    assert str(tmp_path) not in str(incomplete.value.problem())


@pytest.mark.skipif(importlib.util.find_spec("faster_whisper") is not None, reason="faster-whisper is installed")
def test_a_library_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    for name in (*FILES, "vocabulary.json"):
        (tmp_path / name).touch()

    with pytest.raises(ProviderUnavailable) as caught:
        Transcriber(tmp_path)

    assert caught.value.problem()["missing"] == ["the package faster-whisper"]
    assert "scripts/install-xtts" in caught.value.actions[0]
