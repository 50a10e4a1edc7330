"""How many commands a worker takes: at a time, and altogether where one process is started for each piece of work."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import timedelta

from libs.common.bus import Bus
from libs.common.jobs import Lane
from libs.common.settings import CommonSettings
from scripts.processes import free_port
from tests.conftest import TOKEN
from tests.hearing import Events
from tests.integration.common.worker_processes import ROOT, Processes, command
from tests.waiting import PATIENCE, until


async def test_a_worker_has_as_many_commands_in_hand_as_it_has_slots_and_leaves_the_others_in_the_queue(
    bus: Bus, processes: Processes, events: Events
) -> None:
    for job in ("job_1", "job_2", "job_3"):
        await bus.send_command(command(job), Lane.normal)

    processes.start(SLOTS=2, STEP_SECONDS=0, HOLD_AT=3)
    await processes.wait_for("step 2", count=2)
    await asyncio.sleep(0.5)  # ten times what it waits for a command: a third would have begun
    in_hand = (await bus.queue_depths())["preprocessor-normal"]
    begun_by_then = len(processes.lines("begin"))
    processes.go_on()
    await events.wait_for("prepared", count=3)

    assert in_hand == {"pending": 1, "unacknowledged": 2}
    assert begun_by_then == 2
    assert len(processes.lines("begin")) == 3


async def test_a_worker_of_one_command_does_it_and_ends_well_and_leaves_the_next_to_others(
    bus: Bus, processes: Processes, events: Events
) -> None:
    for job in ("job_1", "job_2"):
        await bus.send_command(command(job), Lane.normal)

    first = processes.start(STEP_SECONDS=0, WORKER_COMMANDS=1)
    done = await events.wait_for("prepared")
    await until(lambda: first.poll() is not None)

    assert (first.returncode, done.job_id) == (0, "job_1")
    assert len(processes.lines("begin")) == 1
    assert (await bus.queue_depths())["preprocessor-normal"] == {"pending": 1, "unacknowledged": 0}


async def test_a_worker_of_one_command_that_fails_it_for_now_ends_and_the_next_one_takes_it(
    bus: Bus, processes: Processes, events: Events
) -> None:
    await bus.send_command(command(mode="full-once"), Lane.normal)

    first = processes.start(STEP_SECONDS=0, WORKER_COMMANDS=1)
    await until(lambda: first.poll() is not None)
    counted = sum((await bus.queue_depths())["preprocessor-normal"].values())
    processes.start(STEP_SECONDS=0, WORKER_COMMANDS=1)

    assert counted == 1  # while it waits to be tried again it is still counted
    assert (await events.wait_for("prepared")).token == 2


async def test_a_command_that_another_worker_has_in_hand_is_not_the_one(
    bus: Bus, processes: Processes, events: Events
) -> None:
    holder = processes.start(HOLD_AT=3)
    await bus.send_command(command("job_1"), Lane.normal)
    await processes.wait_for("step 2")
    again = command("job_1")
    await bus._publish(again, again.subject(Lane.high), "the same step, told twice")
    await bus.send_command(command("job_2"), Lane.low)

    second = processes.start(STEP_SECONDS=0, WORKER_COMMANDS=1)
    await until(lambda: second.poll() is not None)

    assert second.returncode == 0
    assert (await events.wait_for("prepared")).job_id == "job_2"
    assert len(events.of("prepared")) == 1
    assert holder.poll() is None
    processes.go_on()


async def test_the_commands_of_a_service_are_counted_before_any_of_its_workers_was_there(
    bus: Bus, settings: CommonSettings
) -> None:
    gateway = await Bus.connect(settings, "gateway")
    await gateway.ensure_queues(["preprocessor", "trainer"])
    await bus.send_command(command(), Lane.low)

    found = await gateway.queue_depths()

    assert set(found) == {f"{service}-{lane}" for service in ("preprocessor", "trainer") for lane in Lane}
    assert found["preprocessor-low"] == {"pending": 1, "unacknowledged": 0}
    delivery = await bus.commands(Lane.low).take(timedelta(seconds=PATIENCE))
    assert delivery is not None
    await gateway.close()


def test_a_service_for_which_no_command_comes_ends_itself_and_its_status_says_that_all_is_well(
    settings: CommonSettings,
) -> None:
    variables = {
        "SERVICE_TOKEN": TOKEN,
        "DATA_ROOT": str(settings.data_root),
        "MODELS_ROOT": str(settings.models_root),
        "NATS_URL": settings.nats_url,
        "PORT": str(free_port()),
        "LOG_FILES": "false",
        "WORKER_COMMANDS": "1",
        "WORKER_IDLE": "0.5",
    }

    ended = subprocess.run(
        [sys.executable, "-m", "services.preprocessor"],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "worker.enough" in ended.stderr
