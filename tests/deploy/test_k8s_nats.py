"""Does a broker with the cluster's configuration let each service do its work, and nothing else?

A real nats-server with the users of deploy/k8s, as rendered for production; the cluster of three with its certificates.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest

from libs.common.bus import Bus
from libs.common.errors import Unavailable, WorkFailed
from libs.common.events import COMMANDS, EVENTS, Command, Event, PrepareDataset, StepProgress, TrainVoice
from libs.common.jobs import Lane, Step
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.common.work import Done, Work
from libs.common.worker import Worker
from tests.conftest import NatsServer, free_port
from tests.deploy.k8s import config_map
from tests.deploy.nats_cluster import PASSWORD, Cluster, written
from tests.waiting import PATIENCE, until

GIVEN = [command for command in COMMANDS if issubclass(command, Command)]
FACTS = [event for event in EVENTS if issubclass(event, Event)]
WORKERS = sorted({command.service for command in GIVEN})
MONITOR = free_port()
FORBIDDEN = "nobody.may"  # refused last, so that all other refusals are known by then
OF_ANY_STEP = {"step_started", "step_delayed", "step_failed", "step_cancelled"}
OF_THE_GATEWAY = {"queued", "started", "completed", "failed", "cancelled"}
STREAMS = ("COMMANDS", "EVENTS", "PROGRESS", "DEADLETTERS", "KV_jobs", "KV_control", "KV_leases", "KV_workers")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server with the cluster's users."""
    folder = tmp_path_factory.mktemp("broker")
    config = written(folder, config_map("local", "nats"), "users.conf")
    server = NatsServer(folder / "store", "-c", str(config), "-m", str(MONITOR))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def connect(
    broker: NatsServer, make_settings: Callable[..., CommonSettings]
) -> AsyncIterator[Callable[[str], Any]]:
    """The bus of a service, under its own name."""
    made: list[Bus] = []

    async def connected(service: str) -> Bus:
        settings = make_settings(nats_url=broker.url, nats_user=service, nats_password=PASSWORD)
        made.append(await Bus.connect(settings, service))
        return made[-1]

    yield connected
    for bus in made:
        await bus.close()


async def allowed(url: str, user: str, subjects: list[str]) -> set[str]:
    """Those of `subjects` on which the broker lets `user` publish."""
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    client = await nats.connect(url, user=user, password=PASSWORD, error_cb=note, allow_reconnect=False)
    for subject in (*subjects, FORBIDDEN):
        await client.publish(subject, b"")
    await until(lambda: any(FORBIDDEN in said for said in refused))
    await client.close()
    return {subject for subject in subjects if not any(f'"{subject}"'.lower() in said.lower() for said in refused)}


@pytest.mark.parametrize(("user", "password"), [("gateway", "guess"), ("nobody", PASSWORD), ("", "")])
async def test_a_stranger_and_a_service_with_another_password_are_refused(broker, user, password):
    said = f"CONNECT {json.dumps({'verbose': False, 'user': user, 'pass': password})}\r\nPING\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    try:
        await reader.readline()  # the server introduces itself
        writer.write(said.encode())

        assert b"Authorization Violation" in await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize("service", WORKERS)
async def test_a_worker_does_all_that_a_step_needs_under_its_own_name(service, connect, make_settings):
    gateway, bus = await connect("gateway"), await connect(service)
    await bus.ensure()  # whoever comes first makes the streams
    await gateway.ensure_queues(WORKERS)
    await bus.ping()
    settings = make_settings(heartbeat=0.1)
    worker = Worker(bus, settings, Paths(settings), slots=1, info={"device": "cpu"})
    kinds = [command for command in GIVEN if command.service == service]
    heard: list[Any] = []

    async def work(hand: Work[Any]) -> Done:
        hand.report(0.5)
        hand.mark("somewhere")
        await asyncio.sleep(0.15)  # longer than a heartbeat: the lease and the message are kept
        raise WorkFailed("the test refuses")

    async def listen() -> None:
        async for delivery in gateway.events("gateway"):
            heard.append(delivery.envelope.open())
            await delivery.ack()

    for kind in kinds:
        worker.on(kind, work)
    listening = asyncio.create_task(listen())
    await worker.start()
    try:
        for kind in kinds:
            for lane in Lane:
                await send(gateway, kind, lane)
        jobs = {f"{kind.__name__}-{lane}" for kind in kinds for lane in Lane}
        await until(lambda: jobs <= {event.job_id for event in heard if event.fact == "step_failed"})

        assert jobs <= {event.job_id for event in heard if event.fact == "step_started"}
        await until(lambda: is_done(gateway, service))
        assert [key for key in await gateway.bucket("workers").keys() if key.startswith(f"{service}-")]
        await until(lambda: has_feed(gateway, min(jobs)))
    finally:
        await worker.drain()
        listening.cancel()


async def send(gateway: Bus, kind: type[Command], lane: Lane, job: str = "") -> None:
    """A command of a kind, with the least that it needs."""
    fields = kind.model_fields
    given = {"job_id": job or f"{kind.__name__}-{lane}", "step": Step.train, "experiment": "anna"}
    filled = {name: _least(str(field.annotation)) for name, field in fields.items() if field.is_required()} | given
    await gateway.send_command(kind.model_validate(filled), lane)


def _least(annotation: str) -> Any:
    if "ManifestRef" in annotation:
        return {"path": "p", "sha256": "0", "token": 1}
    if "MakingOptions" in annotation:
        return {"tool": "merge"}
    return {} if "Options" in annotation or "dict" in annotation else () if "tuple" in annotation else "anna"


async def is_done(bus: Bus, service: str) -> bool:
    depths = await bus.queue_depths()
    return all(sum(depths[f"{service}-{lane}"].values()) == 0 for lane in Lane)


async def has_feed(bus: Bus, job: str) -> bool:
    return (await bus.feed_head(job))[0] > 0


async def test_a_worker_holds_and_commits_a_lease_and_hears_of_a_cancel(connect):
    gateway, bus = await connect("gateway"), await connect("trainer")
    await gateway.ensure()
    leases = bus.bucket("leases")

    first = await leases.create("job_lease.train", b"mine")
    second = await leases.update("job_lease.train", b"still mine", first)
    await gateway.bucket("control").put("cancel.job_lease", b"now")

    assert (await leases.get("job_lease.train")).revision == second
    assert (await bus.bucket("control").get("cancel.job_lease")).value == b"now"
    assert await bus.place_of(second) > 0
    await gateway.forget_job("job_lease")
    assert await leases.get("job_lease.train") is None


async def test_the_gateway_does_all_that_jobs_need_under_its_own_name(connect):
    gateway = await connect("gateway")
    await gateway.ensure_queues(WORKERS)
    command = PrepareDataset(job_id="job_sent", step=Step.preprocess, experiment="anna", dataset="anna", inputs=())

    sequence = await gateway.send_command(command, Lane.high)
    assert await gateway.delete_command(sequence) is True
    revision = await gateway.bucket("jobs").put("job_sent", b"{}")
    assert await gateway.bucket("jobs").update("job_sent", b"{ }", revision) > revision
    assert "job_sent" in await gateway.bucket("jobs").keys()
    assert await gateway.feed_head("job_nobody") == (0, None)
    assert await gateway.feed_holds("job_nobody", 0) in (True, False)
    assert set(await gateway.stream_sizes()) == set(STREAMS)
    seen: list[str] = []

    async def follow() -> None:
        async for _, envelope in gateway.feed("job_sent", after=0):
            seen.append(envelope.id)

    async def progress() -> None:
        async for delivery in gateway.progress("gateway-progress"):
            seen.append(delivery.subject)

    readers = [asyncio.create_task(follow()), asyncio.create_task(progress())]
    async with asyncio.timeout(PATIENCE):
        while len(seen) < 2:
            await gateway.publish_progress(StepProgress(job_id="job_sent", step=Step.train))
            await asyncio.sleep(0.05)
    for reader in readers:
        reader.cancel()


async def test_the_page_that_a_scaler_reads_counts_what_waits_and_what_is_in_hand(connect):
    gateway, trainer = await connect("gateway"), await connect("trainer")
    await gateway.ensure_queues(WORKERS)
    before = await lag("trainer-low")
    for job in ("job_a", "job_b"):
        await send(gateway, TrainVoice, Lane.low, job)

    waiting = await lag("trainer-low")
    delivery = await trainer.commands(Lane.low).take(timedelta(seconds=PATIENCE))
    in_hand = await lag("trainer-low")
    await delivery.nak(timedelta(seconds=60))  # it is to be tried again
    again = await lag("trainer-low")

    assert (before, waiting, in_hand, again) == (0, 2, 2, 2)


async def lag(consumer: str) -> int:
    """As KEDA computes it, from the same page."""
    async with httpx.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"http://127.0.0.1:{MONITOR}/jsz?acc=VOICEWRIGHT&consumers=true&config=true")).json()
    [account] = page["account_details"]
    [stream] = [found for found in account["stream_detail"] if found["name"] == "COMMANDS"]
    [found] = [found for found in stream["consumer_detail"] if found["name"] == consumer]
    return int(found["num_pending"] + found["num_ack_pending"])


async def test_only_the_gateway_gives_commands_and_only_to_queues_that_have_a_worker(broker):
    subjects = [kind.subject(lane) for kind in _any(GIVEN) for lane in Lane]

    assert await allowed(broker.url, "gateway", subjects) == set(subjects)
    for service in WORKERS:
        assert await allowed(broker.url, service, subjects) == set(), service


async def test_each_fact_can_be_told_by_a_service_that_knows_it_and_by_no_other(broker):
    subjects = {event: f"evt.{event.noun}.some-id.{event.fact}" for event in FACTS}
    told = {user: await allowed(broker.url, user, [*subjects.values()]) for user in (*WORKERS, "gateway")}

    for event, subject in subjects.items():
        who = {user for user, facts in told.items() if subject in facts}
        if event.fact in OF_ANY_STEP:
            assert who == {*WORKERS, "gateway"}, event
        elif event.noun == "job" and event.fact in OF_THE_GATEWAY:
            assert who == {"gateway"}, event
        elif event.fact == "published":
            assert who == {"trainer", "models"}, event
        else:
            assert len(who) == 1, (event, who)
            assert "gateway" not in who


@pytest.mark.parametrize("service", WORKERS)
async def test_a_worker_can_neither_take_anothers_work_nor_change_what_others_rely_on(service, broker):
    others = [other for other in WORKERS if other != service]
    forbidden = [
        *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("DELETE", "UPDATE", "PURGE") for stream in STREAMS),
        *(f"$JS.API.STREAM.MSG.DELETE.{stream}" for stream in STREAMS),
        *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in ("COMMANDS", "EVENTS", "PROGRESS", "KV_jobs")),
        "$JS.API.STREAM.CREATE.OWN",
        *(f"$JS.API.CONSUMER.MSG.NEXT.COMMANDS.{other}-{lane}" for other in others for lane in Lane),
        *(f"$JS.ACK.COMMANDS.{other}-{lane}.1.1.1.1.1" for other in others for lane in Lane),
        *(f"$JS.API.CONSUMER.DURABLE.CREATE.COMMANDS.{name}-high" for name in WORKERS),
        *(f"$JS.API.CONSUMER.CREATE.COMMANDS.{service}-high.cmd.{other}.*.high" for other in others),
        "$JS.API.CONSUMER.CREATE.COMMANDS",
        "$JS.API.CONSUMER.CREATE.EVENTS",
        *(f"$JS.API.CONSUMER.DELETE.COMMANDS.{name}-high" for name in WORKERS),
        "$KV.control.cancel.job_1",
        "$KV.control.installation",
        "$KV.jobs.job_1",
        *(f"dead.cmd.{other}.work.high" for other in others),
    ]

    assert await allowed(broker.url, service, forbidden) == set()


@pytest.mark.parametrize("service", [*WORKERS, "gateway"])
async def test_a_service_hears_the_answers_to_its_own_requests_alone(service, broker):
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    client = await nats.connect(
        broker.url, user=service, password=PASSWORD, error_cb=note, inbox_prefix=f"_INBOX.{service}"
    )
    others = [f"_INBOX.{other}.>" for other in (*WORKERS, "gateway") if other != service]
    for subject in (">", "cmd.>", "evt.>", "$KV.>", "_INBOX.>", *others):
        await client.subscribe(subject)

    await until(lambda: len(refused) >= 5 + len(others))
    await client.close()
    assert all("permissions violation" in each.lower() for each in refused), refused


async def test_the_gateway_cannot_drop_a_stream_and_the_operator_can(broker, connect):
    operator = await connect("operator")
    await operator.ensure()
    wanted = [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("DELETE", "SNAPSHOT") for stream in STREAMS]

    assert await allowed(broker.url, "gateway", wanted) == set()
    assert await operator._js.delete_stream("PROGRESS")


def _any(kinds: list[type[Command]]) -> list[Command]:
    return [kind.model_construct() for kind in kinds]


@pytest.mark.slow
async def test_three_servers_hold_every_stream_three_times_and_go_on_without_one(
    tmp_path: Path, make_settings: Callable[..., CommonSettings]
) -> None:
    with Cluster(tmp_path, config_map("production", "nats")) as cluster:
        settings = make_settings(
            nats_url=cluster.address(2),
            nats_user="gateway",
            nats_password=PASSWORD,
            nats_ca=cluster.authority,
            nats_replicas=int(config_map("production", "settings")["NATS_REPLICAS"]),
        )
        gateway = await Bus.connect(settings, "gateway")
        await gateway.ensure_queues(WORKERS)
        command = PrepareDataset(job_id="job_1", step=Step.preprocess, experiment="anna", dataset="anna", inputs=())
        await gateway.send_command(command, Lane.normal)

        for stream in STREAMS:
            info = await gateway._js.stream_info(stream)
            assert info.config.num_replicas == 3
            assert info.cluster is not None
            assert len(info.cluster.replicas or []) == 2, stream
        leader = (await gateway._js.stream_info("COMMANDS")).cluster.leader
        assert leader.startswith("nats-")  # the name of a pod, by which a scaler finds its page

        cluster.kill(leader if leader != "nats-2" else "nats-0")

        preprocessor = await Bus.connect(
            settings.model_copy(update={"nats_user": "preprocessor", "nats_url": cluster.address(2)}), "preprocessor"
        )
        async with asyncio.timeout(PATIENCE):
            delivery = None
            while delivery is None:
                try:
                    delivery = await preprocessor.commands(Lane.normal).take(timedelta(seconds=1))
                except Unavailable:
                    await asyncio.sleep(0.3)
        assert delivery.envelope.open() == command
        await preprocessor.close()
        await gateway.close()
