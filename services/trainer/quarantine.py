"""Where do files of strangers wait, and how does the trainer get hold of them? Copied and compared, once."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from libs.common.errors import InvalidName, NotFound, WorkFailed
from libs.common.events import MakingOptions, StagedFile
from libs.common.logs import get_logger
from libs.common.paths import Paths

log = get_logger("trainer.quarantine")

_BLOCK = 1024 * 1024


def take(paths: Paths, file: StagedFile, room: Path, suffix: str = "") -> Path:
    """A copy of a staged file in the folder `room`, under a tame form of its own name, or ending in `suffix`.

    Raises NotFound when nobody keeps it any more, WorkFailed when it is not what was received.
    """
    stem, extension = os.path.splitext(file.name.replace("\\", "/").rsplit("/", 1)[-1])
    tame = re.sub(r"[^A-Za-z0-9_. -]+", "_", stem).strip(" .")[:80] or "model"
    extension = suffix or (extension.lower() if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", extension) else "")
    target = room / f"{tame}{extension}"
    room.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with paths.staged_upload(file.upload_id).original.open("rb") as source, target.open("xb") as copy:
            while block := source.read(_BLOCK):
                digest.update(block)
                copy.write(block)
    except (FileNotFoundError, InvalidName) as error:
        raise NotFound(
            f"the uploaded file {file.name!r} is no longer kept", actions=("Send the files again.",)
        ) from error
    if digest.hexdigest() != file.sha256:
        raise WorkFailed(f"the uploaded file {file.name!r} is not what was received", actions=("Send it again.",))
    return target


def drop(paths: Paths, options: MakingOptions) -> None:
    """Removes the uploads of a job that will not need them again; what stays, ingest sweeps away later."""
    for file in (options.model, options.index, options.config):
        if file is None:
            continue
        try:
            shutil.rmtree(paths.staged(file.upload_id))
        except FileNotFoundError:
            pass
        except (OSError, InvalidName) as error:
            log.warning("quarantine.not_emptied", upload_id=file.upload_id, error=str(error))
