"""Who is converted with whom? The oldest request, and those for the same voice that are waiting at that moment.

    tickets in order of arrival:  A1  B1  A2  A3      one turn: A1 leads, A2 and A3 go with it; then B1 leads

Nobody is waited for. Whoever arrived first leads next, so a request waits for no more turns than it found before it;
how long a turn may be is bounded by its number of requests and its seconds of sound.
"""

from __future__ import annotations

import asyncio
import bisect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from libs.audio.decode import Sound, decode
from libs.common import metrics
from libs.common.errors import Cancelled
from services.inference.conversion import Converted, Piece, convert_pieces
from services.inference.counting import counted
from services.inference.queueing import Room
from services.inference.schemas import ConversionRequest
from services.inference.settings import InferenceSettings
from services.inference.voices import Voices


@dataclass(eq=False)
class Ticket:
    """One request, from its arrival to its result."""

    number: int
    source: Path
    wanted: ConversionRequest
    result: asyncio.Future[Converted]
    stop: threading.Event = field(default_factory=threading.Event)
    sound: Sound | None = None

    def settle(self, outcome: Converted | BaseException) -> None:
        """The first outcome counts. On the event loop only."""
        if self.result.done():
            return
        if isinstance(outcome, Converted):
            self.result.set_result(outcome)
        elif isinstance(outcome, asyncio.CancelledError):
            self.result.cancel()
        else:
            self.result.set_exception(outcome)
            self.result.exception()  # looked at: nobody may be there any more to ask for it


class Batches:
    """Turns of one or several requests, `conversions_at_once` at the same time. Lives on the event loop."""

    def __init__(self, settings: InferenceSettings, voices: Voices) -> None:
        self._room = Room(settings.conversions_at_once, settings.conversions_waiting)
        self._voices = voices
        self._most_requests = settings.inference_batch_requests
        self._most_seconds = settings.inference_batch_seconds
        self._longest = settings.conversion_limit.total_seconds()
        self._waiting: list[Ticket] = []
        self._numbers = count()
        self._turns: set[asyncio.Task[None]] = set()

    @contextmanager
    def ticket(self, source: Path, wanted: ConversionRequest) -> Iterator[Ticket]:
        """A place in the queue; whoever leaves the block wants its result no more. Raises Busy when too many wait."""
        with counted("request") as told, self._room.admitted():
            ticket = Ticket(next(self._numbers), source, wanted, asyncio.get_running_loop().create_future())
            self._waiting.append(ticket)
            self._begin()
            try:
                yield ticket
            finally:
                told.future(ticket.result)
                ticket.stop.set()
                if ticket in self._waiting:
                    self._waiting.remove(ticket)

    def _begin(self) -> None:
        while self._waiting and len(self._turns) < self._room.at_once:
            turn = asyncio.create_task(self._turn(self._waiting.pop(0)))
            self._turns.add(turn)
            turn.add_done_callback(self._ended)

    def _ended(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        self._begin()

    async def _turn(self, first: Ticket) -> None:
        """The oldest request and whoever goes with it. What is raised here is about all of them."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        members = [first]
        try:
            voice = await asyncio.to_thread(self._voices.get, first.wanted.voice)
            await self._gather(members)
            if not members:
                return
            metrics.CONVERSION_BATCH.observe(len(members))
            pieces = [
                Piece(member.sound, member.wanted, member.stop.is_set) for member in members if member.sound is not None
            ]

            def tell(place: int, outcome: Converted | Exception) -> None:
                loop.call_soon_threadsafe(members[place].settle, outcome)

            await asyncio.to_thread(convert_pieces, voice, pieces, tell, most_seconds=self._most_seconds)
            self._room.took((loop.time() - began) / len(members))
        except BaseException as error:
            for member in [first, *members]:
                member.stop.set()
                loop.call_soon(member.settle, error)  # after what the thread has told
            if not isinstance(error, Exception):
                raise

    async def _gather(self, members: list[Ticket]) -> None:
        """Leaves in `members` (at first the one that leads) whose recordings are decoded and who still want them."""
        first = members.pop()
        ticket: Ticket | None = first
        seconds = 0.0
        while ticket is not None:
            if (sound := await self._decoded(ticket)) is not None:
                if members and seconds + sound.seconds > self._most_seconds:
                    self._put_back(ticket)
                    return
                members.append(ticket)
                seconds += sound.seconds
            is_full = len(members) >= self._most_requests or seconds >= self._most_seconds
            ticket = None if is_full else self._next(first.wanted.voice)

    async def _decoded(self, ticket: Ticket) -> Sound | None:
        """The recording, kept with its ticket; None when it is over with this one."""
        try:
            if ticket.sound is None and not ticket.stop.is_set():
                ticket.sound = await asyncio.to_thread(decode, ticket.source, limit_seconds=self._longest)
            if ticket.stop.is_set():
                raise Cancelled
        except Exception as error:
            ticket.settle(error)
            return None
        return ticket.sound

    def _next(self, voice: str) -> Ticket | None:
        """The oldest that waits for this voice, if it may go with others."""
        if self._most_requests == 1:
            return None
        ticket = next((ticket for ticket in self._waiting if ticket.wanted.voice == voice), None)
        if ticket is not None:
            self._waiting.remove(ticket)
        return ticket

    def _put_back(self, ticket: Ticket) -> None:
        """To its place in the order of arrival: this turn has no room for it."""
        bisect.insort(self._waiting, ticket, key=lambda one: one.number)
