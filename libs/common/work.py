"""What does a handler see of a command in hand, and what does it give back?"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from libs.common import manifests
from libs.common.errors import Cancelled, LeaseLost, Preempted, StepTimedOut, StorageFull, TryAgain, Unavailable
from libs.common.events import Command, StepFinished, StepProgress
from libs.common.leases import Lease
from libs.common.paths import StepFolder

C = TypeVar("C", bound=Command)
T = TypeVar("T")
Stop = Literal["cancel", "preempt", "lost"]
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_VOLUME = {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Done:
    """What a handler made: `files` for the manifest and the fields of the event that tells of it.

    `folder` is where they lie: the attempt's own unless an earlier result is used again. `entries` are files whose
    checksums are known already.
    """

    event: type[StepFinished]
    fields: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    entries: dict[str, manifests.FileEntry] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    folder: Path | None = None


class Work(Generic[C]):
    """One command in hand. `report`, `mark` and `should_stop` may be called from any thread."""

    def __init__(self, command: C, lease: Lease, steps: StepFolder, worker_id: str) -> None:
        self.command = command
        self.lease = lease
        self.steps = steps
        self.worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._stop: Stop | None = None
        self._stopped = asyncio.Event()
        self.latest_mark: str | None = None
        self.marked = asyncio.Event()
        self.latest_progress: StepProgress | None = None
        self.progress_waits = asyncio.Event()
        # On Python 3.11 a cancel that meets a finished wait_for is swallowed: loops look at this as well.
        self.is_over = False

    @property
    def token(self) -> int:
        return self.lease.token

    @property
    def folder(self) -> Path:
        """The attempt's own folder below DATA_ROOT; made on first use."""
        folder = self.steps.attempt(self.token)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def earlier_folders(self) -> list[Path]:
        """Folders of former owners, newest first; their finished files may be taken over, never changed."""
        return self.steps.earlier_attempts(self.token)

    def should_stop(self) -> Stop | None:
        """Why the work should end now: `cancel`, `preempt` (save, then go) or `lost` (another owner)."""
        return self._stop

    def check(self) -> None:
        """Raises Cancelled, Preempted or LeaseLost when the work should end."""
        raise_stop(self._stop)

    async def unless_stopped(self, doing: Awaitable[T]) -> T:
        """The result of `doing`, which is cancelled when the work should end; for work that has nothing to save.

        Raises Cancelled, Preempted or LeaseLost then.
        """
        task = asyncio.ensure_future(doing)
        stop = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise_stop(self._stop)
            return await task
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    @contextlib.asynccontextmanager
    async def time_limit(self, within: timedelta) -> AsyncIterator[None]:
        """Cancels the block when it takes longer, and raises StepTimedOut: a failed attempt, which is tried again."""
        try:
            async with asyncio.timeout(within.total_seconds()) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            step = self.command.step
            raise StepTimedOut(
                f"the {step} step was not done within {within.total_seconds():g} s",
                setting=f"STEP_TIMEOUT_{step.upper()}",
            ) from error

    async def stopped(self) -> Stop:
        """Waits until the work should end."""
        await self._stopped.wait()
        assert self._stop is not None
        return self._stop

    def report(self, fraction: float, **fields: Any) -> None:
        """Tells people how far the step is: `fraction` 0-1 and any field of StepProgress."""
        progress = StepProgress(
            job_id=self.command.job_id,
            step=self.command.step,
            fraction=fraction,
            worker=self.worker_id,
            token=self.token,
            **fields,
        )

        def put() -> None:
            self.latest_progress = progress
            self.progress_waits.set()

        self._loop.call_soon_threadsafe(put)

    def mark(self, mark: str) -> None:
        """Says that the work has got somewhere: a worker that dies later was not killed by this command at once."""

        def put() -> None:
            self.latest_mark = mark
            self.marked.set()

        self._loop.call_soon_threadsafe(put)

    def end(self, why: Stop) -> None:
        if self._stop is None or why == "lost":
            self._stop = why
            self._stopped.set()


def raise_stop(why: Stop | None) -> None:
    """The exception that stands for a reason to stop; nothing for None."""
    if why == "cancel":
        raise Cancelled
    if why == "preempt":
        raise Preempted
    if why == "lost":
        raise LeaseLost


@contextlib.contextmanager
def volumes_named() -> Iterator[None]:
    """A full disk, and a volume that is away or read-only, are named and tried again: another day, or another node."""
    try:
        yield
    except OSError as error:
        where = f"{error.strerror} ({error.filename or 'data volume'})"
        if error.errno in NO_SPACE:
            raise StorageFull(f"writing stopped: {where}") from error
        if error.errno in NO_VOLUME:
            raise TryAgain(Unavailable(f"a volume cannot be used: {where}")) from error
        raise
