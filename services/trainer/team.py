"""How do several nodes make one training? The first takes the command and tells the others, which join it.

All share DATA_ROOT: the first node writes there what is to be trained, and torchrun on each node starts that node's
processes, which meet at `TRAINING_MEETING`, an address of the first node. What goes wrong on one node ends the training
on all; the command is then tried again as after any crash.

    node 0   the trainer: command ▶ announce ▶ torchrun ▶ result ▶ withdraw
    node 1…  a member: announcement ▶ torchrun ▶ the same processes, other shares of every batch
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from libs.common.logs import get_logger
from libs.common.manifests import write_whole
from libs.common.paths import Paths
from libs.common.tasks import end
from libs.voice.child import TrainingChild, torchrun
from services.trainer.settings import TrainerSettings

log = get_logger("team")

LOOK = 1.0  # seconds between two looks at the announcement
LEAVE = 60.0  # seconds that processes get to end by themselves once their training is over
NEVER = 1e9  # members are silent: only the first process of a training talks


def command(settings: TrainerSettings) -> list[str]:
    """What starts this node's processes of a training."""
    return torchrun(
        settings.training_processes, settings.training_nodes, settings.training_node, settings.training_meeting
    )


@contextmanager
def announced(settings: TrainerSettings, job: Mapping[str, Any]) -> Iterator[None]:
    """Tells the other nodes of a training, and that it is over; nothing when there is no other node."""
    if settings.training_nodes == 1:
        yield
        return
    place = Paths(settings).team(settings.training_meeting)
    write_whole(place, json.dumps({"id": secrets.token_hex(8), **job}).encode())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            place.unlink()


class Member:
    """A node that joins the trainings of another; also the check whether it can hear of them."""

    name = "team"

    def __init__(self, settings: TrainerSettings, paths: Paths) -> None:
        self._settings = settings
        self._place = paths.team(settings.training_meeting)
        self._child: TrainingChild | None = None

    async def __call__(self) -> str:
        return "at work" if self._child is not None else f"waits for trainings at {self._settings.training_meeting}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Joins what is announced while the block runs; at its end the whole training saves itself and stops."""
        joining = asyncio.create_task(self._join_all(), name="team.join")
        try:
            yield
        finally:
            if self._child is not None:
                log.info("team.leaving")
                await self._child.preempt()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._child.wait(), self._settings.drain_timeout.total_seconds())
            await end([joining])

    async def _join_all(self) -> None:
        joined = ""
        while True:
            said = await asyncio.to_thread(_read, self._place)
            if said is not None and said["id"] != joined:
                joined = said["id"]
                try:
                    await self._join(said)
                except OSError as error:
                    log.error("team.not_joined", error=str(error))
            await asyncio.sleep(LOOK)

    async def _join(self, said: Mapping[str, Any]) -> None:
        """Until the processes of this node are over, or their training is and they are not."""
        child = TrainingChild(
            said["inputs"],
            said["config"],
            command=command(self._settings),
            silence=NEVER,
            stall=NEVER,
            start_silence=NEVER,
        )
        await child.start()
        log.info("team.joined", pid=child.pid, run=said["inputs"]["run"])
        self._child = child
        over = asyncio.create_task(self._until_over(said["id"]), name="team.over")
        try:
            waiting = asyncio.ensure_future(child.wait())
            await asyncio.wait({waiting, over}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                child.kill("its training is over")
            outcome = await waiting
            log.info("team.left", code=outcome.returncode, said=outcome.stderr_tail[-3:] if outcome.returncode else [])
        finally:
            self._child = None
            await end([over])
            child.kill("its node leaves")

    async def _until_over(self, run: str) -> None:
        """Some time after the announcement of this training is gone, or another one is there."""
        is_on = True
        while is_on:
            await asyncio.sleep(LOOK)  # files of a shared folder have no event
            said = await asyncio.to_thread(_read, self._place)
            is_on = said is not None and said["id"] == run
        await asyncio.sleep(LEAVE)


def _read(place: Path) -> dict[str, Any] | None:
    """The announcement; None when there is none."""
    try:
        said: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return said
