"""Who examines recordings? A few processes, begun when they are needed, replaced when they die, ended when idle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from libs.common.errors import BrokenAudio, StorageFull, Unavailable
from libs.common.logs import get_logger
from libs.common.tasks import end
from services.ingest.settings import IngestSettings

log = get_logger("ingest.examiners")

_ANSWER_BYTES = 4 * 1024 * 1024
_PROJECT = Path(__file__).resolve().parents[2]


class Refused(Exception):
    """The recording is not accepted; `problem` says why."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "")))
        self.problem = problem


class _Died(Exception):
    """The process ended before it answered."""


class _Process:
    """One examiner process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.idle_since = time.monotonic()

    @classmethod
    async def start(cls, memory: int) -> _Process:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.ingest.examiner", str(memory)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment,
                cwd=_PROJECT,
                limit=_ANSWER_BYTES,
            )
        )

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One answer for one request; raises _Died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
            answer: dict[str, Any] = json.loads(await self._process.stdout.readuntil())
        except (OSError, asyncio.IncompleteReadError) as error:
            raise _Died from error
        self.idle_since = time.monotonic()
        return answer

    async def end(self) -> None:
        """Kills it and waits for its end; nothing half-written has a name that anybody looks for."""
        assert self._process.stdin is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.stdin.close()
        await self._process.wait()


class Examiners:
    """Examines recordings, as many at a time as there are processes."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.examiners)
        self._idle: list[_Process] = []
        self._tidying: asyncio.Task[None] | None = None

    async def examine(self, source: Path, wav: Path) -> dict[str, Any]:
        """Writes `source` as 22050 Hz mono WAV to `wav` and returns its report as JSON.

        Raises Refused with the recording's problem, StorageFull, and Unavailable when processes that examine this file
        die again and again (out of memory, a crash in a decoder).
        """
        request = {
            "source": str(source),
            "wav": str(wav),
            "min_seconds": self._settings.upload_min_seconds.total_seconds(),
            "max_seconds": self._settings.upload_max_seconds.total_seconds(),
        }
        async with self._turns:
            for _ in range(2):  # a process may have died for another reason than this file
                with contextlib.suppress(_Died):
                    return self._opened(await self._ask(request))
        raise Unavailable(
            "the process that examined the recording was ended twice, perhaps because memory ran out",
            field="file",
            actions=("Send this file again later, or convert it to WAV.",),
        )

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._tidying = self._tidying or asyncio.create_task(self._tidy(), name="examiners.tidy")
        process = await self._take() or await _Process.start(int(self._settings.examiner_memory))
        limit = self._settings.examine_timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                answer = await process.ask(request)
        except TimeoutError:
            await process.end()
            log.warning("examiner.too_slow", seconds=limit)
            slow = BrokenAudio(f"The recording could not be decoded within {limit:g} s.", field="file")
            return {"problem": slow.problem()}
        except BaseException as error:
            await asyncio.shield(process.end())
            log.warning("examiner.ended", reason=type(error).__name__)
            raise
        self._idle.append(process)
        return answer

    async def _take(self) -> _Process | None:
        """An idle process that still lives; those that were ended while they waited cost no file."""
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            await process.end()
        return None

    def _opened(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "report" in answer:
            report: dict[str, Any] = answer["report"]
            return report
        problem: dict[str, Any] = answer["problem"]
        if problem["code"] == StorageFull.code:
            raise StorageFull(problem["detail"])
        raise Refused(problem)

    async def _tidy(self) -> None:
        """Ends processes that nobody needed for a while: an idle service is small."""
        keep: timedelta = self._settings.examiner_idle
        while True:
            await asyncio.sleep(keep.total_seconds() / 2)
            before = time.monotonic() - keep.total_seconds()
            for process in [p for p in self._idle if p.idle_since < before]:
                self._idle.remove(process)
                await process.end()

    async def close(self) -> None:
        """Ends all processes."""
        if self._tidying is not None:
            await end([self._tidying])
        while self._idle:
            await self._idle.pop().end()
