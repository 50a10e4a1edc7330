"""What can be asked about the files of a voice? Plain functions for processes of their own: no file is opened here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from libs.common.errors import InvalidInput, InvalidName, ModelFileRefused, NotFound, PlatformError
from libs.common.manifests import sha256_of
from libs.common.paths import Paths, VoiceVersion
from services.inference.cards import ELSEWHERE, served_weights

ARCHIVES = ("rvc", "applio", "voicewright")


def find_version(paths: Paths, slug: str, version: str, *, elsewhere: bool = False) -> VoiceVersion:
    """A version of a voice whose card and weights are there; raises NotFound.

    `elsewhere`: a voice that lives with its provider will do, which has no weights here.
    """
    try:
        found = paths.voice(slug).version(version)
    except InvalidName as error:
        raise NotFound(f"there is no voice {slug!r} with a version {version!r}", field="voice") from error
    is_whole = found.weights.is_file() or (elsewhere and kind_of(found) in ELSEWHERE)
    if not found.card.is_file() or not is_whole:
        raise NotFound(f"the version {version} of the voice {slug} is not there", field="voice")
    return found


def facts(version: VoiceVersion) -> dict[str, Any]:
    """What the voice's file holds, with its size, checksum and index.

    Raises InvalidInput (the voice lives elsewhere), ModelFileRefused, NotFound.
    """
    from libs.voice.index_file import check_index_file
    from libs.voice.tools import inspect_model

    kind = kind_of(version)
    if kind in ELSEWHERE:
        raise InvalidInput(f"the voice lives with {kind}: there is no file of it here", field="voice")
    if kind != "rvc":
        return _speaking(version, kind)
    info = inspect_model(version.weights)
    rows = check_index_file(version.index, width=info.content_width).rows if version.index.is_file() else None
    card = read_card(version)
    return info.as_dict() | {
        "content_encoder": card.get("content_encoder") or info.content_encoder,
        "size_bytes": version.weights.stat().st_size,
        "sha256": sha256_of(version.weights),
        "index_rows": rows,
    }


def _speaking(version: VoiceVersion, kind: str) -> dict[str, Any]:
    """The same of a voice that speaks text: its card names the network, its file has the numbers."""
    from libs.voice.tools import count_weights

    card = read_card(version)
    training = card.get("training") or {}
    steps, epochs = training.get("steps"), training.get("epochs")
    return count_weights(version.weights) | {
        "kind": "voice",
        "network": kind,
        "version": card.get("preset"),
        "sample_rate": card.get("sample_rate"),
        "f0": None,
        "speakers": 1,
        "content_width": None,
        "training": f"epoch {epochs}, step {steps}" if steps is not None else None,
        "language": card.get("language"),
        "languages": card.get("languages") or [],
        "licence": (card.get("licence") or {}).get("name"),
        "size_bytes": version.weights.stat().st_size,
        "sha256": sha256_of(version.weights),
    }


def check(version: VoiceVersion) -> dict[str, Any]:
    """Compares the files with their card and tries the voice.

    Returns `valid`, `problems` and, when it is valid, `peak`, `level_db` and `content_width`.
    """
    from libs.voice.tools import verify_voice

    found: list[dict[str, Any]] = []
    heard: dict[str, Any] = {}
    try:
        card = read_card(version)
        _compare(version, card)
        index = version.index if version.index.is_file() else None
        result = verify_voice(served_weights(version, card)[0], index)
        heard = {
            "peak": round(float(result.peak), 4),
            "level_db": round(float(result.level_db), 2),
            "content_width": result.info.content_width,
        }
    except PlatformError as error:
        if error.retryable:
            raise
        found.append(error.problem())
    return {"valid": not found, "problems": found, **heard}


def check_files(version: VoiceVersion) -> dict[str, Any]:
    """Compares the files with their card, and no more: `valid`, `problems`."""
    try:
        _compare(version, read_card(version))
    except ModelFileRefused as error:
        return {"valid": False, "problems": [error.problem()]}
    return {"valid": True, "problems": []}


def kind_of(version: VoiceVersion) -> str:
    """`rvc`, `xtts`, `google` or `openai`, as the card says; `rvc` when nothing can be read."""
    try:
        return str(read_card(version).get("kind", "rvc"))
    except ModelFileRefused:
        return "rvc"


def write_file(version: VoiceVersion, form: str, output: Path) -> None:
    """The voice in another form at `output`: an archive, or its weights as fp16, fp32 or safetensors.

    Raises InvalidInput when the form cannot hold the voice, ModelFileRefused, StorageFull.
    """
    from libs.voice.tools import convert_file, write_archive

    if kind_of(version) != "rvc":
        raise InvalidInput(
            f"the voice {version.slug} speaks text, and a file of the form {form} cannot hold it",
            field="form",
            actions=("Export it as voicewright.",),
        )
    if form in ARCHIVES:
        index = version.index if version.index.is_file() else None
        write_archive(form, version.weights, index, read_card(version), output, name=version.slug)  # type: ignore[arg-type]
    else:
        convert_file(version.weights, output, form)  # type: ignore[arg-type]


def file_name(slug: str, form: str) -> str:
    """What the file of a form is called."""
    if form in ARCHIVES:
        return f"{slug}-{form}.zip" if form != "voicewright" else f"{slug}.zip"
    return f"{slug}.safetensors" if form == "safetensors" else f"{slug}-{form}.pth"


def read_card(version: VoiceVersion) -> dict[str, Any]:
    """The card of one version; raises ModelFileRefused when it is none."""
    try:
        card = json.loads(version.card.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelFileRefused(f"the card of {version.slug} cannot be read: {error}") from error
    if not isinstance(card, dict):
        raise ModelFileRefused(f"the card of {version.slug} is no JSON object")
    return card


def _compare(version: VoiceVersion, card: dict[str, Any]) -> None:
    named = [(version.weights, card.get("weights")), (version.index, card.get("index"))]
    try:
        named += [(version.file(facts["file"]), facts) for facts in card.get("files") or ()]
    except (TypeError, KeyError, InvalidName) as error:
        raise ModelFileRefused("the card names files that no voice has") from error
    for path, expected in named:
        if expected is None and not path.is_file():
            continue
        if not path.is_file():
            raise ModelFileRefused(f"{path.name}, which the card names, is not there")
        if not isinstance(expected, dict) or sha256_of(path) != expected.get("sha256"):
            raise ModelFileRefused(f"{path.name} is not the file that the card names: it was changed or damaged")
