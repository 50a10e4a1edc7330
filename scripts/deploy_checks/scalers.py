"""Do the scalers look at queues that the services really have?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from libs.common import events
from libs.common.bus.broker import COMMANDS
from libs.common.jobs import Lane
from scripts.deploy_checks.kustomize import Object, Rendering
from scripts.deploy_checks.objects import called
from scripts.deploy_checks.rows import Row, found


def queues() -> dict[str, set[str]]:
    """The durable consumers of each kind of work, one for each lane (libs/common/bus/queues.py names them so)."""
    services = sorted({command.service for command in events.COMMANDS if issubclass(command, events.Command)})
    return {service: {f"{service}-{lane.value}" for lane in Lane} for service in services}


def check(rendering: Rendering) -> Iterator[Row]:
    """Every scaler of an overlay; none where there are no scalers."""
    scalers = rendering.of_kind("ScaledJob", "ScaledObject")
    if scalers:
        faults = [f"{called(one)}: {fault}" for one in scalers for fault in _faults(one, rendering)]
        yield found("scalers", rendering.name, f"{len(scalers)} scalers", faults)


def _faults(one: Object, rendering: Rendering) -> Iterator[str]:
    known, watched = queues(), set()
    for trigger in one["spec"].get("triggers") or []:
        if trigger.get("type") != "nats-jetstream":
            continue
        asked = trigger.get("metadata") or {}
        if asked.get("stream") != COMMANDS:
            yield f"there is no stream {asked.get('stream')}; commands are in {COMMANDS}"
        consumer = str(asked.get("consumer"))
        service, _, lane = consumer.rpartition("-")
        if lane not in {each.value for each in Lane} or service not in known:
            yield f"there is no consumer {consumer}"
        watched.add(consumer)
        host = re.split(r"[.:]", str(asked.get("natsServerMonitoringEndpoint", "")))[0]
        if rendering.named("Service", host) is None:
            yield f"there is no Service/{host} to ask"
    for service in {consumer.rpartition("-")[0] for consumer in watched} & known.keys():
        for consumer in sorted(known[service] - watched):
            yield f"the queue {consumer} is not looked at, so nothing comes for it"
    least, most = one["spec"].get("minReplicaCount", 0), one["spec"].get("maxReplicaCount", 100)
    if least > most:
        yield f"at least {least} and at most {most} cannot be"
    if one["kind"] == "ScaledJob":
        template = one["spec"]["jobTargetRef"].get("template") or {}
        if (template.get("spec") or {}).get("restartPolicy") not in ("Never", "OnFailure"):
            yield "the pods of a Job need restartPolicy Never or OnFailure"
