"""What runs in ingest's own processes? One recording after the other is decoded, measured and written as WAV.

`python -m services.ingest.examiner MEMORY_BYTES` reads one request as JSON per line and answers each with one line.
What decodes hostile files has a process to itself: it may crash, hang or be killed without harm to the service.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from libs.audio.report import Limits
from libs.audio.transcode import transcode
from libs.common.errors import BrokenAudio, PlatformError, WorkFailed

PARENT_CHECK_SECONDS = 0.5


def examine(request: dict[str, Any]) -> dict[str, Any]:
    """`{"source", "wav", "min_seconds", "max_seconds"}` → `{"report": …}`, or `{"problem": …}` when it is refused."""
    limits = Limits(max_seconds=request["max_seconds"], min_seconds=request["min_seconds"])
    try:
        return {"report": transcode(Path(request["source"]), Path(request["wav"]), limits=limits).to_dict()}
    except PlatformError as error:
        return {"problem": error.problem()}
    except MemoryError:
        greedy = BrokenAudio("The recording needs more memory to be decoded than one recording may take.", field="file")
        return {"problem": greedy.problem()}
    except Exception as error:
        print(f"ingest examiner: {type(error).__name__}", file=sys.stderr)
        return {"problem": WorkFailed("The recording could not be examined; send it as WAV.", field="file").problem()}


def main() -> None:
    memory = int(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Answers have a channel of their own: what a library prints must not be taken for one.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    for line in sys.stdin:
        print(json.dumps(examine(json.loads(line))), file=answers, flush=True)


def _leave_with_parent(parent: int) -> None:
    """A killed service leaves no process that computes on."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
