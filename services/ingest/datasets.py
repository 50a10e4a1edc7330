"""What does ingest keep of a dataset? Originals by checksum, their WAVs and reports, `metadata.csv`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from libs.audio.formats import FAMILIES
from libs.common.errors import InvalidInput, VoiceSampleNotFound
from libs.common.manifests import write_whole
from libs.common.paths import DatasetUploads, Paths
from services.ingest import staging
from services.ingest.staging import flush_folder, full_disk_is_named

_MIME = {family.extension.lstrip("."): family.mime for family in FAMILIES.values()}


@dataclass(frozen=True)
class Claimed:
    """An upload that belongs to a dataset now."""

    upload_id: str
    sha256: str
    extension: str


def claim(paths: Paths, dataset: str, upload_ids: list[str]) -> list[Claimed]:
    """Moves staged uploads into a dataset. May be repeated, also after a kill half-way; the same content is one file.

    Raises VoiceSampleNotFound before anything moves when one of them is neither staged nor in the dataset.
    """
    return _claim(paths, paths.uploads(dataset), upload_ids)


def claim_for_job(paths: Paths, job_id: str, upload_ids: list[str]) -> list[Claimed]:
    """Moves staged uploads to where a job finds what was sent with it; may be repeated as `claim`."""
    return _claim(paths, paths.job_uploads(job_id), upload_ids)


def _claim(paths: Paths, files: DatasetUploads, upload_ids: list[str]) -> list[Claimed]:
    found = [staging.find(paths, upload_id) for upload_id in upload_ids]
    for record, upload in found:
        if not upload.original.is_file() and not files.original(record.sha256, record.extension).is_file():
            raise _gone(record.upload_id)
    with full_disk_is_named("the recording"):
        files.wavs.mkdir(parents=True, exist_ok=True)
        files.reports.mkdir(exist_ok=True)
    for record, upload in found:
        # The original comes last: where it is, its WAV and report are.
        for source, target in (
            (upload.wav, files.wav(record.sha256)),
            (upload.report, files.report(record.sha256)),
            (upload.original, files.original(record.sha256, record.extension)),
        ):
            try:
                os.replace(source, target)
            except FileNotFoundError:
                if not target.is_file():
                    raise _gone(record.upload_id) from None
    for folder in (files.wavs, files.reports, files.folder):
        flush_folder(folder)
    # The record stays until it is swept, so that a repeated claim is answered alike.
    return [Claimed(record.upload_id, record.sha256, record.extension) for record, _ in found]


def _gone(upload_id: str) -> VoiceSampleNotFound:
    return VoiceSampleNotFound(f"the upload {upload_id!r} belongs to something else already", upload_id=upload_id)


def remove_file(paths: Paths, dataset: str, sha256: str) -> list[str]:
    """Removes a recording with its WAV and report; returns the names of the originals that were there."""
    files = paths.uploads(dataset)
    originals = files.find_originals(sha256)
    # The original goes first: where it is, its WAV and report are.
    for path in (*originals, files.wav(sha256), files.report(sha256)):
        path.unlink(missing_ok=True)
    return [path.name for path in originals]


def audio(paths: Paths, dataset: str, sha256: str, form: str) -> tuple[Path, str]:
    """File and content type of a recording as it was sent (`original`) or as WAV. Raises VoiceSampleNotFound."""
    files = paths.uploads(dataset)
    originals = files.find_originals(sha256)
    path = files.wav(sha256) if form == "wav" else originals[0] if originals else None
    if not originals or path is None or not path.is_file():
        raise VoiceSampleNotFound(f"the dataset {dataset!r} holds no recording {sha256}")
    return path, "audio/wav" if form == "wav" else _MIME.get(path.suffix.lstrip("."), "application/octet-stream")


def write_metadata(paths: Paths, dataset: str, content: bytes) -> None:
    """Writes LJSpeech's `metadata.csv` (lines of `id|text|text`), whole. Raises InvalidInput and StorageFull."""
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"metadata.csv must be UTF-8; byte {error.start} is not", field="body") from error
    for number, line in enumerate(lines, start=1):
        if line and line.count("|") != 2:
            raise InvalidInput(f"line {number} of metadata.csv is not of the form id|text|text", field="body")
    with full_disk_is_named("metadata.csv"):
        write_whole(paths.uploads(dataset).metadata, content)
