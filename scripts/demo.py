"""`make demo`: does the whole journey work here? Speech in, a voice trained, a recording converted, and measured.

Everything it makes lies under var/demo: its own broker, store, database, and converted.wav, report.json, report.png.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from libs.client.api import Client
from libs.client.cli import send_files
from libs.client.errors import ClientError
from libs.client.models import FeedEvent, Job
from libs.client.terminal import JobBar, out, seconds
from scripts import speech
from scripts.stack import PROJECT, Stack
from scripts.stack_command import Asked, listen_for_signals
from scripts.stack_members import StackError

ROOT = PROJECT / "var" / "demo"
PORTS = {"gateway": 8700, "ingest": 8701, "trainer": 8702, "preprocessor": 8703, "inference": 8704, "nats": 8722}


class Stages:
    """Wall time by stage, in the order in which they came."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = ""
        self._since = time.monotonic()
        self.began = self._since

    def enter(self, name: str) -> None:
        """The stage before ends here."""
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = round(self.seconds.get(self._name, 0.0) + now - self._since, 2)
        self._name, self._since = name, now

    @property
    def total(self) -> float:
        return round(time.monotonic() - self.began, 2)


class Watcher:
    """Hears the job's feed: shows it, times its phases and keeps the loss curve."""

    def __init__(self, job: Job, stages: Stages, bar: JobBar) -> None:
        self._stages = stages
        self._bar = bar
        self._phase = ""
        self.losses: list[tuple[int, float]] = []

    def told(self, event: FeedEvent) -> None:
        data: dict[str, Any] = event.data.get("job", event.data)
        phase = data.get("step") or data.get("phase")
        if phase and phase != self._phase:
            self._phase = phase
            self._stages.enter(phase)
        if event.kind == "progress" and phase == "train" and data.get("loss") is not None and data.get("done"):
            self.losses.append((int(data["done"]), float(data["loss"])))
        self._bar.told(event)


def train(client: Client, dataset_id: str, minutes: float, stages: Stages) -> tuple[Job, list[tuple[int, float]]]:
    """A `lite` voice from the dataset, with a visible progress; its job, and step and loss along the way."""
    job = client.add_training_job(dataset_id, preset="lite", train_seconds=60 * minutes)
    out.print(f"training job {job.id}: preset {job.preset}, about {minutes:g} min of training", markup=False)
    with JobBar(job) as bar:
        watcher = Watcher(job, stages, bar)
        done = client.wait(job, told=watcher.told)
    return done, watcher.losses


def journey(stack: Stack, spoken: speech.Speech, minutes: float, stages: Stages) -> dict[str, Any]:
    """From recordings to a converted recording, all through the gateway; what the report needs to know."""
    with Client(stack.url("gateway")) as client:
        client.login(stack.secrets["ADMIN_EMAIL"], stack.secrets["ADMIN_PASSWORD"])
        stages.enter("upload")
        # The same recordings are the same dataset: a second run finds it, and what was prepared from it.
        dataset = client.ensure_dataset(f"{spoken.name} {spoken.fingerprint}")
        if dataset.item_count >= len(spoken.recordings):
            out.print(f"dataset {dataset.slug} is there already: {dataset.item_count} recordings", markup=False)
        else:
            kept, rejected = send_files(client, list(spoken.recordings), dataset.id, 4)
            for item in rejected:
                out.print(f"  not accepted: {item.name}: {item.problem.sentences()}", markup=False)
            dataset = client.find_dataset(dataset.id) or dataset
            out.print(f"{kept} recordings uploaded, {seconds(dataset.duration_seconds)} of speech", markup=False)
        stages.enter("queue")
        job, losses = train(client, dataset.id, minutes, stages)
        stages.enter("convert")
        from scripts.report import best_shift  # torch takes seconds to import: only where it is needed

        shift = best_shift(spoken.source, spoken.recordings)
        assert job.voice is not None
        made = client.convert(
            spoken.source, job.voice, stack.root / "converted.wav", pitch_shift=shift, index_rate=0.5, format="wav"
        )
    return {
        "job": job,
        "losses": losses,
        "shift": shift,
        "voice": job.voice,
        "dataset": dataset.slug,
        "speech_seconds": dataset.duration_seconds,
        "real_time_factor": made.real_time_factor,
        "converted_seconds": made.duration_seconds,
    }


def tell(rows: dict[str, dict[str, Any]], columns: dict[str, str], stages: Stages, total: float) -> None:
    """The summary that people read."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for label in columns.values():
        table.add_column(label, justify="right")
    for name, row in rows.items():
        values = [row.get(column) for column in columns]
        table.add_row(name, *("–" if value is None else f"{value:.2f}" for value in values))
    out.print()
    out.print(table)
    times = " · ".join(f"{name} {seconds(spent)}" for name, spent in stages.seconds.items() if spent >= 0.5)
    out.print(f"\ntimes: {times} · in all {seconds(total)}", markup=False)


def run(root: Path, voice: Path | None, minutes: float, fresh: bool, keep: bool) -> int:
    """The demo; 0 when everything was made."""
    stages = Stages()
    if fresh and root.exists():
        shutil.rmtree(root)
    stages.enter("speech")
    spoken = speech.choose(root, voice)
    out.print(f"speech: {spoken.described}", markup=False)
    stages.enter("start")
    # One training at a time gets all cores.
    stack = Stack(
        root, ports=PORTS if root == ROOT else "free", environment={"TRAINING_CONCURRENCY": "1"}, say=_quietly
    )
    try:
        stack.start()
        out.print(f"five services and a broker run; API docs: {stack.url('gateway')}/docs", markup=False)
        facts = journey(stack, spoken, minutes, stages)
        stages.enter("report")
        report(stack, spoken, facts, minutes, stages)
        out.print(f"\nlisten:  {root / 'converted.wav'}", markup=False)
        out.print(f"source:  {spoken.source}", markup=False)
        out.print(f"report:  {root / 'report.json'} and {root / 'report.png'}", markup=False)
        out.print(f"API:     {stack.url('gateway')}/docs", markup=False)
        if keep:
            out.print(f"login:   {stack.secrets['ADMIN_EMAIL']}, ADMIN_PASSWORD in {stack.secrets_file}", markup=False)
            out.print("The platform goes on running: stop it with Ctrl-C.")
            while not stack.ended():
                time.sleep(0.5)
            out.print(f"ended by itself: {stack.ended()}", markup=False)
            return 1
        return 0
    finally:
        stack.stop()
        out.print("All processes are stopped. `make demo` again uses the same data; `make demo FRESH=1` starts anew.")


def report(stack: Stack, spoken: speech.Speech, facts: dict[str, Any], minutes: float, stages: Stages) -> None:
    """Measures, writes report.json and report.png, prints the table."""
    from scripts.report import COLUMNS, draw, measured, write_json

    job: Job = facts.pop("job")
    losses = facts.pop("losses")
    root = stack.root
    weights = root / "models" / facts["voice"] / f"{facts['voice']}.pth"
    found = measured(spoken.source, root / "converted.wav", spoken.control, spoken.recordings, weights, facts["shift"])
    draw(root / "report.png", found, losses, f"{spoken.described} · {minutes:g} min of training")
    stages.enter("")
    write_json(
        root / "report.json",
        {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "speech": spoken.described,
            "minutes_of_training": minutes,
            "cores": os.cpu_count(),
            **facts,
            "job": job.model_dump(mode="json"),
            "rows": found.rows,
            "losses": losses,
            "seconds_by_stage": stages.seconds,
            "seconds_in_all": stages.total,
        },
    )
    tell(found.rows, COLUMNS, stages, stages.total)


def _quietly(text: str) -> None:
    if "busy" in text:
        out.print(text, markup=False)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--voice", type=Path, help="a folder with recordings of one voice (make demo VOICE=folder)")
    parser.add_argument("--root", type=Path, default=ROOT, help="where everything is kept (default: var/demo)")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("DEMO_MINUTES") or 5))
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs made (make demo FRESH=1)")
    parser.add_argument(
        "--keep",
        action=argparse.BooleanOptionalAction,
        default=sys.stdin.isatty(),
        help="leave the platform running at the end; the default on a terminal",
    )
    options = parser.parse_args(arguments)
    listen_for_signals()
    try:
        status = run(options.root.absolute(), options.voice, options.minutes, options.fresh, options.keep)
    except Asked as asked:
        out.print(f"{asked}: stopped", markup=False)
        status = 130 if str(asked) == "SIGINT" else 143
    except (StackError, ClientError, ValueError, FileNotFoundError) as error:
        print(f"demo: {error}", file=sys.stderr)
        status = 1
    raise SystemExit(status)


if __name__ == "__main__":
    main()
