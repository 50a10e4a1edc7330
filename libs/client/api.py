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
from typing import IO, Any, cast, get_args

from libs.client import feed
from libs.client.conversions import Conversions
from libs.client.errors import ApiProblem, JobEnded
from libs.client.http import new_key
from libs.client.models import (
    AccessKey,
    Dataset,
    FeedEvent,
    Job,
    Kind,
    LogLine,
    ModelFacts,
    Sample,
    Tokens,
    Upload,
    User,
    Voice,
    VoiceCheck,
    address,
)
from libs.client.transfers import SENDING, Progress, counted, media_type, save


class Client(Conversions):
    """One account's view of one platform. All methods raise ApiProblem, SignInNeeded or NotReachable."""

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
        self,
        files: Sequence[Path],
        dataset_id: str,
        *,
        transcript: str | None = None,
        speaker_id: int | None = None,
        told: Progress | None = None,
    ) -> Upload:
        """Sends `files` in one request. Files that are not accepted are in `rejected`; the others are kept.

        `speaker_id`: whose voice they are, 0 to 108, where a dataset has several speakers. Recordings that were there
        already get it too; left out, they keep theirs, and new ones have 0. `told` hears of every block of bytes that
        was sent.
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
            fields |= {"speaker_id": str(speaker_id)} if speaker_id is not None else {}
            answer = self._json("POST", "/samples", key=key, data=fields, files=parts, timeout=SENDING)
        return Upload.model_validate(answer)

    def change_sample(self, sample_id: str, *, transcript: str | None = None, speaker_id: int | None = None) -> Sample:
        """Says what is said in a recording, or whose voice of its dataset it is; what is None stays."""
        given = {"transcript": transcript, "speaker_id": speaker_id}
        body = {name: value for name, value in given.items() if value is not None}
        return Sample.model_validate(self._json("PATCH", f"/samples/{sample_id}", json=body))

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

    def read_transcripts(self, dataset: str) -> bytes:
        """The texts of a dataset (id or slug) as LJSpeech's `metadata.csv`, which `write_transcripts` takes."""
        return self.connection.request("GET", f"/datasets/{dataset}/metadata.csv").content

    def write_transcripts(self, dataset: str, metadata: bytes) -> dict[str, int]:
        """Gives recordings of a dataset (id or slug) their texts: the lines of a `metadata.csv` as LJSpeech has it.

        What a machine wrote counts as a person's afterwards. `changed`, `confirmed`: how many were;
        `without_transcript`, `by_machine`: how many of the dataset have none, or one that nobody has confirmed.
        """
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
