"""Published voices without any training, and staged recordings, for the tests of inference."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from libs.common.manifests import sha256_of
from libs.common.paths import Paths
from libs.voice.tools import convert_file
from services.trainer import voice_files
from tests.integration.voice_services.parts import encoder_card, write_random_index, write_untrained


class Voices:
    """Publishes voices as the trainer does; a seed stands for the weights."""

    def __init__(self, paths: Paths, scratch: Path) -> None:
        self._paths = paths
        self._scratch = scratch
        self._revision = 0

    def files(self, seed: int, preset: str = "rvc-tiny") -> tuple[Path, Path]:
        folder = self._scratch / f"{preset}-{seed}"
        weights, index = folder / "voice.pth", folder / "voice.index"
        if not folder.exists():
            write_untrained(weights, preset=preset, seed=seed)
            write_random_index(index, seed=seed)
        return weights, index

    def publish(
        self,
        slug: str,
        version: str,
        *,
        seed: int = 0,
        preset: str = "rvc-tiny",
        files: Any = None,
        native: bool = False,
        **card: Any,
    ) -> str:
        """Makes `version` the one that is served; returns the SHA-256 of its weights. `native`: as safetensors too."""
        weights, index = files or self.files(seed, preset)
        sha256 = sha256_of(weights)
        facts = {
            "weights": {"sha256": sha256},
            "index": {"sha256": sha256_of(index)},
            "content_encoder": encoder_card(),
            **card,
        }
        voice = self._paths.voice(slug)
        self._revision += 1
        ours = weights.with_suffix(".safetensors") if native else None
        if ours is not None:
            convert_file(weights, ours, "safetensors", content_encoder=facts["content_encoder"])
            facts["files"] = [voice_files.file_facts(voice.version(version).native.name, ours)]
        voice_files.assemble(voice.version(version), weights, index, facts, native=ours)
        voice_files.serve(voice, voice.version(version), facts, self._revision)
        return sha256


def stage(paths: Paths, upload_id: str, recording: Path) -> str:
    """Puts a recording where ingest leaves a staged upload."""
    staged = paths.staged_upload(upload_id)
    staged.folder.mkdir(parents=True)
    shutil.copyfile(recording, staged.original)
    return upload_id
