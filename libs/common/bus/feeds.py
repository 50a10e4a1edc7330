"""How is a job watched? Messages of one subject in the order of the stream, without gap or doubling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from libs.common.bus.broker import AWAY, PROGRESS, Connected, unavailable
from libs.common.events import Envelope
from libs.common.logs import get_logger

log = get_logger("bus")


class Feeds(Connected):
    """Reads the stream of progress, one job at a time."""

    async def feed_head(self, job_id: str) -> tuple[int, Envelope | None]:
        """Sequence and content of the newest message of a job's feed, (0, None) when there is none."""
        with unavailable("a look at a feed"):
            try:
                msg = await self._js.get_last_msg(PROGRESS, f"prg.job.{job_id}")
            except NotFoundError:
                return 0, None
        return msg.seq or 0, Envelope.model_validate_json(msg.data or b"{}")

    async def feed_holds(self, job_id: str, sequence: int) -> bool:
        """Whether all that followed `sequence` in a job's feed is still there: it is when that message itself is.

        Before the first message (0) that is said only while the stream and the feed have dropped nothing.
        """
        subject = f"prg.job.{job_id}"
        with unavailable("a look at a feed"):
            if sequence == 0:
                state = (await self._js.stream_info(PROGRESS, subjects_filter=subject)).state
                return (
                    state.first_seq <= 1
                    and (state.subjects or {}).get(subject, 0) < self._settings.progress_max_per_job
                )
        return await self.feed_message(job_id, sequence) is not None

    async def feed_message(self, job_id: str, sequence: int) -> Envelope | None:
        """The message of a job's feed at a stream sequence; None when it is not there, or is another job's."""
        with unavailable("a look at a feed"):
            try:
                msg = await self._js.get_msg(PROGRESS, seq=sequence)
            except NotFoundError:
                return None
        return Envelope.model_validate_json(msg.data or b"{}") if msg.subject == f"prg.job.{job_id}" else None

    async def feed_has(self, job_id: str, message_id: str, until: int, since: datetime | None) -> bool:
        """Whether a job's feed holds a message of this id up to sequence `until`, sent after `since` (None: ever)."""
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_TIME if since else DeliverPolicy.ALL,
            opt_start_time=since,
            inactive_threshold=30.0,
        )
        with unavailable("a look at a feed"):
            puller = await self._js.pull_subscribe(f"prg.job.{job_id}", stream=PROGRESS, config=config)
            try:
                left = (await puller.consumer_info()).num_pending or 0
                while left > 0:
                    for msg in await puller.fetch(min(left, 256), timeout=5.0):
                        left -= 1
                        if msg.metadata.sequence.stream > until:
                            return False
                        if Envelope.model_validate_json(msg.data).id == message_id:
                            return True
                return False
            finally:
                await puller.unsubscribe()

    async def feed(
        self, job_id: str, after: int, until: asyncio.Event | None = None
    ) -> AsyncIterator[tuple[int, Envelope]]:
        """Messages of one job's feed beyond stream sequence `after`, in order, without gap or doubling.

        Ends within some two seconds after `until` is set or the bus closes. Whoever leaves sets it: a cancellation
        that meets an answer of the broker is lost in `asyncio.wait_for` of Python 3.11.

        Each (re)start is a fresh ephemeral consumer from the sequence after the last one that was given out, so a
        broker that restarts neither repeats nor skips.
        """
        until = until or asyncio.Event()
        last = after
        while not (self._closing.is_set() or until.is_set()):
            puller: JetStreamContext.PullSubscription | None = None
            try:
                if (await self._js.stream_info(PROGRESS)).state.last_seq < last:
                    last = 0  # the broker lost its store, and counts from the beginning
                puller = await self._js.pull_subscribe(
                    f"prg.job.{job_id}",
                    stream=PROGRESS,
                    config=ConsumerConfig(
                        ack_policy=AckPolicy.NONE,
                        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                        opt_start_seq=last + 1,
                        inactive_threshold=30.0,
                    ),
                )
                silent = 0
                while not (self._closing.is_set() or until.is_set()):
                    try:
                        messages = await puller.fetch(64, timeout=1.0)
                        silent = 0
                    except (TimeoutError, nats.errors.TimeoutError):
                        silent += 1
                        # A consumer that was lost with the broker stays silent: ask now and then whether it lives.
                        if not self._nc.is_connected or silent % 5 == 0:
                            await puller.consumer_info()
                        continue
                    for msg in messages:
                        sequence = msg.metadata.sequence.stream
                        if sequence > last:
                            last = sequence
                            yield sequence, Envelope.model_validate_json(msg.data)
            except AWAY as error:
                log.debug("bus.feed_interrupted", job_id=job_id, error=str(error))
                await asyncio.sleep(0.3)
            finally:
                if puller is not None and self._nc.is_connected:
                    with contextlib.suppress(*AWAY):
                        await puller.unsubscribe()
