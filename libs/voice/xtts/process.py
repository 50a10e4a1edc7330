"""How does a service speak with an interpreter that is not its own? One process, started when needed. No torch here.

It is kept warm, and ended when nobody has spoken for a while, because a voice has gigabytes. What a caller no longer
wants is ended between two codes; a process that dies or hangs costs the piece in hand, and the next one starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from libs.common.errors import ProviderUnavailable, SynthesisFailed, Unavailable
from libs.voice.child import error_from_problem
from libs.voice.xtts.guards import Wave

ROOT = Path(__file__).resolve().parents[3]
_GOING = 1.0
"""Seconds that a process which says nothing more has to end by itself."""
HOW = "Run scripts/install-xtts where inference runs, and set XTTS_PYTHON as it says."


@dataclass(frozen=True)
class Order:
    """A piece of text and how it is said. `key` stands for a version's files; `seconds`: at most, at speed 1.

    `reference`: a WAV whose speaker is imitated; without one it is the version's own.
    """

    key: str
    folder: str
    weights: str
    text: str
    language: str
    speed: float
    temperature: float
    seed: int
    seconds: float
    reference: str = ""


@dataclass(frozen=True)
class Sound:
    """What a process made: float32 `[T]` at 24 kHz, and whether it ended by itself."""

    wave: Wave
    has_ended: bool


class TooLong(Exception):
    """The piece has more tokens than the network takes at once."""


class SpeakingProcess:
    """Pieces in the order in which they are asked for, one at a time. Use inside one event loop."""

    def __init__(
        self,
        python: Path | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        voices: int = 1,
        idle: float = 600.0,
        limit: float = 300.0,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`python`: an interpreter with coqui-tts, None for this one. `idle`, `limit`: seconds until a process that
        nobody needs is ended, and until a piece, its voice's loading included, counts as hung.
        """
        options = ["--device", device, "--threads", str(threads or 0), "--voices", str(voices)]
        own = [str(python or sys.executable), "-m", "libs.voice.xtts.serving", *options]
        self._command = list(command) if command is not None else own
        self._environment = dict(os.environ if environment is None else environment)
        there = self._environment.get("PYTHONPATH", "")
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), there)))
        self._idle, self._limit = idle, limit
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: list[asyncio.Task[None]] = []
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._tail: deque[str] = deque(maxlen=20)
        self._sleep: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, None while there is none."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else None

    async def say(self, order: Order) -> Sound:
        """The sound of one piece. Raises TooLong, ProviderUnavailable (the library is not there), SynthesisFailed,
        ModelFileRefused and whatever else the process says. A caller that is cancelled ends the piece.
        """
        async with self._turn:
            self._stay()
            try:
                await self._started()
                answer, content = await self._asked(next(self._numbers), asdict(order))
            finally:
                self._sleep = asyncio.get_running_loop().call_later(self._idle, self._end)
        if answer["kind"] == "too_long":
            raise TooLong
        if answer["kind"] == "error":
            raise error_from_problem(answer["problem"])
        if answer["kind"] != "sound":
            raise SynthesisFailed(f"the process that speaks answered {answer['kind']}")
        return Sound(np.frombuffer(content, dtype="<f4").astype(np.float32), bool(answer["ended"]))

    async def close(self) -> None:
        """Ends the process and waits for its end."""
        self._stay()
        self._end()
        if self._process is not None:
            await self._process.wait()
        await asyncio.gather(*self._reading, return_exceptions=True)

    # -- the process --------------------------------------------------------------------------------------------------

    async def _started(self) -> None:
        if self.pid is None:
            await self._start()
        # a caller that goes away while it starts leaves the word of it to the next one
        first, _ = await self._answer(asyncio.shield(self._waiting[0]))
        if first["kind"] == "missing":
            named = ", ".join(first["packages"])
            raise ProviderUnavailable(
                f"the library that speaks is not installed: {named}", actions=(HOW,), missing=list(first["packages"])
            )

    async def _start(self) -> None:
        await asyncio.gather(*self._reading, return_exceptions=True)
        self._tail.clear()
        self._waiting = {0: asyncio.get_running_loop().create_future()}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--parent",
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ProviderUnavailable(
                f"the interpreter of XTTS_PYTHON does not start: {error.strerror}",
                actions=(HOW,),
                missing=["coqui-tts"],
            ) from error
        self._reading = [
            asyncio.create_task(self._read(self._process)),
            asyncio.create_task(self._read_words(self._process)),
        ]

    async def _asked(self, number: int, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._tell({"id": number, **order})
        try:
            return await self._answer(self._waiting[number])
        except asyncio.CancelledError:
            await asyncio.shield(self._tell({"cancel": number}))
            raise
        finally:
            self._waiting.pop(number, None)

    async def _answer(self, future: asyncio.Future[tuple[dict[str, Any], bytes]]) -> tuple[dict[str, Any], bytes]:
        try:
            return await asyncio.wait_for(future, self._limit)
        except TimeoutError:
            self._end()
            raise SynthesisFailed(f"nothing was said within {self._limit:g} s") from None

    async def _tell(self, what: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write((json.dumps(what) + "\n").encode())
            await self._process.stdin.drain()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Gives every answer to whoever waits for it; an end of the process to all of them."""
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                answer = json.loads(line)
                content = await process.stdout.readexactly(answer.get("bytes", 0))
                future = self._waiting.get(answer.get("id", 0))
                if future is not None and not future.done():
                    future.set_result((answer, content))
        except (ValueError, asyncio.IncompleteReadError):
            pass  # it broke off, or said what is none of this: it has nothing more to say
        # It is about to end. A kill looks first whether it has ended, and whoever sees that takes the code with it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOING):
                await process.wait()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        code = await process.wait()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._lost(code))
                future.exception()  # looked at: its caller may be gone

    async def _read_words(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(65_536):
            self._tail.extend(line for line in data.decode("utf-8", "replace").splitlines() if line.strip())

    def _lost(self, code: int) -> Unavailable | SynthesisFailed:
        said = f": {self._tail[-1][:200]}" if self._tail else ""
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return SynthesisFailed(f"the process that speaks {how}{said}")

    def _stay(self) -> None:
        if self._sleep is not None:
            self._sleep.cancel()
            self._sleep = None

    def _end(self) -> None:
        if self.pid is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
