"""The bus on a real nats-server: created twice, killed, restarted, full."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from libs.common.bus import Bus
from libs.common.bus.broker import HEADERS
from libs.common.connecting import ConnectingWorker
from libs.common.errors import Conflict, MessageTooLarge, Unavailable
from libs.common.events import Command, InputFile, JobChanged, PrepareDataset, StepProgress, StepStarted
from libs.common.jobs import JobState, Lane, Step
from libs.common.settings import CommonSettings
from tests.conftest import NatsServer
from tests.waiting import PATIENCE, until

SHORT = timedelta(seconds=0.3)  # what is there comes well within; for what must not come
LONG = timedelta(seconds=PATIENCE)  # for what must come


def prepare(job: str = "job_1", attempt: int = 1, inputs: int = 0, sample: str = "smp_{}") -> PrepareDataset:
    files = tuple(InputFile(sample_id=sample.format(i), sha256="0" * 64, extension="wav") for i in range(inputs))
    return PrepareDataset(
        job_id=job, step=Step.preprocess, attempt=attempt, experiment="anna", dataset="anna", inputs=files
    )


@pytest.mark.parametrize("secret", ["anna:pass@word", "to-ken"])
async def test_an_address_is_logged_without_its_secrets(settings: CommonSettings, secret: str) -> None:
    closed = settings.model_copy(update={"nats_url": f"nats://{secret}@127.0.0.1:1"})

    with capture_logs() as lines, contextlib.suppress(TimeoutError):
        await asyncio.wait_for(Bus.connect(closed, "gateway"), 3.0)

    said = str(lines)
    assert "127.0.0.1:1" in said
    assert not any(part in said for part in secret.split(":"))


async def test_streams_and_buckets_are_made_twice_without_harm(bus: Bus) -> None:
    await bus.ensure()
    await bus.ping()

    assert await bus.bucket("leases").get("nothing") is None


async def test_changed_limits_are_applied_to_an_existing_stream(bus: Bus, settings: CommonSettings) -> None:
    other = await Bus.connect(settings.model_copy(update={"commands_max_bytes": 10_000_000}), "gateway")

    await other.ensure()

    assert (await bus._js.stream_info("COMMANDS")).config.max_bytes == 10_000_000
    await other.close()


async def test_a_command_reaches_the_consumer_of_its_lane_alone(bus: Bus) -> None:
    await bus.send_command(prepare(), Lane.low)

    assert await bus.commands(Lane.high).take(SHORT) is None
    delivery = await bus.commands(Lane.low).take(LONG)
    assert delivery is not None
    assert delivery.envelope.open() == prepare()


async def test_the_same_command_sent_twice_arrives_once(bus: Bus) -> None:
    first = await bus.send_command(prepare(), Lane.normal)
    second = await bus.send_command(prepare(), Lane.normal)

    queue = bus.commands(Lane.normal)
    delivery = await queue.take(LONG)
    assert delivery is not None
    await delivery.ack()
    assert first == second
    assert await queue.take(SHORT) is None


async def test_a_command_that_is_given_back_comes_again_after_the_delay(bus: Bus) -> None:
    await bus.send_command(prepare(), Lane.normal)
    queue = bus.commands(Lane.normal)
    delivery = await queue.take(LONG)
    assert delivery is not None
    given_back = time.monotonic()

    await delivery.nak(timedelta(seconds=0.8))
    again = await queue.take(LONG)

    assert again is not None
    assert again.deliveries == 2
    assert time.monotonic() - given_back > 0.7  # a little less than the delay, because the broker has its own clock


async def test_a_deleted_command_is_never_delivered(bus: Bus) -> None:
    sequence = await bus.send_command(prepare(), Lane.normal)

    assert await bus.delete_command(sequence) is True
    assert await bus.delete_command(sequence) is False
    assert await bus.commands(Lane.normal).take(SHORT) is None


async def test_a_full_stream_refuses_commands_instead_of_losing_old_ones(
    nats_server: NatsServer, make_settings: Callable[..., CommonSettings]
) -> None:
    bus = await Bus.connect(make_settings(nats_url=nats_server.url, commands_max_bytes=20_000), "preprocessor")
    await bus.ensure()

    sent = 0

    async def fill() -> None:
        nonlocal sent
        for n in range(50):
            await bus.send_command(prepare(f"job_{n}", inputs=20), Lane.normal)
            sent += 1

    with pytest.raises(Unavailable):
        await fill()

    first = await bus.commands(Lane.normal).take(LONG)
    assert sent > 0
    assert first is not None
    opened = first.envelope.open()
    assert isinstance(opened, Command)
    assert opened.job_id == "job_0"
    await bus.close()


async def test_sending_without_a_broker_says_so(bus: Bus, nats_server: NatsServer) -> None:
    nats_server.kill()
    await until(lambda: not bus.is_connected)

    with pytest.raises(Unavailable):
        await bus.send_command(prepare(), Lane.normal)
    await bus.publish_progress(StepProgress(job_id="job_1", step=Step.train))


async def test_a_bus_whose_broker_is_away_is_closed_although_a_question_waits(
    settings: CommonSettings, nats_server: NatsServer
) -> None:
    bus = await Bus.connect(settings, "trainer")
    await bus.ensure()
    nats_server.kill()
    await until(lambda: not bus.is_connected)
    with contextlib.suppress(TimeoutError, Unavailable):
        await asyncio.wait_for(bus.ping(), 0.3)  # a question that waits for the broker

    await bus.close()

    assert not bus.is_connected


async def test_nothing_that_was_accepted_is_lost_when_the_broker_is_killed(bus: Bus, nats_server: NatsServer) -> None:
    for n in range(20):
        await bus.send_command(prepare(f"job_{n}"), Lane.normal)

    nats_server.restart()

    got = []
    queue = bus.commands(Lane.normal)
    async with asyncio.timeout(PATIENCE):
        while len(got) < 20:
            try:
                delivery = await queue.take(SHORT)
            except Unavailable:
                await asyncio.sleep(0.1)
                continue
            if delivery is not None:
                command = delivery.envelope.open()
                assert isinstance(command, Command)
                got.append(command.job_id)
                await delivery.ack()
    assert got == [f"job_{n}" for n in range(20)]


async def test_events_are_read_on_after_the_broker_was_killed(bus: Bus, nats_server: NatsServer) -> None:
    seen: list[str] = []

    async def read() -> None:
        async for delivery in bus.events("gateway"):
            seen.append(delivery.envelope.id)
            with contextlib.suppress(Unavailable):  # it comes again
                await delivery.ack()

    reader = asyncio.create_task(read())
    await bus.publish_event(StepStarted(job_id="job_1", step=Step.train), event_id="a")
    await until(lambda: "a" in seen)
    nats_server.restart()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await bus.publish_event(StepStarted(job_id="job_1", step=Step.train), event_id="b")
                break
            except Unavailable:
                await asyncio.sleep(0.1)

    await until(lambda: "b" in seen)
    reader.cancel()
    assert sorted(set(seen)) == ["a", "b"]


async def test_a_feed_goes_on_without_gap_or_doubling_when_the_broker_is_killed(
    bus: Bus, nats_server: NatsServer
) -> None:
    got: list[int] = []

    async def read() -> None:
        async for _, envelope in bus.feed("job_1", after=0):
            changed = envelope.open()
            assert isinstance(changed, JobChanged)
            got.append(changed.version)

    reader = asyncio.create_task(read())
    for version in range(40):
        if version == 20:
            nats_server.restart()
        changed = JobChanged(job_id="job_1", state=JobState.running, version=version)
        while True:
            try:
                await bus.publish_state(changed, message_id=f"job_1.{version}")
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    await until(lambda: len(got) >= 40)
    reader.cancel()

    assert got == list(range(40))


async def test_a_feed_starts_after_the_sequence_it_is_given(bus: Bus) -> None:
    sequences = [
        await bus.publish_state(JobChanged(job_id="j", state=JobState.queued, version=n), message_id=str(n))
        for n in range(3)
    ]

    async for sequence, _ in bus.feed("j", after=sequences[1]):
        assert sequence == sequences[2]
        break
    head, envelope = await bus.feed_head("j")
    assert head == sequences[2]
    assert envelope is not None
    assert await bus.feed_head("nobody") == (0, None)


async def test_a_bucket_compares_before_it_sets(bus: Bus) -> None:
    bucket = bus.bucket("leases")
    revision = await bucket.create("job_1.train", b"1")

    with pytest.raises(Conflict):
        await bucket.create("job_1.train", b"2")
    newer = await bucket.update("job_1.train", b"2", revision)
    with pytest.raises(Conflict):
        await bucket.update("job_1.train", b"3", revision)

    entry = await bucket.get("job_1.train")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"2", newer)
    assert await bucket.keys() == ["job_1.train"]
    assert list(await bucket.entries()) == ["job_1.train"]
    await bucket.delete("job_1.train")
    assert await bucket.get("job_1.train") is None
    assert await bucket.entries() == {}
    await bucket.purge("job_1.train")
    assert await bucket.keys() == []


async def test_queue_depths_count_what_waits_and_what_is_in_hand(bus: Bus) -> None:
    for lane in Lane:
        await bus.commands(lane).ensure()
    await bus.send_command(prepare("job_1"), Lane.high)
    await bus.send_command(prepare("job_2"), Lane.high)
    await bus.commands(Lane.high).take(LONG)

    depths = await bus.queue_depths()

    assert depths["preprocessor-high"] == {"pending": 1, "unacknowledged": 1}
    assert depths["preprocessor-low"] == {"pending": 0, "unacknowledged": 0}


async def test_what_no_message_holds_is_told_as_such_and_leaves_the_connection_alone(bus: Bus) -> None:
    with pytest.raises(MessageTooLarge) as told:
        await bus.send_command(prepare(inputs=10_000), Lane.normal)
    with pytest.raises(MessageTooLarge):
        await bus.bucket("jobs").put("job_1", b"x" * 2**20)

    assert not told.value.retryable
    assert told.value.extra["size"] > told.value.extra["limit"] > 1_000_000
    await bus.send_command(prepare(), Lane.normal)
    assert await bus.bucket("jobs").get("job_1") is None


async def test_the_largest_message_that_is_said_to_fit_is_taken(bus: Bus) -> None:
    limit = bus._nc.max_payload - HEADERS

    await bus.bucket("jobs").put("job_1", b"x" * limit)

    entry = await bus.bucket("jobs").get("job_1")
    assert entry is not None
    assert len(entry.value) == limit


async def test_a_broker_with_the_limits_of_the_installation_takes_fifty_nine_thousand_recordings(
    tmp_path: Path, make_settings: Callable[..., CommonSettings]
) -> None:
    limits = Path(__file__).parents[3] / "deploy" / "nats.conf"
    server = NatsServer(tmp_path / "large", "-c", str(limits))
    server.start()
    bus = await Bus.connect(make_settings(nats_url=server.url), "preprocessor")
    await bus.ensure()
    command = prepare(inputs=59_000, sample="smp_01JD3Q0V6X9W4T2M8N5R{:06}")

    await bus.send_command(command, Lane.normal)
    delivery = await bus.commands(Lane.normal).take(LONG)

    assert delivery is not None
    assert delivery.envelope.open() == command
    await bus.close()
    server.kill()


async def test_a_feed_ends_when_its_reader_says_so_without_a_cancellation(bus: Bus) -> None:
    gone = asyncio.Event()
    got: list[str] = []

    async def read() -> None:
        async for _, envelope in bus.feed("j", after=0, until=gone):
            got.append(envelope.id)

    reader = asyncio.create_task(read())
    await bus.publish_state(JobChanged(job_id="j", state=JobState.queued, version=1), message_id="1")
    await until(lambda: got == ["1"])
    gone.set()
    done, _ = await asyncio.wait([reader], timeout=PATIENCE)

    assert done == {reader}
    assert (reader.exception(), got) == (None, ["1"])


async def test_a_broker_without_room_for_the_streams_is_named_with_what_to_do(
    tmp_path: Path, make_settings: Callable[..., CommonSettings]
) -> None:
    limits = tmp_path / "small.conf"
    limits.write_text("jetstream { max_file_store: 1MB }\n")
    server = NatsServer(tmp_path / "small", "-c", str(limits))
    server.start()
    settings = make_settings(nats_url=server.url)

    async def no_worker(bus: Bus) -> None:
        raise AssertionError("nothing may begin before the streams are there")

    service = ConnectingWorker(settings, "preprocessor", no_worker)
    async with service.running():
        await until(lambda: "room" in service.absence)
        with pytest.raises(Unavailable, match=r"no room for the stream COMMANDS: together .* 128\.0MiB") as refused:
            await service()

    assert "EVENTS_MAX_BYTES" in refused.value.detail
    server.kill()
