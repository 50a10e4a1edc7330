"""What can voices be asked for? Recordings and texts said by them, one at once or many as a job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from libs.client.http import new_key
from libs.client.models import Conversion, FileResult, Job
from libs.client.session import Session
from libs.client.transfers import SENDING, Progress, counted, media_type, number, save


class Conversions(Session):
    """The part of the client that makes sounds."""

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
