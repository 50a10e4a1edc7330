"""Whose command is next? The platform's own order, without turns and with an ideal share, for the simulation."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from libs.common.jobs import Lane
from services.gateway.jobs.turns import Asked, InHand, choose

if TYPE_CHECKING:
    from scripts.simulate_queue import Job

AGED_SECONDS = 24 * 3600.0


class Waiting(Protocol):
    """Commands that nobody has in hand."""

    def __len__(self) -> int: ...

    def put(self, job: Job, now: float, *, again: bool) -> None:
        """A new command, or (`again`) one that a worker had in hand."""
        ...

    def take(self, now: float) -> Job:
        """The one whose turn it is; only called while there is one."""
        ...

    def gave_back(self, job: Job) -> None:
        """Nobody has it in hand any more: it is done, or its machine is gone."""
        ...


class Lanes:
    """As the broker and the workers do it (QUEUE_AHEAD=0): the highest lane that has one, in it what comes again first,
    then the oldest."""

    def __init__(self) -> None:
        self._again: dict[Lane, deque[Job]] = {lane: deque() for lane in Lane}
        self._new: dict[Lane, deque[Job]] = {lane: deque() for lane in Lane}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, job: Job, now: float, *, again: bool) -> None:
        (self._again if again else self._new)[job.lane].append(job)
        self._count += 1

    def take(self, now: float) -> Job:
        self._count -= 1
        return next(queue[lane].popleft() for lane in Lane for queue in (self._again, self._new) if queue[lane])

    def gave_back(self, job: Job) -> None:
        """Whose job it was counts for nothing here."""


class Turns:
    """As the platform does it: the gateway's own choice gives a few commands at a time to the lanes of the broker."""

    def __init__(self, ahead: int = 4) -> None:
        self._ahead = ahead
        self._there = Lanes()
        self._held: dict[str, tuple[Asked, Job]] = {}
        self._given: dict[int, InHand] = {}

    def __len__(self) -> int:
        return len(self._held) + len(self._there)

    def put(self, job: Job, now: float, *, again: bool) -> None:
        if again:  # the broker hands it out by itself
            self._given[job.number] = InHand(str(job.owner), "trainer", job.lane.value, waits=False)
            self._there.put(job, now, again=True)
            return
        name = f"{job.number:09}"
        self._held[name] = (Asked(name, str(job.owner), "trainer", job.lane.value, _moment(job.arrives)), job)

    def take(self, now: float) -> Job:
        asked = [one for one, _ in self._held.values()]
        for name in choose(asked, list(self._given.values()), self._ahead, _moment(now)):
            one, job = self._held.pop(name)
            self._given[job.number] = InHand(one.owner, one.service, one.lane, waits=True)
            self._there.put(job, now, again=False)
        job = self._there.take(now)
        self._given[job.number] = InHand(str(job.owner), "trainer", job.lane.value, waits=False)
        return job

    def gave_back(self, job: Job) -> None:
        del self._given[job.number]


def _moment(seconds: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


class FairShare:
    """What a broker could do that knew people: in the highest lane whoever has fewest in hand, and nobody is overtaken
    for ever.

    Who has waited for `aged` seconds goes before everybody, the oldest first, whatever the lane; so a command waits at
    most that long and for the work that was there before it.
    """

    def __init__(self, aged: float = AGED_SECONDS) -> None:
        self._aged = aged
        self._waiting: dict[Lane, dict[int, deque[Job]]] = {lane: {} for lane in Lane}
        self._in_hand: dict[int, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, job: Job, now: float, *, again: bool) -> None:
        of_owner = self._waiting[job.lane].setdefault(job.owner, deque())
        if again:
            of_owner.appendleft(job)
        else:
            of_owner.append(job)
        self._count += 1

    def take(self, now: float) -> Job:
        firsts = [queue[0] for owners in self._waiting.values() for queue in owners.values()]
        oldest = min(firsts, key=lambda job: (job.arrives, job.number))
        if now - oldest.arrives >= self._aged:
            return self._remove(oldest)
        lane = next(lane for lane in Lane if self._waiting[lane])
        heads = (queue[0] for queue in self._waiting[lane].values())
        return self._remove(min(heads, key=lambda job: (self._in_hand.get(job.owner, 0), job.arrives, job.number)))

    def gave_back(self, job: Job) -> None:
        self._in_hand[job.owner] -= 1

    def _remove(self, job: Job) -> Job:
        owners = self._waiting[job.lane]
        owners[job.owner].popleft()
        if not owners[job.owner]:
            del owners[job.owner]
        self._in_hand[job.owner] = self._in_hand.get(job.owner, 0) + 1
        self._count -= 1
        return job


POLICIES: dict[str, type[Lanes] | type[Turns] | type[FairShare]] = {"lanes": Lanes, "turns": Turns, "fair": FairShare}
