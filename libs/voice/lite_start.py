"""With which weights does a `lite` voice begin? With those of many speakers that come inside the package.

Made by `scripts/pretrain/decoder.py` from openly licensed speech; data, numbers and limits are in `docs/models.md`. The
file is a `lite` voice itself, that of the mean speaker, and says which content encoder it understands.
"""

from __future__ import annotations

import dataclasses
import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from libs.common.errors import InvalidInput
from libs.voice.artefact import read_voice, synthesizer_of
from libs.voice.lite import LiteSynthesizer


def packaged_start() -> Path:
    """The weights file inside the package."""
    return Path(str(files("libs.voice") / "assets" / "voicewright-lite.safetensors"))


def start_for(encoder: str | None) -> Path | None:
    """The packaged weights if they understand features of the encoder with the checksum `encoder`, else None.

    Raises NotFound and ModelFileRefused when the package is damaged.
    """
    path = packaged_start()
    if encoder is None:
        return None
    return path if _understands(path, path.stat().st_mtime_ns) == encoder else None


@lru_cache(maxsize=2)
def _understands(path: Path, stamp: int) -> str | None:
    """The checksum of the encoder that the weights at `path` learned from; `stamp` is its time of change."""
    return (read_voice(path).content_encoder or {}).get("checksum")


def begin_with(network: LiteSynthesizer, path: Path) -> dict[str, str]:
    """Fill `network` from a `lite` voice; returns its `file` name and `sha256` for the voice card.

    A network of several speakers may begin with a voice of one: then all of them begin as that one.
    Raises InvalidInput when there is no such file or it is of another shape, ModelFileRefused when it is unsafe.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no {path.name} to begin with", field="pretrained_generator")
    base = synthesizer_of(read_voice(path), path.name)
    fitting = (network.config, dataclasses.replace(network.config, speakers=1))
    if not isinstance(base, LiteSynthesizer) or base.config not in fitting:
        raise InvalidInput(
            f"{path.name} is not a lite voice of this shape; leave it out to begin with the packaged one",
            field="pretrained_generator",
        )
    network.load_state_dict(network.state_dict() | base.state_dict())
    with path.open("rb") as stream:
        return {"file": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
