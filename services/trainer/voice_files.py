"""What is a whole version of a voice, and how does it become the one that is served?

A version is put together beside the others, tried, committed, and only then renamed into place; the card of the voice
is replaced last. A reader therefore sees a whole old version or a whole new one. What follows the commit may run twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libs.common.errors import WorkFailed
from libs.common.events import VoicePublished
from libs.common.manifests import point, sha256_of, write_whole
from libs.common.paths import Voice, VoiceVersion, version_key
from libs.common.storage import Storage
from libs.common.work import Done


def assemble(
    version: VoiceVersion,
    weights: Path | None,
    index: Path | None,
    card: dict[str, Any],
    others: Sequence[Path] = (),
    native: Path | None = None,
) -> None:
    """Copies weights, index and `others`, as far as there are any, and writes the card, each whole and on disk.

    `native` are the weights in our own form.
    """
    if version.folder.exists():
        shutil.rmtree(version.folder)
    version.folder.mkdir(parents=True)
    if weights is not None:
        _copy(weights, version.weights)
    if index is not None:
        _copy(index, version.index)
    if native is not None:
        _copy(native, version.native)
    for path in others:
        _copy(path, version.file(path.name))
    write_whole(version.card, json.dumps(card, indent=1, sort_keys=True).encode())


def fits(version: VoiceVersion, card: dict[str, Any]) -> bool:
    """Whether the folder holds exactly the files that the card names; a voice may be without an index, or weights."""

    def has(path: Path, facts: dict[str, Any] | None) -> bool:
        return sha256_of(path) == facts["sha256"] if facts else not path.exists()

    try:
        return (
            has(version.weights, card["weights"])
            and has(version.index, card["index"])
            and all(has(version.file(facts["file"]), facts) for facts in card.get("files", ()))
            and json.loads(version.card.read_text()) == card
        )
    except (OSError, ValueError, KeyError):
        return False


def put_in_place(voice: Voice, attempt: VoiceVersion, version: VoiceVersion, card: dict[str, Any]) -> None:
    """Gives a committed version its final name. Raises WorkFailed when neither place holds it whole."""
    if not fits(version, card):
        if not fits(attempt, card):
            raise WorkFailed(f"the version {version.folder.name} of {voice.slug} is not whole on the models volume")
        if version.folder.exists():
            shutil.rmtree(version.folder)
        os.rename(attempt.folder, version.folder)
    for left in voice.versions.glob(f".attempt-{version.folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def keep_copy(storage: Storage, bucket: str, version: VoiceVersion, job_id: str) -> None:
    """A copy of the version's files in the object store. Raises Unavailable, StorageFull."""
    for path in files_of(version, read_card(version.card) or {}):
        key = version_key(version.slug, job_id, path.name)
        if storage.size(bucket, key) != path.stat().st_size:
            storage.put_file(bucket, key, path)


def files_of(version: VoiceVersion, card: dict[str, Any]) -> list[Path]:
    """The files of a version that its card names, and at the end the card."""
    held = [path for path, part in ((version.weights, "weights"), (version.index, "index")) if card.get(part)]
    return [*held, *(version.file(facts["file"]) for facts in card.get("files", ())), version.card]


def serve(voice: Voice, version: VoiceVersion, card: dict[str, Any], revision: int) -> bool:
    """Makes `version` the one that is served, unless a later commit is served already; the card goes last.

    `revision` is the commit's, which grows over the whole installation. Returns whether the voice now serves it.
    """
    with _alone(voice):
        now = read_card(voice.card)
        if now is not None and int(now.get("revision", 0)) > revision:
            return False
        point(voice.weights, version.weights)
        point(voice.index, version.index)
        shown = card | {"revision": revision, "version": version.folder.name}
        write_whole(voice.card, json.dumps(shown, indent=1, sort_keys=True).encode())
        return True


def published(folder: Path, version: VoiceVersion, card: dict[str, Any]) -> Done:
    """What a step says that has put `version` together; a copy of its card stays in the step's own `folder`."""
    kept = folder / version.card.name
    write_whole(kept, version.card.read_bytes())
    return Done(
        event=VoicePublished,
        fields={
            "voice": version.slug,
            "weights_sha256": card["weights"]["sha256"] if card["weights"] else "",
            "index_sha256": card["index"]["sha256"] if card["index"] else "",
            "sample_rate": card["sample_rate"],
            "preset": card["preset"],
            "card": card,
        },
        files=[kept],
        data={"card": card},
    )


def publish(
    voice: Voice, storage: Storage, bucket: str, job_id: str, token: int, card: dict[str, Any], revision: int
) -> None:
    """What follows the commit of a version: its name, its copy in the object store, and that it is served."""
    version = voice.version(job_id)
    put_in_place(voice, voice.version_attempt(job_id, token), version, card)
    keep_copy(storage, bucket, version, job_id)
    serve(voice, version, card, revision)


def file_facts(name: str, path: Path) -> dict[str, Any]:
    """What a card says about one of its files: the name that it will have, checksum, size."""
    return {"file": name, "sha256": sha256_of(path), "size": path.stat().st_size}


def read_card(path: Path) -> dict[str, Any] | None:
    """A voice card, or None when there is none."""
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) else None


@contextmanager
def _alone(voice: Voice) -> Iterator[None]:
    voice.folder.mkdir(parents=True, exist_ok=True)
    with voice.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        with source.open("rb") as read, temporary.open("xb") as write:
            shutil.copyfileobj(read, write, 1024 * 1024)
            write.flush()
            os.fsync(write.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
