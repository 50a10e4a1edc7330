"""Which prepared data does an experiment have, and where do people see it?

`prepared.json` in the experiment's folder names the committed manifests by fingerprint; the visible folders
(`0_gt_wavs` …) are links to what the newest of them names. Both are conveniences: a job reads only its own manifest.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from libs.common import manifests
from libs.common.errors import PlatformError
from libs.common.events import ManifestRef
from libs.common.paths import Experiment, Paths

LEDGER = "prepared.json"
VISIBLE = ("0_gt_wavs", "1_16k_wavs", "2a_f0", "2b_f0nsf", "3_feature768", "3_feature256", "filelist.txt")


@contextmanager
def _alone(experiment: Experiment) -> Iterator[None]:
    """One process at a time changes what is visible."""
    experiment.folder.mkdir(parents=True, exist_ok=True)
    with (experiment.folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ledger(experiment: Experiment) -> dict[str, Any]:
    try:
        document = json.loads((experiment.folder / LEDGER).read_text())
    except (OSError, ValueError):
        return {"revision": 0, "manifests": {}}
    return document if isinstance(document, dict) else {"revision": 0, "manifests": {}}


def find(paths: Paths, experiment: str, fingerprint: str) -> manifests.Manifest | None:
    """An earlier job's result for exactly this input, when every file of it is still there and unchanged."""
    entry = _ledger(paths.experiment(experiment)).get("manifests", {}).get(fingerprint)
    if entry is None:
        return None
    try:
        manifest = manifests.load(paths, ManifestRef.model_validate(entry))
    except (PlatformError, ValueError):
        return None
    return manifest if not manifests.verify(paths, manifest) else None


def show(paths: Paths, slug: str, manifest: manifests.Manifest, revision: int) -> None:
    """Notes a committed manifest and points the visible folders to it, unless a newer one is shown. May run twice."""
    experiment = paths.experiment(slug)
    step = experiment.step(manifest.job_id, manifest.step)
    where = step.manifest(manifest.token)
    reference = manifests.reference_of(paths, where, where.read_bytes(), manifest.token)
    with _alone(experiment):
        ledger = _ledger(experiment)
        ledger["manifests"][manifest.fingerprint] = reference.model_dump()
        newest = revision >= int(ledger.get("revision", 0))
        if newest:
            ledger["revision"] = revision
            folder = paths.in_data(manifest.folder)
            for name in VISIBLE:
                manifests.point(experiment.folder / name, folder / name)
        manifests.write_whole(experiment.folder / LEDGER, json.dumps(ledger, indent=1, sort_keys=True).encode())
