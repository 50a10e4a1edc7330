"""A worker's real processes killed, frozen, asked to go, poisoned, and left by their broker."""

from __future__ import annotations

import asyncio
import signal

from libs.common import manifests
from libs.common.bus import Bus
from libs.common.errors import Unavailable
from libs.common.jobs import Lane
from libs.common.leases import LeaseRecord
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from tests.conftest import NatsServer
from tests.hearing import Events
from tests.integration.common.worker_processes import (
    EVERYTHING,
    LEASES_RUN_OUT,
    NOTHING_RUNS_OUT,
    Processes,
    command,
    result_of,
)
from tests.waiting import PATIENCE, until


async def test_a_worker_killed_six_times_loses_little_and_the_job_completes(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    await bus.send_command(command(), Lane.normal)

    async def so_far() -> tuple[int, int]:
        """The token of the step's lease, and the last number that was counted under it."""
        (entry,) = (await bus.bucket("leases").entries()).values()
        record = LeaseRecord.model_validate_json(entry.value)
        return record.token, int(record.mark or -1)

    counted = -1
    for kill in range(6):
        victim = processes.start(**LEASES_RUN_OUT, HOLD_AT=2 * kill + 4)
        await processes.wait_for(f"begin {kill + 1}")

        async def goes_on(token: int = kill + 1, before: int = counted) -> int | None:
            now, mark = await so_far()
            return mark if now == token and mark > before else None

        counted = await until(goes_on)  # deaths before anybody is told of progress are poison
        victim.kill()
        victim.wait(PATIENCE)
    processes.start(**LEASES_RUN_OUT)

    event = await events.wait_for("prepared")

    assert result_of(paths, event) == EVERYTHING
    assert event.token == 7
    repeated = len(processes.lines("step")) - 20
    assert repeated <= 6, "each kill may cost the step in hand, not the whole count"


async def test_a_frozen_worker_that_wakes_changes_not_a_byte(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    frozen = processes.start(**LEASES_RUN_OUT, HOLD_AT=10)
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=3)
    frozen.send_signal(signal.SIGSTOP)

    processes.start(**LEASES_RUN_OUT, STEP_SECONDS=0.01)
    event = await events.wait_for("prepared")
    before = {f: (paths.data_root / f).read_bytes() for f in manifests.load(paths, event.manifest).files}
    frozen.send_signal(signal.SIGCONT)
    await until(lambda: "worker.lease_lost" in processes.said)

    after = {f: (paths.data_root / f).read_bytes() for f in before}
    assert event.token == 2
    assert before == after
    assert len(events.of("prepared")) == 1
    assert manifests.verify(paths, manifests.load(paths, event.manifest)) == []
    assert frozen.poll() is None, "the frozen worker lives on and takes other work"


async def test_sigterm_gives_the_work_to_another_worker_at_once(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    first = processes.start(**NOTHING_RUNS_OUT, HOLD_AT=5)
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=3)
    processes.start(**NOTHING_RUNS_OUT)
    await processes.wait_for("ready", count=2)

    first.send_signal(signal.SIGTERM)
    await processes.wait_for("begin 2")

    assert await asyncio.to_thread(first.wait, PATIENCE) == 0
    event = await events.wait_for("prepared")
    assert result_of(paths, event) == EVERYTHING
    assert len(processes.lines("step")) == 20, "nothing was done twice"


async def test_a_killed_broker_in_the_middle_of_the_work_costs_nothing(
    bus: Bus, processes: Processes, events: Events, paths: Paths, nats_server: NatsServer
) -> None:
    processes.start(**LEASES_RUN_OUT, HOLD_AT=10)
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=5)

    nats_server.restart()
    processes.go_on()

    event = await events.wait_for("prepared")
    assert result_of(paths, event) == EVERYTHING
    assert len(processes.lines("step")) == 20


async def test_a_command_that_kills_its_worker_twice_is_a_dead_letter(
    bus: Bus, processes: Processes, events: Events, settings: CommonSettings
) -> None:
    await bus.send_command(command(mode="die"), Lane.normal)
    for _ in range(2):
        assert processes.start(**LEASES_RUN_OUT).wait(PATIENCE) == -signal.SIGKILL
    survivor = processes.start(**LEASES_RUN_OUT)

    failed = await events.wait_for("step_failed")

    assert failed.problem["code"] == "poison_command"
    assert survivor.poll() is None
    assert len(processes.lines("begin")) == 2
    assert await bus._js.stream_info("DEADLETTERS") is not None
    assert (await bus._js.stream_info("DEADLETTERS")).state.messages == 1

    async def is_ended() -> bool:
        return (await bus._js.stream_info("COMMANDS")).state.messages == 0

    await until(is_ended)


async def test_a_commit_after_the_broker_lost_its_store_is_a_later_one(
    bus: Bus, processes: Processes, events: Events
) -> None:
    worker = processes.start(STEP_SECONDS=0, STEPS=40)
    await bus.send_command(command("job_1"), Lane.normal)
    await events.wait_for("prepared")
    worker.send_signal(signal.SIGTERM)
    await asyncio.to_thread(worker.wait, PATIENCE)

    await bus._js.delete_stream("KV_leases")
    await asyncio.sleep(1.1)  # places follow the clock's seconds
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
    processes.start(**LEASES_RUN_OUT, HOLD_AT=10)
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=5)

    await asyncio.to_thread(nats_server.lose_store)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await bus.send_command(command(), Lane.normal)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    processes.go_on()
    event = await events.wait_for("prepared")

    assert event.token == 2
    assert result_of(paths, event) == EVERYTHING
    steps = [line.split()[-1] for line in processes.lines("step")]
    assert len(steps) <= 22, "what was counted is not counted again"


async def test_workers_are_listed_while_they_live(bus: Bus, processes: Processes) -> None:
    worker = processes.start()
    await processes.wait_for("ready")

    async def listed() -> list[str]:
        return list(await bus.bucket("workers").entries())

    async def is_nobody_listed() -> bool:
        return not await listed()

    assert len(await until(listed)) == 1

    worker.kill()

    await until(is_nobody_listed)
