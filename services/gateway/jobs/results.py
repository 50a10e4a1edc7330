"""What did a job leave behind? Prepared folders and training metrics, found through step manifests alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from libs.common import manifests
from libs.common.errors import PlatformError
from libs.common.events import ManifestRef
from libs.common.jobs import Step
from libs.common.paths import ExperimentFiles, Paths
from services.gateway.jobs.schemas import Folder

MAX_NAMED = 20
MAX_METRICS_BYTES = 20_000_000


def expected_folders(width: int = 768) -> list[str]:
    """The five folders of a prepared dataset, by their names."""
    layout = ExperimentFiles(Path())
    return [
        folder.name
        for folder in (layout.gt_wavs, layout.wavs_16k, layout.f0_coarse, layout.f0_hz, layout.features(width))
    ]


def folders(paths: Paths, reference: ManifestRef | None) -> tuple[list[Folder], list[str]]:
    """Counts of the five folders, and the names of those that are not whole. Blocking: it looks at every file."""
    names = expected_folders()
    if reference is None:
        return [Folder(name=name, files=0, bytes=0) for name in names], names
    try:
        manifest = manifests.load(paths, reference)
    except PlatformError:
        return [Folder(name=name, files=0, bytes=0, missing=[reference.path]) for name in names], names
    if not any(names[-1] in PurePosixPath(path).parts for path in manifest.files):
        names = (
            expected_folders(256) if any("3_feature256" in PurePosixPath(p).parts for p in manifest.files) else names
        )
    counted = {name: Folder(name=name, files=0, bytes=0) for name in names}
    lacking: dict[str, list[str]] = {name: [] for name in names}
    for relative, entry in manifest.files.items():
        name = next((part for part in PurePosixPath(relative).parts if part in counted), None)
        if name is None:
            continue
        try:
            is_there = paths.in_data(relative).stat().st_size == entry.size
        except (OSError, PlatformError):
            is_there = False
        if is_there:
            counted[name].files += 1
            counted[name].bytes += entry.size
        else:
            lacking[name].append(PurePosixPath(relative).name)
    for name, gone in lacking.items():
        counted[name].missing = gone[:MAX_NAMED]
    return list(counted.values()), [name for name in names if lacking[name] or not counted[name].files]


def metrics(
    paths: Paths, experiment: str, job_id: str, trained: ManifestRef | None, token: int
) -> list[dict[str, Any]]:
    """The run's `metrics.jsonl`: the committed one, otherwise the one that attempt `token` is writing. Blocking."""
    found: Path | None = None
    if trained is not None:
        try:
            files = manifests.load(paths, trained).files
        except PlatformError:
            files = {}
        name = ExperimentFiles(Path()).metrics.name
        found = next((paths.in_data(path) for path in files if PurePosixPath(path).name == name), None)
    if found is None and token > 0:
        found = ExperimentFiles(paths.experiment(experiment).step(job_id, Step.train).attempt(token)).metrics
    if found is None or not found.is_file():
        return []
    with found.open("rb") as file:
        file.seek(max(0, found.stat().st_size - MAX_METRICS_BYTES))
        lines = file.read(MAX_METRICS_BYTES).splitlines()
    return list(_parsed(lines))


def _parsed(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(
                line, parse_constant=lambda _: None
            )  # JSON has no NaN: a loss that is none is told as null
        except ValueError:
            continue  # the first or last line may be cut: the run is still writing
        if isinstance(row, dict):
            yield row


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Metrics as a table; nested losses become columns such as `losses.mel`."""
    flat = [
        {
            column: value
            for name, content in row.items()
            for column, value in (
                [(f"{name}.{k}", v) for k, v in content.items()] if isinstance(content, dict) else [(name, content)]
            )
        }
        for row in rows
    ]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()
