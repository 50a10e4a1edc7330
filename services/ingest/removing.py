"""How do files go away for good? Out of sight by one rename, then one by one; the next start ends what a kill left."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libs.common.errors import Unavailable
from libs.common.logs import get_logger
from libs.common.paths import WITHOUT_DATASET, Experiment, Paths, StepFolder, check_key

log = get_logger("ingest.removing")

LEDGER = "prepared.json"


def remove_dataset(paths: Paths, dataset: str) -> None:
    """Removes what was uploaded to a dataset and all that was made of it: folders, steps, runs. May be repeated.

    Raises Unavailable when something resists; what is left is out of sight, and goes at the next call or start.
    """
    uploads, experiment = paths.uploads(dataset).folder, paths.experiment(dataset).folder
    _discard(experiment, paths.data_trash)
    _discard(uploads, paths.uploads_trash)


def remove_sent(paths: Paths, job_id: str) -> None:
    """Removes the recordings that were sent with a job. May be repeated; raises as `remove_dataset`."""
    _discard(paths.job_uploads(job_id).folder, paths.uploads_trash)


def remove_job(paths: Paths, job_id: str) -> None:
    """Removes all that a job without a dataset has on the disk. May be repeated; raises as `remove_dataset`."""
    remove_sent(paths, job_id)
    _discard(paths.experiment(WITHOUT_DATASET).steps / check_key(job_id), paths.data_trash)


def _discard(folder: Path, trash: Path) -> None:
    """Moves `folder` into `trash` on the same volume and empties what lies there under its name."""
    if folder.exists():
        trash.mkdir(parents=True, exist_ok=True)
        folder.rename(trash / f"{folder.name}.{secrets.token_hex(6)}")
    left = [str(path) for path in sorted(trash.glob(f"{folder.name}.*")) if not _remove(path)]
    if left:
        raise Unavailable(f"cannot be removed at the moment: {', '.join(left)}")


def _remove(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def empty_trash(paths: Paths) -> int:
    """Goes on with removals that were cut short; returns how many."""
    found = [path for trash in {paths.data_trash, paths.uploads_trash} for path in sorted(trash.glob("*"))]
    return sum(_remove(path) for path in found)


def sweep_attempts(
    paths: Paths, experiment: str, job_id: str, keep: Mapping[str, int], older_than_seconds: float
) -> list[str]:
    """Removes attempts of a job that nobody needs: all but those whose result, by `keep` (step to token), is in use.

    What any other job's manifest or the ledger of prepared data names stays, and what has changed within
    `older_than_seconds`, for a worker may be at it. Links that then lead nowhere go too. Returns what was removed,
    relative to the experiment.
    """
    before = time.time() - older_than_seconds
    files = paths.experiment(experiment)
    in_use = _folders_in_use(paths, files, job_id, keep)
    removed = []
    for step in files.steps_of(job_id):
        for token, attempt in step.attempts().items():
            if attempt not in in_use and _last_change(attempt) <= before and _remove(attempt):
                removed.append(attempt.relative_to(files.folder).as_posix())
                step.manifest(token).unlink(missing_ok=True)
        _remove_unused_manifests(step, keep, before)
    for link in files.folder.glob("*"):
        if link.is_symlink() and not link.exists():
            link.unlink()
            removed.append(link.name)
    return removed


def _folders_in_use(paths: Paths, files: Experiment, job_id: str, keep: Mapping[str, int]) -> set[Path]:
    manifests = [files.step(job_id, step).manifest(token) for step, token in keep.items()]
    if files.folder.name != WITHOUT_DATASET:  # jobs without a dataset share nothing, and there are many of them
        manifests += [path for path in files.steps.glob("*/*/manifest-*.json") if path.parent.parent.name != job_id]
    ledger = _document(files.folder / LEDGER).get("manifests", {})
    manifests += [paths.in_data(str(entry["path"])) for entry in ledger.values()]
    named = {_document(path).get("folder") for path in manifests}
    kept = {files.step(job_id, step).attempt(token) for step, token in keep.items()}
    return kept | {paths.in_data(folder) for folder in named if folder}


def _remove_unused_manifests(step: StepFolder, keep: Mapping[str, int], before: float) -> None:
    kept = keep.get(step.folder.name)
    for path in step.folder.glob("manifest-*.json"):
        token = path.stem.removeprefix("manifest-")
        is_in_use = token.isdecimal() and (int(token) == kept or step.attempt(int(token)).exists())
        if not is_in_use and path.stat().st_mtime <= before:
            path.unlink(missing_ok=True)
    if not any(step.folder.iterdir()):
        step.folder.rmdir()


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _last_change(folder: Path) -> float:
    """Seconds since the epoch. Files that are taken over keep their times, the folders that get them do not."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    return max(path.stat().st_mtime for path in folders)
