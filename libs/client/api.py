"""What can a program ask of the platform? Every route of the journey as a typed method.

with Client("http://127.0.0.1:8000") as client:
    client.login("anna@example.com", "…")
    dataset = client.ensure_dataset("Anna")
    client.upload([Path("a.wav")], dataset.id)
    job = client.add_training_job(dataset.id, preset="lite")
    job = client.wait(job.id)
    client.convert(Path("speech.wav"), job.voice, Path("converted.wav"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar, cast, get_args

import httpx

from libs.client import feed
from libs.client.errors import ApiProblem, JobEnded
from libs.client.http import Connection, new_key
from libs.client.models import (
    AccessKey,
    Answer,
    Conversion,
    Dataset,
    FeedEvent,
    FileResult,
    Job,
    Kind,
    LogLine,
    ModelFacts,
    Page,
    Sample,
    Tokens,
    Upload,
    User,
    Voice,
    VoiceCheck,
    address,
)
from libs.client.transfers import SENDING, Progress, counted, media_type, number, save

Item = TypeVar("Item", bound=Answer)


class Client:
    """One account's view of one platform. All methods raise ApiProblem, SignInNeeded or NotReachable."""

    def __init__(self, url: str, token: str | None = None, refresh_token: str | None = None, **options: Any) -> None:
        """`options` are those of `Connection`: timeout, attempts, pause, transport, on_tokens."""
        self.connection = Connection(url, token, refresh_token, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return cast(dict[str, Any], self.connection.request(method, path, **options).json())

    def _pages(self, path: str, model: type[Item], *, limit: int | None = None, **query: Any) -> Iterator[Item]:
        """Every item of a list, page by page, at most `limit`."""
        asked = {name: value for name, value in query.items() if value is not None}
        left = limit
        while left is None or left > 0:
            if left is not None:
                asked["limit"] = min(left, 200)
            page = Page[model].model_validate(self._json("GET", path, params=asked))  # type: ignore[valid-type]
            yield from page.items
            left = None if left is None else left - len(page.items)
            if not page.next_cursor:
                return
            asked["cursor"] = page.next_cursor

    # -- accounts -----------------------------------------------------------------------------------------------------

    def login(self, email: str, password: str) -> Tokens:
        """Signs in; later calls carry the token."""
        tokens = Tokens.model_validate(self._json("POST", "/auth/login", json={"email": email, "password": password}))
        self.connection.take(tokens)
        return tokens

    def logout(self) -> None:
        """Ends this session on the platform."""
        self.connection.request("POST", "/auth/logout", json={"refresh_token": self.connection.refresh_token})
        self.connection.token = self.connection.refresh_token = None

    def me(self) -> User:
        return User.model_validate(self._json("GET", "/auth/me"))

    def add_user(self, email: str, password: str, *, name: str = "", role: str = "creator") -> User:
        body = {"email": email, "password": password, "name": name, "role": role}
        return User.model_validate(self._json("POST", "/admin/users", key=new_key(), json=body))

    def users(self) -> list[User]:
        return list(self._pages("/admin/users", User))

    def create_key(self, name: str, scopes: Sequence[str], *, lifetime_days: int | None = 365) -> AccessKey:
        """A key for a program: `look`, `use`, `make` are its scopes. Its `token` is told this once."""
        body = {"name": name, "scopes": list(scopes), "lifetime_days": lifetime_days}
        return AccessKey.model_validate(self._json("POST", "/auth/tokens", json=body))

    def keys(self) -> list[AccessKey]:
        """Your keys, newest first, also those that do not work any more."""
        return list(self._pages("/auth/tokens", AccessKey))

    def revoke_key(self, key_id: str) -> None:
        self.connection.request("DELETE", f"/auth/tokens/{key_id}")

    # -- recordings ---------------------------------------------------------------------------------------------------

    def datasets(self) -> list[Dataset]:
        return list(self._pages("/datasets", Dataset))

    def find_dataset(self, name: str) -> Dataset | None:
        """Your dataset with this id, slug or, else, display name; for an administrator then anybody's by id or slug."""
        found, me = self.datasets(), self.me().id
        by_key = [dataset for dataset in found if name in (dataset.id, dataset.slug)]
        mine = [dataset for dataset in by_key if dataset.user_id == me]
        named = [dataset for dataset in found if dataset.user_id == me and dataset.name == name]
        return next(iter([*mine, *named, *by_key]), None)

    def create_dataset(self, name: str) -> Dataset:
        return Dataset.model_validate(self._json("POST", "/datasets", key=new_key(), json={"name": name}))

    def ensure_dataset(self, name: str) -> Dataset:
        """Your dataset of this name, made when there is none. Somebody else's only by its id: recordings never mix."""
        found = self.find_dataset(name)
        if found is None or (name != found.id and found.user_id != self.me().id):
            return self.create_dataset(name)
        return found

    def delete_dataset(self, dataset: str) -> None:
        self.connection.request("DELETE", f"/datasets/{dataset}")

    def samples(self, dataset_id: str) -> list[Sample]:
        return list(self._pages("/samples", Sample, dataset_id=dataset_id))

    def upload(
        self, files: Sequence[Path], dataset_id: str, *, transcript: str | None = None, told: Progress | None = None
    ) -> Upload:
        """Sends `files` in one request. Files that are not accepted are in `rejected`; the others are kept.

        `told` hears of every block of bytes that was sent.
        """
        key = new_key()
        with ExitStack() as opened:

            def parts() -> list[tuple[str, tuple[str, IO[bytes], str]]]:
                streams = [opened.enter_context(path.open("rb")) for path in files]
                return [
                    ("files", (path.name, counted(stream, told), media_type(path)))
                    for path, stream in zip(files, streams, strict=True)
                ]

            fields = {"dataset_id": dataset_id} | ({"transcript": transcript} if transcript else {})
            answer = self._json("POST", "/samples", key=key, data=fields, files=parts, timeout=SENDING)
        return Upload.model_validate(answer)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def add_training_job(
        self,
        dataset: str,
        *,
        name: str | None = None,
        provider: str | None = None,
        preset: str | None = None,
        priority: int = 50,
        **options: Any,
    ) -> Job:
        """Queues a training run of a dataset (id or slug): `epochs`, `train_seconds`, `seed` … are its options."""
        given = {option: value for option, value in options.items() if value is not None}
        body = {"dataset_id": dataset, "name": name, "provider": provider, "preset": preset, "priority": priority}
        sent = {key: value for key, value in (body | {"options": given}).items() if value not in (None, {})}
        return Job.model_validate(self._json("POST", "/training/jobs", key=new_key(), json=sent))

    def write_transcripts(self, dataset: str, metadata: bytes) -> dict[str, int]:
        """Gives recordings of a dataset (id or slug) their texts: the lines of a `metadata.csv` as LJSpeech has it."""
        path = f"/datasets/{dataset}/metadata.csv"
        return cast(dict[str, int], self._json("PUT", path, content=metadata, headers={"Content-Type": "text/csv"}))

    def providers(self) -> list[dict[str, Any]]:
        """Who can make a voice, what that takes and costs, and what is missing to use it."""
        return cast(list[dict[str, Any]], self._json("GET", "/providers")["items"])

    def add_preprocess_job(self, dataset: str, *, f0_method: str = "auto", priority: int = 50) -> Job:
        """Queues the preparation of a dataset (id or slug)."""
        body = {"dataset_id": dataset, "f0_method": f0_method, "priority": priority}
        return Job.model_validate(self._json("POST", "/preprocess/jobs", key=new_key(), json=body))

    def get_training_job_status(self, job_id: str) -> Job:
        """One training job as it is now."""
        return Job.model_validate(self._json("GET", f"/training/jobs/{job_id}"))

    def job(self, job_id: str) -> Job:
        """One job of any kind as it is now."""
        *first, last = get_args(Kind)
        for kind in first:
            try:
                return Job.model_validate(self._json("GET", f"/{address(kind)}/jobs/{job_id}"))
            except ApiProblem as problem:
                if problem.status != 404:
                    raise
        return Job.model_validate(self._json("GET", f"/{address(last)}/jobs/{job_id}"))

    def jobs(self, *, kind: Kind | None = None, status: str | None = None, limit: int | None = None) -> list[Job]:
        """Your jobs of one kind or of all, newest first; `status="active"` for those that are not over."""
        kinds = get_args(Kind) if kind is None else (kind,)
        of_each = (self._pages(f"/{address(each)}/jobs", Job, limit=limit, status=status) for each in kinds)
        # An id begins with the moment at which it was made.
        return list(islice(merge(*of_each, key=lambda job: job.id, reverse=True), limit))

    def cancel(self, job: Job) -> Job:
        return Job.model_validate(self._json("POST", f"{job.path}/cancel"))

    def retry(self, job: Job) -> Job:
        """Takes a failed or cancelled job up again, from its last checkpoint."""
        return Job.model_validate(self._json("POST", f"{job.path}/retry"))

    def logs(self, job: Job, *, limit: int | None = None) -> Iterator[LogLine]:
        return self._pages(f"{job.path}/logs", LogLine, limit=limit)

    def follow(self, job: Job, *, after: int | None = None, patience: float = 600.0) -> Iterator[FeedEvent]:
        """The live feed of a job until it is over; see `feed.follow`."""
        return feed.follow(self.connection, f"{job.path}/events", after=after, patience=patience)

    def wait(self, job: Job, *, told: Callable[[FeedEvent], None] | None = None) -> Job:
        """The job once it is completed; raises JobEnded when it failed or was cancelled."""
        for event in self.follow(job):
            if told:
                told(event)
        over = self.job(job.id)
        if over.status != "completed":
            raise JobEnded(over)
        return over

    # -- voices -------------------------------------------------------------------------------------------------------

    def voices(self) -> list[Voice]:
        return list(self._pages("/models", Voice))

    def voice(self, key: str) -> Voice:
        """One voice by id, slug or display name."""
        try:
            return Voice.model_validate(self._json("GET", f"/models/{key}"))
        except ApiProblem as problem:
            named = [voice for voice in self.voices() if voice.name == key] if problem.status == 404 else []
            if not named:
                raise
            return named[0]

    def delete_voice(self, key: str) -> None:
        self.connection.request("DELETE", f"/models/{self.voice(key).id}")

    def export_voice(self, key: str, target: Path, *, form: str = "voicewright") -> int:
        """Saves a voice as a zip in the form `voicewright`, `rvc` or `applio`; returns its size in bytes."""
        path = f"/models/{self.voice(key).id}/export"
        with self.connection.stream("GET", path, params={"format": form}, timeout=900.0) as response:
            return save(response, target)

    def import_voice(
        self, model: Path, name: str, *, index: Path | None = None, encoder: str = "auto", rights: str = ""
    ) -> Job:
        """Queues the import of a voice file or archive, of RVC, Applio or another installation."""
        fields = {"name": name, "encoder": encoder, "rights": rights}
        return self._send_model("/models/import", fields, model=model, index=index)

    def extract_voice(
        self,
        checkpoint: Path,
        name: str,
        *,
        index: Path | None = None,
        config: Path | None = None,
        speaker: int | None = None,
        encoder: str = "auto",
        rights: str = "",
    ) -> Job:
        """Queues the extraction of a voice from a training checkpoint, `G_….pth`."""
        fields = {"name": name, "encoder": encoder, "rights": rights}
        if speaker is not None:
            fields["speaker"] = str(speaker)
        return self._send_model("/models/extract", fields, model=checkpoint, index=index, config=config)

    def merge_voices(self, first: str, second: str, name: str, *, share: float = 0.5) -> Job:
        """Queues a new voice between two: `share` of the first (id, slug or name) and the rest of the second."""
        body = {"first": first, "second": second, "share": share, "name": name}
        return Job.model_validate(self._json("POST", "/models/merge", key=new_key(), json=body))

    def inspect_voice(self, key: str) -> ModelFacts:
        """What is in a voice's file."""
        path = f"/models/{self.voice(key).id}/inspect"
        return ModelFacts.model_validate(self._json("GET", path, timeout=600.0))

    def verify_voice(self, key: str) -> VoiceCheck:
        """Lets a voice be tried: its files, a test sound, and whether it can be used here."""
        path = f"/models/{self.voice(key).id}/verify"
        return VoiceCheck.model_validate(self._json("POST", path, timeout=600.0))

    def convert_voice(self, key: str, form: str, target: Path) -> int:
        """Saves a voice's file as fp16, fp32 or safetensors; returns its size in bytes."""
        path = f"/models/{self.voice(key).id}/convert"
        with self.connection.stream("POST", path, json={"form": form}, timeout=900.0) as response:
            return save(response, target)

    def _send_model(self, path: str, fields: dict[str, str], **files: Path | None) -> Job:
        """A form of model files, each opened anew for every try."""
        with ExitStack() as opened:

            def parts() -> list[tuple[str, tuple[str, IO[bytes], str]]]:
                there = [(field, file) for field, file in files.items() if file is not None]
                return [
                    (field, (file.name, opened.enter_context(file.open("rb")), "application/octet-stream"))
                    for field, file in there
                ]

            given = {name: value for name, value in fields.items() if value}
            return Job.model_validate(self._json("POST", path, key=new_key(), data=given, files=parts, timeout=SENDING))

    def convert(
        self, recording: Path, voice: str, target: Path, *, told: Progress | None = None, **options: Any
    ) -> Conversion:
        """Says `recording` in `voice` (id, slug or name) and saves the sound at `target`, whole or not at all.

        Options: pitch_shift (semitones), index_rate 0-1, protect 0-0.5, rms_mix_rate 0-1, f0_method, format
        (wav, flac, mp3, ogg; default: the suffix of `target`), output_rate (Hz), seed, and the others of the API's
        form: filter_radius, fill_unvoiced, f0_file, speaker_id, split_silence, autotune…, proposed_pitch…, formant_….
        """
        given = {name: str(value) for name, value in options.items() if value is not None}
        given.setdefault("format", target.suffix.lstrip(".").lower() or "wav")
        with recording.open("rb") as stream:
            files = {"audio": (recording.name, counted(stream, told), media_type(recording))}
            timeout = httpx.Timeout(10.0, read=900.0, write=300.0)
            with self.connection.stream(
                "POST", "/convert", data={"voice": voice, **given}, files=files, timeout=timeout
            ) as response:
                return _saved(response, target)

    def synthesize(self, text: str, voice: str, target: Path, **options: Any) -> Conversion:
        """Has `voice` (id, slug or name) say `text` and saves the sound at `target`, whole or not at all.

        Options: language, speed 0.25-4, temperature 0.05-1.5, seed, format (wav, flac, mp3, ogg, opus, pcm; default:
        the suffix of `target`), stream, through (a voice that converts what is said), pitch_shift (semitones).
        """
        given = {name: value for name, value in options.items() if value is not None}
        given.setdefault("format", target.suffix.lstrip(".").lower() or "wav")
        timeout = httpx.Timeout(10.0, read=1800.0)
        body = {"text": text, "voice": voice, **given}
        with self.connection.stream("POST", "/synthesize", json=body, timeout=timeout) as response:
            return _saved(response, target)

    def imitate(
        self, text: str, reference: Path, target: Path, *, speaker: str, consent: str, language: str, **options: Any
    ) -> Conversion:
        """Has the voice of the recording `reference` (3-30 s) say `text` and saves the sound at `target`.

        `consent`: what `speaker` has agreed to; it is put on record. Options: those of `synthesize`.
        """
        given = {name: str(value) for name, value in options.items() if value is not None}
        given.setdefault("format", target.suffix.lstrip(".").lower() or "wav")
        fields = given | {"text": text, "speaker": speaker, "consent": consent, "language": language}
        with reference.open("rb") as stream:
            files = {"audio": (reference.name, stream, media_type(reference))}
            timeout = httpx.Timeout(10.0, read=1800.0, write=300.0)
            path = "/synthesize/reference"
            with self.connection.stream("POST", path, data=fields, files=files, timeout=timeout) as response:
                return _saved(response, target)

    def add_conversion_job(
        self,
        recordings: Sequence[Path],
        voice: str,
        *,
        told: Progress | None = None,
        **options: Any,
    ) -> Job:
        """Queues a conversion of `recordings`, sent in one request, in `voice` (id, slug or name).

        Options: those of `convert`, and sample_ids (separated by commas) or dataset_id, name, priority.
        """
        fields = {"voice": voice} | {name: str(value) for name, value in options.items() if value is not None}
        key = new_key()
        with ExitStack() as opened:

            def parts() -> list[tuple[str, tuple[str | None, Any, str]]]:
                streams = [opened.enter_context(path.open("rb")) for path in recordings]
                sent: list[tuple[str, tuple[str | None, Any, str]]] = [
                    ("files", (path.name, counted(stream, told), media_type(path)))
                    for path, stream in zip(recordings, streams, strict=True)
                ]
                return sent or [("_", (None, b"", "text/plain"))]  # so that it is a form of parts

            answer = self._json("POST", "/convert/jobs", key=key, data=fields, files=parts, timeout=SENDING)
        return Job.model_validate(answer)

    def add_speech_job(self, texts: bytes, media_type: str, **options: Any) -> Job:
        """Queues the texts of a file: `text/plain`, a line each, or `text/csv`, a table with the column `text`.

        Options: voice (for texts that name none), language, speed, temperature, seed, format, through, pitch_shift,
        name, priority.
        """
        given = {name: value for name, value in options.items() if value is not None}
        headers = {"Content-Type": media_type}
        answer = self._json(
            "POST", "/synthesize/jobs/file", key=new_key(), params=given, content=texts, headers=headers
        )
        return Job.model_validate(answer)

    def conversion_results(self, job: Job) -> list[FileResult]:
        """What became of each recording of a conversion job, or of each text of a speech job."""
        return [FileResult.model_validate(item) for item in self._json("GET", f"{job.path}/results")["files"]]

    def save_conversion(self, job: Job, result: FileResult, target: Path) -> int:
        """Saves one sound of such a job at `target`, whole or not at all; returns its size in bytes."""
        with self.connection.stream("GET", f"{job.path}/results/{result.number}", timeout=300.0) as response:
            return save(response, target)


def _saved(response: httpx.Response, target: Path) -> Conversion:
    """A sound at `target`, and what its headers say of it."""
    size, headers = save(response, target), response.headers
    return Conversion(
        media_type=headers.get("Content-Type", ""),
        voice_version=headers.get("X-Voice-Version"),
        voice_sha256=headers.get("X-Voice-Sha256"),
        duration_seconds=number(headers.get("X-Duration-Seconds")),
        real_time_factor=number(headers.get("X-Real-Time-Factor")),
        left_out=int(headers.get("X-Characters-Left-Out") or 0),
        size_bytes=size,
    )
