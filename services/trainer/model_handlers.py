"""What does the trainer do without training? `MakeVoice`: a voice of files that are there already.

    quarantine ─▶ copied into the attempt's room ─▶ opened and tried in a child process ─▶ version, like a trained one

Nothing lies below MODELS_ROOT before it was tried. What is refused leaves nothing: neither in the room nor in
quarantine.
"""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.common import manifests
from libs.common.errors import InvalidName, NotFound, PlatformError, WorkFailed
from libs.common.events import MakeVoice, VersionRef
from libs.common.manifests import Manifest
from libs.common.paths import Paths
from libs.common.processes import in_child
from libs.common.storable import storable_text
from libs.common.storage import Storage
from libs.common.work import Done, Work
from services.trainer import making, quarantine, voice_files
from services.trainer.making import INDEX, NATIVE, WEIGHTS, Materials, Source
from services.trainer.settings import TrainerSettings

ROOM = "room"
RVC_ENCODER = (
    "The file does not say with which content encoder the voice was trained; RVC's own is assumed (HuBERT or "
    "ContentVec, {width} values a frame). Converting with it needs hubert_base.pt at HUBERT_PATH."
)


class ModelHandlers:
    def __init__(self, settings: TrainerSettings, paths: Paths, storage: Storage) -> None:
        self._settings = settings
        self._paths = paths
        self._storage = storage

    async def on_make_voice(self, work: Work[MakeVoice]) -> Done:
        """Makes the voice in a room of its own, and a whole version of it on the models volume."""
        for folder in work.earlier_folders:  # of a worker that was killed
            await asyncio.to_thread(shutil.rmtree, folder / ROOM, ignore_errors=True)
        room = work.folder / ROOM
        try:
            materials = await asyncio.to_thread(self._materials, work, room)
            work.mark("opened")  # from here on only the child process has to do with the file
            async with work.time_limit(self._settings.step_timeout_make):
                made = await work.unless_stopped(in_child(making.make, materials))
            work.report(0.8, message="tried")
            card = await asyncio.to_thread(self._card, work.command, materials, made)
            version = self._paths.voice(work.command.voice).version_attempt(work.command.job_id, work.token)
            index = room / INDEX if made["has_index"] else None
            native = room / NATIVE if made["has_native"] else None
            await asyncio.to_thread(voice_files.assemble, version, room / WEIGHTS, index, card, native=native)
        except PlatformError as error:
            if not error.retryable:
                await asyncio.to_thread(quarantine.drop, self._paths, work.command.options)
            raise
        finally:
            await asyncio.to_thread(shutil.rmtree, room, ignore_errors=True)
        return voice_files.published(work.folder, version, card)

    async def serve_version(self, command: MakeVoice, manifest: Manifest, revision: int) -> None:
        """After the commit: the version is named, copied and served, and the quarantine is empty again."""
        voice, card = self._paths.voice(command.voice), manifest.data["card"]
        bucket = self._settings.voice_models_bucket
        await asyncio.to_thread(
            voice_files.publish, voice, self._storage, bucket, command.job_id, manifest.token, card, revision
        )
        await asyncio.to_thread(quarantine.drop, self._paths, command.options)

    # -- from what ----------------------------------------------------------------------------------------------------

    def _materials(self, work: Work[MakeVoice], room: Path) -> Materials:
        """Everything that the child needs, in the attempt's room. Raises NotFound, WorkFailed."""
        options = work.command.options
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        sent = {
            name: quarantine.take(self._paths, file, room / name, suffix)
            for name, file, suffix in (
                ("model", options.model, ""),
                ("index", options.index, ".index"),
                ("config", options.config, ".json"),
            )
            if file is not None
        }
        return Materials(
            tool=options.tool,
            room=room,
            first=self._source(options.first),
            second=self._source(options.second),
            share=options.share,
            speaker=options.speaker,
            encoder=options.encoder,
            **sent,
        )

    def _source(self, reference: VersionRef | None) -> Source | None:
        """A version that is merged, as its card has it. Raises NotFound when it is gone, WorkFailed when it differs."""
        if reference is None:
            return None
        try:
            version = self._paths.voice(reference.voice).version(reference.version)
            card = voice_files.read_card(version.card)
            if card is None:
                raise FileNotFoundError(version.card)
            if manifests.sha256_of(version.weights) != card["weights"]["sha256"]:
                raise WorkFailed(f"{version.weights.name} is not the file that its card names")
        except (FileNotFoundError, InvalidName) as error:
            raise NotFound(f"the version {reference.version} of {reference.voice} is gone", field="voice") from error
        return Source(version.weights, card)

    # -- what it is ---------------------------------------------------------------------------------------------------

    def _card(self, command: MakeVoice, materials: Materials, made: dict[str, Any]) -> dict[str, Any]:
        """The voice card: what it is, where it came from, and the checksums of its files."""
        voice, info, room = self._paths.voice(command.voice), made["info"], materials.room
        card: dict[str, Any] = {
            "format": 1,
            "name": command.display_name,
            "voice": command.voice,
            "preset": _preset(info),
            "sample_rate": info["sample_rate"],
            "content_width": info["content_width"],
            "content_encoder": made["content_encoder"],
            "f0_method": "auto",
            "weights": voice_files.file_facts(voice.weights.name, room / WEIGHTS),
            "index": voice_files.file_facts(voice.index.name, room / INDEX) if made["has_index"] else None,
            "quality": made["quality"],
            "model": info,
            "origin": _origin(command, materials, made),
            "lineage": {"job_id": command.job_id},
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if made["has_native"]:
            card["files"] = [voice_files.file_facts(f"{voice.slug}.safetensors", room / NATIVE)]
        if made["content_encoder"] is None:
            card["notes"] = [RVC_ENCODER.format(width=info["content_width"])]
        return card


def _preset(info: dict[str, Any]) -> str:
    """The preset that trains such a network, or would."""
    if info["network"] == "lite":
        return "lite"
    return f"rvc-{info['version']}-{(info['sample_rate'] or 0) // 1000}k"


def _origin(command: MakeVoice, materials: Materials, made: dict[str, Any]) -> dict[str, Any]:
    options = command.options
    origin: dict[str, Any] = {"tool": options.tool, "form": made["form"]}
    files = (options.model, options.index, options.config)
    if sent := [{"name": file.name, "sha256": file.sha256} for file in files if file is not None]:
        origin["files"] = sent
    if options.tool == "merge":
        parts = ((materials.first, options.first), (materials.second, options.second))
        origin["share"] = options.share
        origin["voices"] = [
            {"voice": reference.voice, "version": reference.version, "sha256": source.card["weights"]["sha256"]}
            for source, reference in parts
            if source is not None and reference is not None
        ]
    if options.rights:
        origin["rights"] = options.rights
    if isinstance(made["card"], dict):
        origin["card"] = _summary(made["card"])
    return origin


def _summary(card: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a stranger's card: the plain values known to us, and of its own origin only the kind.

    A voice that is passed on from one to the next does not carry the cards of all of them.
    """
    kept = _plain(card, ("name", "voice", "preset", "sample_rate", "content_width", "created_at", "consent", "rights"))
    for key, names in (
        ("content_encoder", ("name", "checksum", "width")),
        ("origin", ("tool", "form", "rights")),
        ("lineage", ("job_id", "dataset")),
    ):
        if isinstance(card.get(key), dict) and (part := _plain(card[key], names)):
            kept[key] = part
    return kept


def _plain(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        value = values.get(name)
        if isinstance(value, str):
            found[name] = storable_text(value)
        elif isinstance(value, int | float) and abs(value) < 2**53:
            found[name] = value
    return found
