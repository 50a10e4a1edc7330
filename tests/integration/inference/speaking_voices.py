"""Published XTTS voices without a network: the true files and card, with weights that only a stand-in process takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from libs.common.manifests import sha256_of
from libs.common.paths import Paths
from services.trainer import voice_files
from tests.xtts_tiny import LANGUAGES, write_vocabulary


def publish_speaking(paths: Paths, scratch: Path, slug: str = "linda", version: str = "job_1", **card: Any) -> str:
    """Makes `version` of a voice that speaks the one that is served; the SHA-256 of its weights."""
    scratch.mkdir(parents=True, exist_ok=True)
    weights, config, vocabulary, speaker = (
        scratch / name for name in ("voice.pth", "config.json", "vocab.json", "speaker.safetensors")
    )
    weights.write_bytes(f"{slug} {version}".encode())
    config.write_text("{}")
    speaker.write_bytes(b"how she sounds")
    write_vocabulary(vocabulary)
    place = paths.voice(slug).version(version)
    facts = {
        "kind": "xtts",
        "preset": "xtts-v2",
        "sample_rate": 24_000,
        "language": "en",
        "languages": list(LANGUAGES),
        "weights": voice_files.file_facts(place.weights.name, weights),
        "index": None,
        "files": [voice_files.file_facts(path.name, path) for path in (config, vocabulary, speaker)],
        **card,
    }
    voice_files.assemble(place, weights if facts["weights"] else None, None, facts, [config, vocabulary, speaker])
    voice_files.serve(paths.voice(slug), place, facts, 1)
    assert json.loads(paths.voice(slug).card.read_text())["version"] == version
    return sha256_of(place.weights) if facts["weights"] else ""
