"""What did a step make? The list of its files with checksums, written whole, found by reference alone."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from libs.common.errors import StepResultLost
from libs.common.events import ManifestRef
from libs.common.paths import Paths, StepFolder


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int


class Manifest(BaseModel):
    """`files` maps a path below DATA_ROOT to its checksum; `data` is what the step wants to tell; `event` its fact."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    step: str
    token: int
    fingerprint: str = ""
    folder: str
    files: dict[str, FileEntry]
    data: dict[str, Any] = {}
    event: dict[str, Any] | None = None


def sha256_of(path: Path) -> str:
    """Checksum of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """A file under its final name only when all of it is on disk. OSError leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        _flush(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _flush(folder: Path) -> None:
    """A rename is on disk only when its folder is: a reference must not outlive what it names in a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def point(link: Path, target: Path) -> None:
    """Replaces `link` by a relative link to `target` in one step; removes it when there is no target."""
    if not target.exists():
        if link.is_symlink():
            link.unlink()
        return
    temporary = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)


def entries(paths: Paths, files: list[Path]) -> dict[str, FileEntry]:
    """Checksums of finished files below DATA_ROOT."""
    return {paths.relative(f): FileEntry(sha256=sha256_of(f), size=f.stat().st_size) for f in sorted(files)}


def store(paths: Paths, where: Path, manifest: Manifest) -> ManifestRef:
    """Writes a manifest; nobody finds it until its reference is committed."""
    content = manifest.model_dump_json(indent=1).encode()
    write_whole(where, content)
    return reference_of(paths, where, content, manifest.token)


def reference_of(paths: Paths, where: Path, content: bytes, token: int) -> ManifestRef:
    """What names a manifest of this content at this place."""
    return ManifestRef(path=paths.relative(where), sha256=hashlib.sha256(content).hexdigest(), token=token)


def load(paths: Paths, reference: ManifestRef) -> Manifest:
    """The manifest that `reference` names; raises StepResultLost when it is gone or was changed."""
    where = paths.in_data(reference.path)
    step = PurePosixPath(reference.path).parent.name
    try:
        content = where.read_bytes()
    except OSError as error:
        raise StepResultLost(
            f"the step manifest {reference.path} cannot be read: {error.strerror}", step=step
        ) from error
    if hashlib.sha256(content).hexdigest() != reference.sha256:
        raise StepResultLost(f"the step manifest {reference.path} is not the one that was committed", step=step)
    return Manifest.model_validate_json(content)


def verify(paths: Paths, manifest: Manifest, files: Iterable[str] | None = None) -> list[str]:
    """Relative paths of files (of these, or of all) that are missing or have another size or content."""
    wrong = []
    for relative in manifest.files if files is None else files:
        path, entry = paths.in_data(relative), manifest.files[relative]
        try:
            fits = path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
        except OSError:
            fits = False
        if not fits:
            wrong.append(relative)
    return wrong


def check(paths: Paths, manifest: Manifest, files: Iterable[str] | None = None) -> None:
    """Raises StepResultLost, naming the step, unless its files (these, or all) are as they were committed."""
    wrong = verify(paths, manifest, files)
    if wrong:
        raise StepResultLost(
            f"{len(wrong)} of the files that the {manifest.step} step made are gone or damaged, such as {wrong[0]}",
            step=manifest.step,
            files=wrong[:10],
        )


def seems_whole(paths: Paths, reference: ManifestRef) -> bool:
    """A quick look: the manifest is there and its files have their sizes. Their content is not read."""
    try:
        manifest = load(paths, reference)
        return all(paths.in_data(name).stat().st_size == entry.size for name, entry in manifest.files.items())
    except (StepResultLost, OSError, ValueError):
        return False


def discard_damaged(paths: Paths, reference: ManifestRef) -> None:
    """Removes what a later attempt at the step must not take over: files that are not as they were committed.

    Without the manifest nobody can tell which these are, and the whole attempt goes.
    """
    try:
        manifest = load(paths, reference)
    except (StepResultLost, ValueError):
        step = StepFolder(paths.in_data(reference.path).parent)
        shutil.rmtree(step.attempt(reference.token), ignore_errors=True)
        return
    for relative in verify(paths, manifest):
        path = paths.in_data(relative)
        if path.is_file() or path.is_symlink():
            path.unlink()
