"""Where do people see a run? The experiment's `train.log`, `metrics.jsonl` … are links to the newest run's files."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

from libs.common.manifests import Manifest, point, write_whole
from libs.common.paths import Paths

PLAN, CHECKPOINTS = "run.json", "checkpoints"
SHOWN = {
    "config.json": PLAN,
    "train.log": "train.log",
    "metrics.jsonl": "metrics.jsonl",
    "tensorboard": "tensorboard",
    "checkpoints": CHECKPOINTS,
}
LEDGER = "trained.json"


def show_run(paths: Paths, slug: str, manifest: Manifest, revision: int) -> None:
    """Points the experiment's files to the run of `manifest`, unless a later one is shown. May run twice."""
    experiment = paths.experiment(slug)
    with (experiment.folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _shown_revision(experiment.folder / LEDGER) > revision:
            return
        run = paths.in_data(manifest.folder)
        for link, target in SHOWN.items():
            point(experiment.folder / link, run / target)
        ledger = {"revision": revision, "job_id": manifest.job_id, "token": manifest.token}
        write_whole(experiment.folder / LEDGER, json.dumps(ledger, indent=1).encode())


def _shown_revision(ledger: Path) -> int:
    try:
        return int(json.loads(ledger.read_text())["revision"])
    except (OSError, ValueError, KeyError):
        return 0


def drop_state(run: Path) -> None:
    """Removes what a committed run kept to be resumed: gigabytes, for a network that is not gone on with.

    The plan goes first: without it the rest is nobody's, also when this is interrupted.
    """
    for path in (run / PLAN, *run.glob("best-*.pth")):
        path.unlink(missing_ok=True)
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
