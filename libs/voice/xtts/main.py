"""How does XTTS live in a process of its own? `python -m libs.voice.xtts.main JOB.json --parent PID`

It talks as libs/voice/training_main.py does: progress and the end as JSON lines, `cancel` and `preempt` on stdin. The
interpreter may be another one than the service's (XTTS_PYTHON): coqui-tts need not be in the same environment.
`{"inputs": {"task": "train" | "try" | "transcribe", …}, "config": {…}}`
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from libs.voice.parent_watch import die_with_parent, watch_pipe
from libs.voice.training_main import EXIT_CANCELLED, EXIT_COMPLETED, EXIT_ERROR, EXIT_PREEMPTED, Voice


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m libs.voice.xtts.main", description="Fine-tune or try one voice.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process id without which this one ends")
    options = parser.parse_args(arguments)

    die_with_parent(options.parent)
    voice = Voice(os.dup(1))
    os.dup2(2, 1)
    asked: list[str] = []
    watch_pipe(0, lambda line: asked.append(line) if line in ("cancel", "preempt") else None)
    signal.signal(signal.SIGTERM, lambda *_: asked.append("preempt"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return run_job(options.job, voice, asked)


def run_job(path: Path, voice: Voice, asked: list[str]) -> int:
    """Does what the job file says, and tells the end in the last line."""
    from libs.common.errors import Cancelled, InvalidInput, PlatformError, Preempted, TrainingCrashed

    try:
        job = json.loads(path.read_text(encoding="utf-8"))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see docs/decisions/0045
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # whatever a library looks for, it is here or nowhere
        result = {"train": _train, "try": _try, "transcribe": _transcribe}[job["inputs"]["task"]](job, voice, asked)
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
        voice.say("error", problem=InvalidInput(f"the job {path.name} cannot be used: {error!r}").problem())
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
    voice.say("result", result=result)
    return EXIT_COMPLETED


def _train(job: dict[str, Any], voice: Voice, asked: list[str]) -> dict[str, Any]:
    from libs.voice.training_run import StopReason
    from libs.voice.xtts.base import BaseModel
    from libs.voice.xtts.config import FineTuning
    from libs.voice.xtts.sides import read_checked
    from libs.voice.xtts.training import Inputs, train

    given = job["inputs"]
    config = FineTuning.from_dict(job["config"])

    def should_stop() -> StopReason | None:
        if "cancel" in asked:
            return StopReason.CANCEL
        return StopReason.PREEMPT if asked else None

    inputs = Inputs(
        base=BaseModel(Path(given["base"])),
        clips=read_checked(Path(given["checked"])),
        wavs=Path(given["wavs"]),
        run=Path(given["run"]),
        earlier=tuple(Path(folder) for folder in given.get("earlier", ())),
    )
    return train(inputs, config, lambda progress: voice.say("progress", **progress.as_dict()), should_stop)


def _try(job: dict[str, Any], voice: Voice, asked: list[str]) -> dict[str, Any]:
    from libs.voice.progress import Progress, Reporter
    from libs.voice.xtts.exporting import try_voice

    given = job["inputs"]
    with Reporter(lambda progress: voice.say("progress", **progress.as_dict())) as reporter:
        reporter.tell(Progress("validate"), now=True)
        return dict(try_voice(Path(given["voice"]), given["weights"], given["text"], given["language"]))


def _transcribe(job: dict[str, Any], voice: Voice, asked: list[str]) -> dict[str, Any]:
    """Writes what is said in each of `wavs` to `output`: {checksum: text}."""
    from libs.audio.decode import decode
    from libs.audio.resample import resample
    from libs.common.errors import Cancelled, InvalidInput, Preempted
    from libs.voice.atomic import write_text_atomically
    from libs.voice.progress import Progress, Reporter
    from libs.voice.transcribing import RATE, Transcriber

    given = job["inputs"]
    wavs = [Path(each) for each in given["wavs"]]
    texts: dict[str, str] = {}
    with Reporter(lambda progress: voice.say("progress", **progress.as_dict())) as reporter:
        reporter.tell(Progress("prepare", total_steps=len(wavs)), now=True)
        transcriber = Transcriber(Path(given["model"]), job["config"].get("threads"))
        for number, wav in enumerate(wavs):
            if asked:
                raise (Cancelled if "cancel" in asked else Preempted)(f"after {number} of {len(wavs)} recordings")
            try:
                sound = decode(wav)
            except InvalidInput:  # the check that follows says so
                continue
            texts[wav.stem] = transcriber.text_of(resample(sound.wave, sound.sample_rate, RATE), given["language"])
            reporter.tell(Progress("prepare", step=number + 1, total_steps=len(wavs)))
    write_text_atomically(Path(given["output"]), json.dumps(texts))
    return {"texts": len(texts)}


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
