"""A worker's whole life with real processes: killed, frozen, asked to go, poisoned, cancelled."""

from __future__ import annotations

import pytest

from libs.common import manifests
from libs.common.bus import Bus
from libs.common.events import wrap
from libs.common.jobs import Lane, Step
from libs.common.paths import Paths
from tests.hearing import Events
from tests.integration.common.worker_processes import EVERYTHING, Processes, command, result_of
from tests.waiting import until


async def until_messages(bus: Bus, stream: str, count: int) -> None:
    """Waits until a stream holds so many messages. None among the commands: nothing is tried again."""

    async def is_so() -> bool:
        found: int = (await bus._js.stream_info(stream)).state.messages
        return found == count

    await until(is_so)


async def test_a_command_becomes_a_committed_result_and_one_event(
    bus: Bus, processes: Processes, events: Events, paths: Paths
) -> None:
    processes.start(STEP_SECONDS=0)
    await bus.send_command(command(), Lane.normal)

    event = await events.wait_for("prepared")

    assert result_of(paths, event) == EVERYTHING
    assert [e.fact for e in events.seen] == ["step_started", "prepared"]


async def test_a_command_that_nobody_can_read_is_a_dead_letter(bus: Bus, processes: Processes) -> None:
    processes.start()
    await bus._js.publish("cmd.preprocessor.prepare.normal", b"not a cloud event")

    await until_messages(bus, "DEADLETTERS", 1)
    await until_messages(bus, "COMMANDS", 0)
    (letter,) = await bus.dead_letters()
    assert (letter.subject, letter.content) == ("cmd.preprocessor.prepare.normal", "not a cloud event")


async def test_the_job_of_a_command_that_nobody_can_read_is_told(
    bus: Bus, processes: Processes, events: Events
) -> None:
    processes.start()
    of_a_later_version = command().model_dump(mode="json") | {"inputs": "by reference"}
    envelope = wrap(command(), id="job_1.preprocess.1", subject="cmd.preprocessor.prepare.normal", service="gateway")
    raw = envelope.model_copy(update={"data": of_a_later_version}).model_dump_json().encode()

    await bus._js.publish("cmd.preprocessor.prepare.normal", raw)

    failed = await events.wait_for("step_failed")
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

    failed = await events.wait_for("step_failed")
    assert (failed.attempt, failed.problem["code"], failed.problem["step"]) == (1, "step_result_lost", "preprocess")
    assert failed.problem["suggested_actions"]
    await until_messages(bus, "COMMANDS", 0)


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
    await until_messages(bus, "COMMANDS", 0)

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
    await events.wait_for("prepared", job="job_2")

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
    processes.start(HOLD_AT=5)
    await bus.send_command(command(), Lane.normal)
    await processes.wait_for("step", count=2)

    await bus.bucket("control").put("cancel.job_1", b"{}")

    await events.wait_for("step_cancelled")
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


async def test_higher_lanes_go_first(bus: Bus, processes: Processes, events: Events) -> None:
    for job, lane in (("job_low", Lane.low), ("job_normal", Lane.normal), ("job_high", Lane.high)):
        await bus.send_command(command(job), lane)

    processes.start(STEP_SECONDS=0, POLL_INTERVAL=3)  # a lane whose answer comes late would count as empty
    await events.wait_for("prepared", count=3)

    assert [e.job_id for e in events.of("prepared")] == ["job_high", "job_normal", "job_low"]
