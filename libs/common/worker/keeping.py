"""What goes on beside the work? Lease and message are kept alive, a wish to stop is looked for, progress is told."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from libs.common.bus import Delivery
from libs.common.errors import Conflict, LeaseLost, Unavailable
from libs.common.work import Work
from libs.common.worker.telling import Telling


class Keeping(Telling):
    """The tasks that accompany one piece of work."""

    async def _keep_alive(self, work: Work[Any], delivery: Delivery) -> None:
        """Renews the lease and the message; a lease that another worker took, or that ran out, ends the work."""
        heartbeat = self._settings.heartbeat.total_seconds()
        while not work.is_over:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(work.marked.wait(), heartbeat)
            work.marked.clear()
            try:
                await work.lease.renew(work.latest_mark)
                await delivery.in_progress()
            except LeaseLost:
                work.end("lost")
                return
            except Unavailable:
                await asyncio.sleep(min(heartbeat, 0.5))

    async def _watch_control(self, work: Work[Any]) -> None:
        """Looks for a cancel every second: a key-value watch takes up to 16 s to come back after a broker's restart."""
        while not work.is_over:
            await asyncio.sleep(self._settings.cancel_poll.total_seconds())
            with contextlib.suppress(Unavailable, Conflict):
                if await self._is_cancelled(work.command.job_id):
                    work.end("cancel")
                    return

    async def _send_progress(self, work: Work[Any]) -> None:
        while not work.is_over:
            await work.progress_waits.wait()
            work.progress_waits.clear()
            if work.latest_progress is not None:
                await self.bus.publish_progress(work.latest_progress)
            await asyncio.sleep(min(0.2, self._settings.heartbeat.total_seconds()))
