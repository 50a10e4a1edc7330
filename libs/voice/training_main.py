"""How does a training run live in a process of its own? `python -m libs.voice.training_main JOB.json --parent PID`

With `processes` above 1 in the configuration, torchrun starts this module once per process; the first one talks, and
all of them end when torchrun or its parent is gone.

in   stdin: lines `cancel` or `preempt`; its end means that the parent is gone, and this process ends at once
     SIGTERM: as `preempt`
out  stdout: JSON lines {"kind": "progress" | "result" | "stopped" | "error", …}; the last one says how it ended
exit 0 completed · 10 error, told in the last line · 20 preempted · 21 cancelled · 30 the parent is gone;
     a signal's number, or an exit without a last line, is a crash
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from libs.voice.parent_watch import die_with_parent, watch_pipe

EXIT_COMPLETED = 0
EXIT_ERROR = 10
EXIT_PREEMPTED = 20
EXIT_CANCELLED = 21


class Voice:
    """The way to the parent: whole JSON lines, one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def say(self, kind: str, **values: Any) -> None:
        """One line. A parent that no longer reads is gone: the watching thread deals with that."""
        data = (json.dumps({"kind": kind, **values}) + "\n").encode()
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except BrokenPipeError:
                return


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m libs.voice.training_main", description="Train one voice.")
    parser.add_argument("job", type=Path, help='JSON file: {"inputs": {...}, "config": {...}}')
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process id without which this one ends")
    options = parser.parse_args(arguments)

    # torchrun stands between the worker and this process, and the worker's pipe is everybody's stdin
    die_with_parent(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else options.parent)
    # nothing but our lines may reach the parent: whatever a library prints goes to stderr
    voice = Voice(os.dup(1 if os.environ.get("RANK", "0") == "0" else 2))
    os.dup2(2, 1)
    asked: list[str] = []
    watch_pipe(0, lambda line: asked.append(line) if line in ("cancel", "preempt") else None)
    signal.signal(signal.SIGTERM, lambda *_: asked.append("preempt"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return run_job(options.job, voice, asked)


def run_job(path: Path, voice: Voice, asked: list[str]) -> int:
    """Train as the job file says, and tell the end in the last line."""
    from libs.common.errors import Cancelled, InvalidInput, PlatformError, Preempted, TrainingCrashed

    try:
        job = json.loads(path.read_text(encoding="utf-8"))
        # read when torch is loaded: threads that wait in a loop cost more than the work of a step as soon as another
        # process wants the same cores (measured: 2.6 s instead of 0.2 s per step of `lite`)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from libs.voice.training import StopReason, TrainingInputs, train
        from libs.voice.training_config import TrainingConfig

        given = job["inputs"]
        inputs = TrainingInputs(
            experiment=Path(given["experiment"]),
            run=Path(given["run"]),
            filelist=Path(given["filelist"]) if given.get("filelist") else None,
            earlier=tuple(Path(folder) for folder in given.get("earlier", ())),
            bases=Path(given["bases"]) if given.get("bases") else None,
            encoder=given.get("encoder"),
        )
        config = TrainingConfig.from_dict(job["config"])

        def should_stop() -> StopReason | None:
            # a cancel counts more than the worker's own wish to go
            if "cancel" in asked:
                return StopReason.CANCEL
            return StopReason.PREEMPT if asked else None

        result = train(inputs, config, lambda progress: voice.say("progress", **progress.as_dict()), should_stop)
    except Cancelled as stop:
        voice.say("stopped", reason="cancelled", detail=str(stop))
        return EXIT_CANCELLED
    except Preempted as stop:
        voice.say("stopped", reason="preempted", detail=str(stop))
        return EXIT_PREEMPTED
    except PlatformError as error:
        voice.say("error", problem=error.problem())
        return EXIT_ERROR
    except (json.JSONDecodeError, KeyError, FileNotFoundError) as error:
        refusal = InvalidInput(f"the job file {path.name} cannot be used: {error!r}")
        voice.say("error", problem=refusal.problem())
        return EXIT_ERROR
    except MemoryError:
        voice.say("error", problem=TrainingCrashed("the memory ran out").problem())
        return EXIT_ERROR
    except Exception as error:
        import traceback

        traceback.print_exc()
        fault = TrainingCrashed(f"{type(error).__name__}: {error}")
        voice.say("error", problem=fault.problem() | {"retryable": False})
        return EXIT_ERROR
    voice.say("result", result=result.as_dict())
    return EXIT_COMPLETED


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # no tidying up by torch's threads: everything is on disk and told
    os._exit(code)
