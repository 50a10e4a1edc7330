"""What did the earlier steps of a job make? Found through their manifests alone, and never taken unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from libs.common import manifests
from libs.common.errors import DatasetNotPrepared
from libs.common.events import ManifestRef
from libs.common.manifests import Manifest
from libs.common.paths import Paths


class Results:
    """The committed results of other steps. Its calls read files, each in a thread of its own."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    async def load(self, reference: ManifestRef) -> Manifest:
        """The manifest. Raises StepResultLost when it is gone or is another."""
        return await asyncio.to_thread(manifests.load, self._paths, reference)

    async def check(self, manifest: Manifest) -> Path:
        """The folder of a result, all files of which are as they were committed. Raises StepResultLost otherwise."""
        await asyncio.to_thread(manifests.check, self._paths, manifest)
        return self._paths.in_data(manifest.folder)

    async def whole(self, manifest: Manifest, files: Sequence[str]) -> list[Path]:
        """These files of a manifest, as they were committed. Raises StepResultLost when one is gone or damaged."""
        await asyncio.to_thread(manifests.check, self._paths, manifest, files)
        return [self._paths.in_data(relative) for relative in files]

    async def file(self, manifest: Manifest, name: str) -> Path:
        """The file of that name. Raises DatasetNotPrepared when the manifest has none, else as `whole`."""
        for relative in manifest.files:
            if relative.endswith(f"/{name}"):
                return (await self.whole(manifest, [relative]))[0]
        raise DatasetNotPrepared(f"the {manifest.step} step of {manifest.job_id} left no {name}")
