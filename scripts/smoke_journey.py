"""What does a person do with a stack of containers? Upload, train, convert, and what the customer's document says."""

from __future__ import annotations

import wave
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.client.api import Client
from libs.client.errors import ClientError
from libs.client.models import Job
from scripts import customer_commands, speech
from scripts.containers import Containers, wait_for
from scripts.secret_file import read_secrets

Say = Callable[[str], None]
STEPS = 300
"""Of the training in whose middle every container is restarted; about a minute on two cores."""


class SmokeError(Exception):
    """Something did not work; the text says what was expected and what came."""


def must(what: bool, say: str) -> None:
    if not what:
        raise SmokeError(say)


@dataclass(frozen=True)
class Sounds:
    """Speech for the journey: recordings of one voice, a recording of another one to convert, and a long one."""

    recordings: tuple[Path, ...]
    source: Path
    folder: Path


def make_sounds(folder: Path) -> Sounds:
    """Speech by espeak-ng: eight recordings, one to convert, and `sample.wav` of about 40 s for the commands."""
    recordings, source = speech.synthetic(folder / "speech")
    speech.speak(" ".join(speech.sentences(3, 12)), speech.TARGET_VOICE, folder / "sample.wav")
    return Sounds(tuple(recordings[:8]), source, folder)


def signed_in(stack: Containers, url: str = "") -> Client:
    """A client of the stack's first account."""
    secrets = read_secrets(stack.env_file)
    client = Client(url or f"http://127.0.0.1:{stack.port}")
    client.login(secrets["ADMIN_EMAIL"], secrets["ADMIN_PASSWORD"])
    return client


def completed(client: Client, job: Job, seconds: float = 900) -> Job:
    """The job once it is over, looked at from outside, so that a gateway may restart meanwhile."""
    seen = [job]

    def over() -> bool:
        try:
            seen[0] = client.job(job.id)
        except ClientError:
            return False
        return seen[0].is_over

    wait_for(over, seconds, f"the job {job.kind} is not over: {seen[0].status}, {seen[0].phase}")
    must(seen[0].status == "completed", f"the job {job.kind} is {seen[0].status}: {seen[0].error}")
    return seen[0]


def converted(client: Client, voice: str, sounds: Sounds, version: str, say: Say) -> None:
    """Converts the source and looks at the sound that came."""
    target = sounds.folder / "converted.wav"
    made = client.convert(sounds.source, voice, target)
    must(made.voice_version == version, f"converted with version {made.voice_version}, trained was {version}")
    with wave.open(str(target)) as sound, wave.open(str(sounds.source)) as source:
        seconds = sound.getnframes() / sound.getframerate()
        expected = source.getnframes() / source.getframerate()
        samples = array("h", sound.readframes(sound.getnframes()))
    must(abs(seconds - expected) < 0.2, f"{seconds:.1f} s came of {expected:.1f} s")
    must(max(map(abs, samples), default=0) > 1000, "next to silence came")
    say(f"{expected:.1f} s of speech converted, at {made.real_time_factor or 0:.2f} of its time")


def upload_and_train(client: Client, sounds: Sounds, name: str, steps: int, say: Say) -> Job:
    """A dataset of the recordings, and a `lite` training that has begun to make steps or is over."""
    dataset = client.ensure_dataset(name)
    sent = client.upload(list(sounds.recordings), dataset.id)
    must(not sent.rejected, f"recordings were rejected: {sent.rejected}")
    say(f"{len(sounds.recordings)} recordings uploaded")
    return client.add_training_job(dataset.id, name=name, preset="lite", total_steps=steps)


def has_begun(job: Job) -> bool:
    """Whether a training makes steps; raises SmokeError when it is over before."""
    must(not job.is_over, f"the job is {job.status} before its first step: {job.error}")
    return job.current_step > 0


def journey(stack: Containers, sounds: Sounds, say: Say, *, restarted: Sequence[str] = ()) -> None:
    """Upload, train, convert; every container of `restarted` is restarted once while the training is at work."""
    with signed_in(stack) as client:
        job = upload_and_train(client, sounds, "Anna", STEPS if restarted else 20, say)
        if restarted:
            wait_for(lambda: has_begun(client.job(job.id)), 300, "the training makes no step")
        for service in restarted:
            before = client.job(job.id)
            stack.compose("restart", service)
            stack.wait_healthy([service])
            say(f"{service} restarted while the job was {before.status}, step {before.current_step} of {STEPS}")
        job = completed(client, job)
        say(f"voice trained: {job.current_step or job.total_steps} steps, attempt {job.attempt}")
        converted(client, "Anna", sounds, job.id, say)


def two_trainers(stack: Containers, sounds: Sounds, say: Say) -> None:
    """Scales the trainer to two, and trains two voices at the same time."""
    stack.compose("up", "--detach", "--no-build", "--scale", "trainer=2", "--no-recreate", "trainer")
    wait_for(lambda: len(stack.containers("trainer")) == 2, 120, "there are not two trainers")
    stack.wait_healthy(["trainer"])
    with signed_in(stack) as client:
        jobs = [upload_and_train(client, sounds, name, 60, say) for name in ("Ben", "Cleo")]
        for job in jobs:
            completed(client, job)
        say(f"two trainers, two voices: {', '.join(sorted(voice.name for voice in client.voices()))}")


def customers_commands(stack: Containers, sounds: Sounds, say: Say) -> None:
    """The eight curl commands of the customer's document, each as it is written but for ports and a token."""
    ports = {"preprocessor": 8003, "trainer": 8002}
    urls = {service: stack.published(service, port) for service, port in ports.items()}
    with signed_in(stack) as client:
        job_id = ""
        for name in customer_commands.COMMANDS:
            token = None if name.endswith("health") else client.connection.token
            status, body = customer_commands.run(name, sounds.folder, urls, token, job_id)
            must(status in (200, 201, 202), f"curl, {name}: {status} {body}")
            if "job_id" in body and name.startswith("start"):
                job_id = body["job_id"]
                kind = "preprocess" if name == "start preprocessing" else "training"
                completed(client, Job(id=job_id, kind=kind, status="queued"))
            say(f"curl, {name}: {status}")
        must("test_model" in {voice.slug for voice in client.voices()}, "the document's voice is not there")
