"""The `voicewright` command: what can a person do from a terminal?

Exit codes: 0 done · 1 the platform refused (the reason is printed) · 2 wrong use · 3 sign in, or not allowed ·
4 no platform at the address · 5 the job failed · 6 the job was cancelled · 7 some files were not accepted · 130 Ctrl-C.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from libs.client import cli_models, credentials
from libs.client.api import Client
from libs.client.cli_conversions import live
from libs.client.cli_jobs import jobs_app, preprocess, train
from libs.client.cli_keys import keys_app
from libs.client.cli_recordings import recordings, transcribe
from libs.client.cli_speech import say
from libs.client.cli_voices import convert, voices_app
from libs.client.errors import ApiProblem, ClientError, UploadBroken
from libs.client.models import Rejected, Sample, Upload
from libs.client.sounds import SOUND, sound_files
from libs.client.terminal import Exit, byte_bar, connected, err, fail, out, seconds, speaks, table, when

EXIT_CODES = "".join((__doc__ or "").partition("Exit codes")[1:])

app = typer.Typer(
    name="voicewright",
    help="Voice models from recordings of voices that you have the right to use.\n\n" + EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
users_app = typer.Typer(help="Accounts; for administrators.", no_args_is_help=True)
app.add_typer(users_app, name="users")
app.add_typer(keys_app, name="keys")
app.add_typer(jobs_app, name="jobs")
app.add_typer(voices_app, name="voices")
assert cli_models  # its commands are among those of `voices`
app.command()(train)
app.command()(preprocess)
app.command()(recordings)
app.command()(transcribe)
app.command()(convert)
app.command()(say)
app.command()(live)


@app.command()
@speaks
def login(
    email: Annotated[str, typer.Option(prompt=True, envvar="VOICEWRIGHT_EMAIL")],
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, envvar="VOICEWRIGHT_PASSWORD")],
    url: Annotated[str | None, typer.Option(help="Address of the gateway, e.g. https://voices.example.com")] = None,
) -> None:
    """Sign in; later commands speak for this account."""
    address = credentials.load(url).url
    with Client(address) as client:
        tokens = client.login(email, password)
        me = client.me()
    path = credentials.save(
        credentials.Credentials(
            url=address, email=email, access_token=tokens.access_token, refresh_token=tokens.refresh_token
        )
    )
    out.print(f"Signed in at {address} as {me.email} ({me.role}). The token is kept in {path}.", markup=False)


@app.command()
@speaks
def logout() -> None:
    """Sign out, here and on the platform."""
    try:
        with connected() as client:
            client.logout()
    except ApiProblem as problem:
        if problem.status != 401:
            raise
    finally:
        credentials.forget()
    out.print("Signed out.")


@app.command()
@speaks
def whoami() -> None:
    """Which account the commands speak for, and where."""
    with connected() as client:
        me = client.me()
        out.print(f"{me.email} ({me.role}) at {client.connection.url}", markup=False)


@users_app.command("add")
@speaks
def add_user(
    email: str,
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)],
    name: Annotated[str, typer.Option()] = "",
    role: Annotated[str, typer.Option(help="viewer, creator or admin")] = "creator",
) -> None:
    """Make an account."""
    with connected() as client:
        user = client.add_user(email, password, name=name, role=role)
    out.print(f"{user.email} is a {user.role} now ({user.id}).", markup=False)


@users_app.command("list")
@speaks
def list_users() -> None:
    """All accounts."""
    rows = table("id", "e-mail", "name", "role", "active", "since")
    with connected() as client:
        for user in client.users():
            rows.add_row(
                user.id, user.email, user.name, user.role, "yes" if user.is_active else "no", when(user.created_at)
            )
    out.print(rows)


def send_files(
    client: Client, files: list[Path], dataset_id: str, parallel: int, speaker_id: int | None = None
) -> tuple[int, list[Rejected]]:
    """Uploads `files`, `parallel` at a time, with a progress bar; returns how many were kept, and what was not.

    What the platform says of recordings that it kept, such as that they sound like a telephone, is printed. Raises
    UploadBroken at the first answer that is about more than its file, such as a full disk; what is under way ends.
    """
    rejected: list[Rejected] = []
    kept_samples: list[Sample] = []
    broken: ClientError | None = None
    total = sum(path.stat().st_size for path in files)
    with byte_bar() as bar, ThreadPoolExecutor(parallel) as pool:
        task = bar.add_task("upload", total=total, note="")

        def send(path: Path) -> Upload | ApiProblem:
            try:
                return client.upload(
                    [path], dataset_id, speaker_id=speaker_id, told=lambda count: bar.advance(task, count)
                )
            except ApiProblem as problem:
                if problem.status in (401, 403, 404, 507) or problem.status >= 500:
                    raise  # about the request, not about this file
                return problem

        sending = [pool.submit(send, path) for path in files]
        for number, (path, sent) in enumerate(zip(files, sending, strict=True), 1):
            try:
                answer = sent.result()
            except CancelledError:
                continue
            except ClientError as error:
                broken = broken or error
                pool.shutdown(wait=False, cancel_futures=True)
                continue
            if isinstance(answer, Upload):
                kept_samples += answer.samples
                rejected += answer.rejected
            else:
                rejected.append(Rejected(name=path.name, problem=answer.problem))
            bar.update(task, note=f"{number}/{len(files)} files, {len(rejected)} not accepted")
    for sample in kept_samples:
        for warning in sample.warnings:
            err.print(f"{sample.name}: {warning.message}", style="yellow", markup=False)
    if broken is not None:
        _show_rejected(rejected)
        raise UploadBroken(broken, len(kept_samples), len(files))
    return len(kept_samples), rejected


def _show_rejected(rejected: list[Rejected]) -> None:
    for item in rejected:
        err.print(f"{item.name}: {item.problem.sentences()}", style="yellow", markup=False)


@app.command()
@speaks
def upload(
    paths: Annotated[list[Path], typer.Argument(help="Sound files, or folders of them", exists=True)],
    dataset: Annotated[str, typer.Option(help="Name, slug or id; a new name makes a dataset")],
    speaker_id: Annotated[
        int | None,
        typer.Option(
            min=0, max=108, help="Whose voice they are, where a dataset has several speakers", show_default="0"
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Requests at a time")] = 4,
) -> None:
    """Upload recordings. The same one twice is one recording, and of the speaker that was named last."""
    files = sound_files(paths)
    if not files:
        fail(f"No sound file in {', '.join(map(str, paths))}: looked for {', '.join(sorted(SOUND))}.", Exit.partly)
    with connected() as client:
        target = client.ensure_dataset(dataset)
        kept, rejected = send_files(client, files, target.id, parallel, speaker_id)
        target = client.find_dataset(target.id) or target
    _show_rejected(rejected)
    out.print(
        f"{kept} of {len(files)} files are in dataset {target.slug}: "
        f"{target.item_count} recordings, {seconds(target.duration_seconds)}.",
        markup=False,
    )
    for share in target.speakers:
        out.print(f"Speaker {share.speaker_id}: {share.recordings} recordings, {seconds(share.seconds)}.", markup=False)
    if rejected:
        raise typer.Exit(int(Exit.partly))


def main() -> None:
    """Entry point of the `voicewright` command."""
    app()
