"""How does a worker keep a training run in a child process, and tell truthfully how it ended? No torch in here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from libs.common.errors import PlatformError, TrainingCrashed, WorkFailed

Ending = Literal["completed", "cancelled", "preempted", "failed", "crashed"]
_LONGEST_LINE = 1 << 20
_EXIT_ERROR = 10
_EXIT_ORPHANED = 30


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    completed  `result` holds `TrainingResult.as_dict()`
    cancelled, preempted  it stopped as asked, with a checkpoint
    failed     it refused or gave up and said why: `error`
    crashed    it ended without a word (a signal, the kernel for want of memory, a hang): `error` is TrainingCrashed
    """

    ending: Ending
    returncode: int
    result: dict[str, Any] | None = None
    error: PlatformError | None = None
    stderr_tail: list[str] = field(default_factory=list)


class TrainingChild:
    """A training run in a process of its own.

    Use inside one event loop that runs in a thread which lives as long as the worker: the kernel kills the child when
    that thread ends. `async for line in child.progress()` yields progress dicts until the child ends; `wait` gives the
    outcome. A child that says nothing for `silence` seconds, or makes no step for `stall` seconds, is killed as hung.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        silence: float = 60.0,
        stall: float = 1800.0,
        start_silence: float = 180.0,
    ) -> None:
        """`inputs`: paths as text (experiment, run, filelist, earlier, bases); `config`: `TrainingConfig.as_dict()`.

        `command`: default is the training's own, started by torchrun when the configuration has several `processes`.
        """
        self._job = {"inputs": dict(inputs), "config": dict(config)}
        self._processes = int(config.get("processes") or 1)
        self._command = list(command) if command is not None else torchrun(self._processes)
        self._environment = dict(environment if environment is not None else os.environ)
        self._silence = silence
        self._start_silence = start_silence
        self._stall = stall
        self._process: asyncio.subprocess.Process | None = None
        self._lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(maxsize=100)
        self._tail: deque[str] = deque(maxlen=40)
        self._last: dict[str, Any] = {}
        self._killed_because: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._oom_before = 0

    @property
    def job(self) -> dict[str, Any]:
        """What the process is told: `inputs` and `config`."""
        return self._job

    @property
    def pid(self) -> int:
        """The child's process id."""
        assert self._process is not None, "start() first"
        return self._process.pid

    async def start(self) -> None:
        """Start the process; it ends when this one does."""
        folder = Path(self._job["inputs"]["run"])
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix="job-", suffix=".json", delete=False) as stream:
            json.dump(self._job, stream)
        self._oom_before = _oom_kills()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stream.name,
            "--parent",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C in a terminal is the worker's to handle
            limit=_LONGEST_LINE,
        )
        self._tasks = [
            asyncio.create_task(self._read_lines(Path(stream.name))),
            asyncio.create_task(self._read_stderr()),
        ]

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Progress dicts (`Progress.as_dict()`) until the child ends. For one reader."""
        while (line := await self._lines.get()) is not None:
            yield line

    async def cancel(self) -> None:
        """Ask it to write a checkpoint and end; the outcome is `cancelled`."""
        await self._ask("cancel")

    async def preempt(self) -> None:
        """Ask it to write a checkpoint and end, because this worker must go; the outcome is `preempted`."""
        await self._ask("preempt")

    def kill(self, because: str = "it was killed by its worker") -> None:
        """End it at once, without a checkpoint."""
        if self._process is not None and self._process.returncode is None:
            self._killed_because = self._killed_because or because
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def wait(self) -> Outcome:
        """How it ended. May be called without reading `progress`, and more than once."""
        assert self._process is not None, "start() first"
        await asyncio.gather(*self._tasks)
        return self._outcome(await self._process.wait())

    def _outcome(self, returncode: int) -> Outcome:
        kind, tail = self._last.get("kind"), list(self._tail)
        if kind == "result" and returncode == 0:
            return Outcome("completed", returncode, result=self._last["result"], stderr_tail=tail)
        if kind == "stopped":
            return Outcome(self._last["reason"], returncode, stderr_tail=tail)
        # torchrun ends with a code of its own when a process does
        if kind == "error" and (returncode == _EXIT_ERROR or (self._processes > 1 and returncode > 0)):
            return Outcome("failed", returncode, error=error_from_problem(self._last["problem"]), stderr_tail=tail)
        if returncode == -signal.SIGTERM:  # asked to go before it could listen: nothing was begun, nothing is lost
            return Outcome("preempted", returncode, stderr_tail=tail)
        return Outcome("crashed", returncode, error=TrainingCrashed(self._why(returncode)), stderr_tail=tail)

    def _why(self, returncode: int) -> str:
        if self._killed_because is not None:
            return f"the training process was ended: {self._killed_because}"
        if returncode == -signal.SIGKILL:
            if _oom_kills() > self._oom_before:
                return "the training process was killed by the system because memory ran out"
            return "the training process was killed (SIGKILL); the system does that when memory runs out"
        if returncode < 0:
            return f"the training process was ended by {signal.Signals(-returncode).name}"
        if returncode == _EXIT_ORPHANED:
            return "the training process lost its worker"
        return f"the training process ended with code {returncode} and without a word" + (
            f": {self._tail[-1]}" if self._tail else ""
        )

    async def _ask(self, what: str) -> None:
        assert self._process is not None, "start() first"
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(f"{what}\n".encode())
            await self._process.stdin.drain()

    async def _read_lines(self, job: Path) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        moved, place, patience = time.monotonic(), None, self._start_silence
        try:
            while True:
                try:
                    data = await asyncio.wait_for(self._process.stdout.readline(), patience)
                except TimeoutError:
                    self.kill(f"it said nothing for {patience:g} s")
                    patience = 10.0
                    continue
                if not data:
                    return
                patience = self._silence
                try:
                    line = json.loads(data)
                except ValueError:
                    continue
                self._last = line
                if line.get("kind") != "progress":
                    continue
                if place != (line.get("phase"), line.get("step")):
                    moved, place = time.monotonic(), (line.get("phase"), line.get("step"))
                elif time.monotonic() - moved > self._stall:
                    self.kill(f"it made no step for {self._stall:g} s")
                self._offer(line)
        finally:
            job.unlink(missing_ok=True)
            self._offer(None)

    def _offer(self, line: dict[str, Any] | None) -> None:
        """A reader that is slow, or absent, loses the oldest progress and never holds the child up."""
        if self._lines.full():
            self._lines.get_nowait()
        self._lines.put_nowait(line)

    async def _read_stderr(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(65_536):
            self._tail.extend(line for line in data.decode("utf-8", "replace").splitlines() if line.strip())


def torchrun(processes: int, nodes: int = 1, node: int = 0, meeting: str = "") -> list[str]:
    """What starts `processes` of a training on this node, which is number `node` of `nodes`.

    Several nodes meet at `meeting`, host and port of the first one. On one node a port of its own is found.
    """
    module = ["-m", "libs.voice.training_main"]
    if processes == nodes == 1:
        return [sys.executable, *module]
    host, _, port = meeting.rpartition(":")
    place = ["--nnodes", str(nodes), "--node-rank", str(node), "--master-addr", host, "--master-port", port]
    many = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [sys.executable, *many, *(["--standalone"] if nodes == 1 else place), *module]


def error_from_problem(problem: Mapping[str, Any]) -> PlatformError:
    """The error whose `problem()` this is; WorkFailed for a code that is not known here."""
    kinds: list[type[PlatformError]] = [PlatformError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    chosen = next((kind for kind in kinds if kind.code == problem.get("code")), WorkFailed)
    return chosen(
        str(problem.get("detail", "")),
        field=problem.get("field"),
        actions=tuple(problem.get("suggested_actions", ())),
        retry_after=problem.get("retry_after"),
    )


def _oom_kills() -> int:
    """How often the kernel killed a process of this container for want of memory (cgroup v2); 0 if unknown."""
    try:
        text = Path("/sys/fs/cgroup/memory.events").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
