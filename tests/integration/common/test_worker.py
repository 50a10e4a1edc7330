"""A worker's whole life with real processes: killed, frozen, asked to go, poisoned, cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.common import manifests
from libs.common.bus import Bus
from libs.common.errors import Unavailable
from libs.common.events import Event, PrepareDataset, StepFinished, wrap
from libs.common.jobs import Lane, Step
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from tests.conftest import TOKEN, NatsServer

ROOT = Path(__file__).parents[3]


def command(job: str = "job_1", mode: str = "auto", attempt: int = 1) -> PrepareDataset:
    return PrepareDataset(
        job_id=job,
        step=Step.preprocess,
        attempt=attempt,
        experiment="anna",
        dataset="anna",
        inputs=(),
        f0_method=mode,
    )


class Processes:
    """Starts workers as real processes and reads what they traced."""

    def __init__(self, settings: CommonSettings, trace: Path) -> None:
        self._settings = settings
        self.trace = trace
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self, **environment: Any) -> subprocess.Popen[bytes]:
        s = self._settings
        variables = {
            "SERVICE_TOKEN": TOKEN,
            "DATA_ROOT": str(s.data_root),
            "NATS_URL": s.nats_url,
            "ACK_WAIT": "1.5",
            "HEARTBEAT": "0.3",
            "LEASE_TTL": "1.0",
            "CANCEL_POLL": "0.05",
            "POLL_INTERVAL": "0.05",
            "WORKER_TTL": "1.5",
            "RETRY_DELAYS": "0.25,0.5,1",
            "TRACE": str(self.trace),
            **{k: str(v) for k, v in environment.items()},
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.common.counting_worker"],
            cwd=ROOT,
            env={**os.environ, **variables},
        )
        self.all.append(process)
        return process

    def lines(self, word: str = "") -> list[str]:
        if not self.trace.exists():
            return []
        return [line for line in self.trace.read_text().splitlines() if word in line]

    async def wait_for(self, word: str, count: int = 1, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while len(self.lines(word)) < count:
            assert time.monotonic() < deadline, f"no {count} × {word!r} in {self.lines()}"
            await asyncio.sleep(0.02)


@pytest.fixture
def processes(settings: CommonSettings, tmp_path: Path) -> Iterator[Processes]:
    found = Processes(settings, tmp_path / "trace.txt")
    yield found
    for process in found.all:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(5)


class Events:
    """All events so far, by fact."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.ids: list[str] = []

    def of(self, fact: str) -> list[Any]:
        return [e for e in self.seen if e.fact == fact]

    async def wait_for(self, fact: str, count: int = 1, seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while len(self.of(fact)) < count:
            assert time.monotonic() < deadline, f"no {fact} among {[e.fact for e in self.seen]}"
            await asyncio.sleep(0.02)
        return self.of(fact)[-1]


@pytest.fixture
async def events(bus: Bus) -> AsyncIterator[Events]:
    seen = Events()

    async def read() -> None:
        async for delivery in bus.events("test"):
            event = delivery.envelope.open()
            assert isinstance(event, Event)
            seen.seen.append(event)
            seen.ids.append(delivery.envelope.id)
            await delivery.ack()

    reader = asyncio.create_task(read())
    yield seen
    reader.cancel()


def result_of(paths: Paths, event: StepFinished) -> list[str]:
    manifest = manifests.load(paths, event.manifest)
    assert manifests.verify(paths, manifest) == []
    return sorted(Path(f).name for f in manifest.files)


EVERYTHING = [f"{n:03d}" for n in range(20)]


async def test_a_command_becomes_a_committed_result_and_one_event(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    processes.start(STEP_SECONDS=0)
    await bus.send_command(command(), Lane.normal)

    event = await events.wait_for("prepared")

    assert result_of(paths, event) == EVERYTHING
    assert [e.fact for e in events.seen] == ["step_started", "prepared"]


async def test_a_worker_killed_six_times_loses_little_and_the_job_completes(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    await bus.send_command(command(), Lane.normal)
    for kill in range(6):
        victim = processes.start()
        await processes.wait_for("step", count=2 * (kill + 1))
        victim.kill()
        victim.wait(5)
    processes.start()

    event = await events.wait_for("prepared", seconds=40)

    assert result_of(paths, event) == EVERYTHING
    assert event.token == 7
    repeated = len(processes.lines("step")) - 20
    assert repeated <= 6, "each kill may cost the step in hand, not the whole count"


async def test_a_frozen_worker_that_wakes_changes_not_a_byte(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    frozen = processes.start(STEP_SECONDS=0.15)
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=3)
    frozen.send_signal(signal.SIGSTOP)

    processes.start(STEP_SECONDS=0.01)
    event = await events.wait_for("prepared")
    before = {f: (paths.data_root / f).read_bytes() for f in manifests.load(paths, event.manifest).files}
    frozen.send_signal(signal.SIGCONT)
    await asyncio.sleep(2.0)

    after = {f: (paths.data_root / f).read_bytes() for f in before}
    assert event.token == 2
    assert before == after
    assert len(events.of("prepared")) == 1
    assert manifests.verify(paths, manifests.load(paths, event.manifest)) == []
    assert frozen.poll() is None, "the frozen worker lives on and takes other work"


async def test_sigterm_gives_the_work_to_another_worker_at_once(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    first = processes.start()
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=3)
    processes.start()
    await processes.wait_for("ready", count=2)

    asked = time.monotonic()
    first.send_signal(signal.SIGTERM)
    await processes.wait_for("begin 2")

    assert time.monotonic() - asked < 1.0, "no lease had to run out"
    assert first.wait(5) == 0
    event = await events.wait_for("prepared")
    assert result_of(paths, event) == EVERYTHING
    assert len(processes.lines("step")) == 20, "nothing was done twice"


async def test_a_killed_broker_in_the_middle_of_the_work_costs_nothing(
    bus: Bus, processes: Processes, events: Events, paths: Paths, nats_server: NatsServer
) -> None:
    processes.start()
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=5)

    nats_server.restart()

    event = await events.wait_for("prepared")
    assert result_of(paths, event) == EVERYTHING
    assert len(processes.lines("step")) == 20


async def test_a_command_that_kills_its_worker_twice_is_a_dead_letter(
    bus: Bus, processes: Processes, events: Events, settings: CommonSettings
) -> None:
    await bus.send_command(command(mode="die"), Lane.normal)
    for _ in range(2):
        assert processes.start().wait(20) == -signal.SIGKILL
    survivor = processes.start()

    failed = await events.wait_for("step_failed")

    assert failed.problem["code"] == "poison_command"
    assert survivor.poll() is None
    assert len(processes.lines("begin")) == 2
    assert await bus._js.stream_info("DEADLETTERS") is not None
    assert (await bus._js.stream_info("DEADLETTERS")).state.messages == 1
    assert (await bus._js.stream_info("COMMANDS")).state.messages == 0


async def test_a_command_that_nobody_can_read_is_a_dead_letter(bus: Bus, processes: Processes) -> None:
    processes.start()
    await bus._js.publish("cmd.preprocessor.prepare.normal", b"not a cloud event")

    for _ in range(200):
        if (await bus._js.stream_info("DEADLETTERS")).state.messages:
            break
        await asyncio.sleep(0.05)

    assert (await bus._js.stream_info("DEADLETTERS")).state.messages == 1
    await asyncio.sleep(0.2)
    assert (await bus._js.stream_info("COMMANDS")).state.messages == 0


async def test_the_job_of_a_command_that_nobody_can_read_is_told(
    bus: Bus, processes: Processes, events: Events
) -> None:
    processes.start()
    of_a_later_version = command().model_dump(mode="json") | {"inputs": "by reference"}
    envelope = wrap(command(), id="job_1.preprocess.1", subject="cmd.preprocessor.prepare.normal", service="gateway")
    raw = envelope.model_copy(update={"data": of_a_later_version}).model_dump_json().encode()

    await bus._js.publish("cmd.preprocessor.prepare.normal", raw)

    failed = await events.wait_for("step_failed", seconds=10)
    assert (failed.job_id, failed.step, failed.attempt, failed.token) == ("job_1", Step.preprocess, 1, 0)
    assert "cannot be read" in failed.problem["detail"]
    assert (await bus._js.stream_info("DEADLETTERS")).state.messages == 1


async def test_a_committed_result_that_was_lost_is_told_and_not_waited_for(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    processes.start(STEP_SECONDS=0)
    await bus.send_command(command(), Lane.normal)
    done = await events.wait_for("prepared")
    paths.in_data(done.manifest.path).unlink()

    again = command()
    await bus._publish(again, again.subject(Lane.normal), "the same command, long after")

    failed = await events.wait_for("step_failed", seconds=10)
    assert (failed.attempt, failed.problem["code"], failed.problem["step"]) == (1, "step_result_lost", "preprocess")
    assert failed.problem["suggested_actions"]
    await asyncio.sleep(0.3)
    assert (await bus._js.stream_info("COMMANDS")).state.messages == 0


@pytest.mark.parametrize("damage", ["a file is gone", "a file has other content", "the manifest is gone"])
async def test_a_retry_does_a_committed_step_again_when_its_result_is_not_whole(
    bus: Bus, processes: Processes, events: Events, paths: Paths, damage: str
) -> None:
    processes.start(STEP_SECONDS=0)
    await bus.send_command(command(), Lane.normal)
    first = await events.wait_for("prepared")
    folder = paths.in_data(manifests.load(paths, first.manifest).folder)
    if damage == "a file is gone":
        (folder / "003").unlink()
    elif damage == "a file has other content":
        (folder / "003").write_text("8")
    else:
        paths.in_data(first.manifest.path).unlink()
    counted = len(processes.lines("step"))

    await bus.send_command(command(attempt=2), Lane.normal)
    second = await events.wait_for("prepared", count=2)

    assert result_of(paths, second) == EVERYTHING
    assert (second.attempt, second.token, second.manifest.token) == (2, 2, 2)
    assert second.place > first.place
    assert len(processes.lines("step")) - counted == (20 if damage == "the manifest is gone" else 1)
    assert processes.lines("finish")[-1].endswith("finish 2")


async def test_a_retry_of_a_committed_step_that_is_whole_only_tells_it_again(
    bus: Bus, processes: Processes, events: Events
) -> None:
    processes.start(STEP_SECONDS=0)
    await bus.send_command(command(), Lane.normal)
    first = await events.wait_for("prepared")

    await bus.send_command(command(attempt=2), Lane.normal)
    second = await events.wait_for("prepared", count=2)

    assert second.manifest == first.manifest
    assert second.place == first.place
    assert len(processes.lines("begin")) == 1


async def test_a_transient_failure_is_tried_three_times_more_and_then_final(
    bus: Bus, processes: Processes, events: Events
) -> None:
    processes.start()
    await bus.send_command(command(mode="full"), Lane.normal)

    failed = await events.wait_for("step_failed")

    assert [e.delay_seconds for e in events.of("step_delayed")] == [0.25, 0.5, 1.0]
    assert failed.problem["code"] == "storage_full"
    assert failed.failures == 4
    assert len(processes.lines("begin")) == 4


async def test_a_failure_that_passes_costs_one_retry(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    processes.start(STEP_SECONDS=0)
    await bus.send_command(command(mode="full-once"), Lane.normal)

    event = await events.wait_for("prepared")

    assert result_of(paths, event) == EVERYTHING
    assert len(events.of("step_delayed")) == 1


@pytest.mark.parametrize(("mode", "detail"), [("refuse", "the test refuses"), ("crash", "RuntimeError")])
async def test_a_final_failure_is_told_once_and_not_retried(
    bus: Bus, processes: Processes, events: Events, mode: str, detail: str
) -> None:
    processes.start()
    await bus.send_command(command(mode=mode), Lane.normal)

    failed = await events.wait_for("step_failed")
    await asyncio.sleep(0.5)

    assert detail in failed.problem["detail"]
    assert len(events.of("step_failed")) == 1
    assert len(processes.lines("begin")) == 1


async def test_a_result_that_no_message_holds_fails_the_step_before_it_is_committed(
    bus: Bus, processes: Processes, events: Events
) -> None:
    processes.start(STEPS=2)
    await bus.send_command(command(mode="huge"), Lane.normal)
    failed = await events.wait_for("step_failed")
    await bus.send_command(command(job="job_2"), Lane.normal)
    await events.wait_for("prepared")

    assert failed.problem["code"] == "message_too_large"
    assert processes.lines("finish 1")[1:] == []  # job_2's alone


async def test_a_failure_with_an_unspeakable_reason_is_told_all_the_same(
    bus: Bus, processes: Processes, events: Events
) -> None:
    processes.start(STEPS=2)
    await bus.send_command(command(mode="odd"), Lane.normal)

    failed = await events.wait_for("step_failed")

    assert failed.problem["detail"].startswith("half a letter \ufffd, NUL \ufffd and very long")
    assert len(failed.problem["detail"]) == 4000
    assert "files" not in failed.problem


async def test_running_work_is_cancelled(bus: Bus, processes: Processes, events: Events) -> None:
    processes.start()
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=2)

    await bus.bucket("control").put("cancel.job_1", b"{}")

    await events.wait_for("step_cancelled", seconds=5)
    assert len(processes.lines("step")) < 20
    assert events.of("prepared") == []


async def test_a_cancel_reaches_a_worker_that_was_down(bus: Bus, processes: Processes, events: Events) -> None:
    await bus.send_command(command(), Lane.normal)
    await bus.bucket("control").put("cancel.job_1", b"{}")

    processes.start()

    await events.wait_for("step_cancelled")
    assert processes.lines("begin") == []


async def test_a_duplicate_command_finds_the_result_and_repeats_only_the_word(
    bus: Bus, processes: Processes, events: Events
) -> None:
    processes.start(STEP_SECONDS=0)
    await bus.send_command(command(), Lane.normal)
    await events.wait_for("prepared")

    # The same step with another message id passes the broker's duplicate window.
    await bus.send_command(command(attempt=2), Lane.normal)

    await events.wait_for("prepared", count=2)
    assert len(processes.lines("begin")) == 1
    assert len(processes.lines("step")) == 20
    assert len(set(events.ids)) == 3


async def test_a_commit_after_the_broker_lost_its_store_is_a_later_one(
    bus: Bus, processes: Processes, events: Events
) -> None:
    worker = processes.start(STEP_SECONDS=0, STEPS=40)
    await bus.send_command(command("job_1"), Lane.normal)
    await events.wait_for("prepared")
    worker.send_signal(signal.SIGTERM)
    await asyncio.to_thread(worker.wait, 10)

    await bus._js.delete_stream("KV_leases")
    await asyncio.sleep(1.1)
    bus._stores.clear()
    await bus.ensure()
    processes.start(STEP_SECONDS=0, STEPS=1)
    await bus.send_command(command("job_2"), Lane.normal)
    await events.wait_for("prepared", count=2)

    before, after = (int(line.split()[-1]) for line in processes.lines("place"))
    assert after > before


async def test_work_that_a_broker_without_its_store_is_asked_for_again_goes_on_with_a_higher_token(
    bus: Bus, processes: Processes, events: Events, nats_server: NatsServer, paths: Paths
) -> None:
    processes.start()
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=5)

    await asyncio.to_thread(nats_server.lose_store)
    async with asyncio.timeout(20):
        while True:
            try:
                await bus.send_command(command(), Lane.normal)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    event = await events.wait_for("prepared")

    assert event.token == 2
    assert result_of(paths, event) == EVERYTHING
    steps = [line.split()[-1] for line in processes.lines("step")]
    assert len(steps) <= 22, "what was counted is not counted again"


async def test_workers_are_listed_while_they_live(bus: Bus, processes: Processes) -> None:
    worker = processes.start()
    await processes.wait_for("ready")
    for _ in range(100):
        if await bus.bucket("workers").keys():
            break
        await asyncio.sleep(0.05)
    assert len(await bus.bucket("workers").keys()) == 1

    worker.kill()

    for _ in range(100):
        if not await bus.bucket("workers").keys():
            return
        await asyncio.sleep(0.1)
    pytest.fail("a dead worker stays listed")


async def test_higher_lanes_go_first(bus: Bus, processes: Processes, events: Events) -> None:
    for job, lane in (("job_low", Lane.low), ("job_normal", Lane.normal), ("job_high", Lane.high)):
        await bus.send_command(command(job), lane)

    processes.start(STEP_SECONDS=0)
    await events.wait_for("prepared", count=3)

    assert [e.job_id for e in events.of("prepared")] == ["job_high", "job_normal", "job_low"]
