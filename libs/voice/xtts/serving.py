"""How does a voice speak in a process of its own? `python -m libs.voice.xtts.serving --parent PID`

in   stdin, JSON lines: an `Order` of process.py with its "id", or {"cancel": id}; its end means that the parent is gone
out  stdout, JSON lines, first {"kind": "ready"} or {"kind": "missing", "packages"}, then one for each order:
     {"kind": "sound", "id", "ended", "bytes"} followed by so many bytes of float32 at 24 kHz ·
     {"kind": "too_long", "id"} · {"kind": "cancelled", "id"} · {"kind": "error", "id", "problem"}
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
from pathlib import Path
from typing import Any

from libs.voice.parent_watch import die_with_parent, watch_pipe
from libs.voice.xtts.base import missing_packages


class Parent:
    """The way out: a line, and the bytes that belong to it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, kind: str, content: bytes = b"", **values: Any) -> None:
        """All of it; a parent that is gone is noticed by whoever reads its pipe."""
        data = (json.dumps({"kind": kind, **values}) + "\n").encode() + content
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BrokenPipeError:
            return


def main(arguments: list[str] | None = None) -> None:
    """Speaks until the parent is gone or ends it."""
    parser = argparse.ArgumentParser(prog="python -m libs.voice.xtts.serving", description="Speak with XTTS voices.")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process id without which this one ends")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: all cores")
    parser.add_argument("--voices", type=int, default=1, help="voices that are kept loaded")
    options = parser.parse_args(arguments)

    die_with_parent(options.parent)
    parent = Parent(os.dup(1))
    os.dup2(2, 1)  # whatever a library prints
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled: set[int] = set()

    def listen(line: str) -> None:
        order = json.loads(line)
        if "cancel" in order:
            cancelled.add(int(order["cancel"]))
        else:
            orders.put(order)

    watch_pipe(0, listen)
    if missing := missing_packages():
        parent.say("missing", packages=missing)
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see docs/decisions/0045
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # whatever a library looks for, it is here or nowhere
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    from libs.voice.xtts.speaking import Speakers

    speakers = Speakers(options.voices, options.device)
    parent.say("ready")
    while True:
        order = orders.get()
        answer(order, speakers, parent, lambda number=order["id"]: number in cancelled)
        cancelled.discard(order["id"])


def answer(order: dict[str, Any], speakers: Any, parent: Parent, stop: Any) -> None:
    """One order, and what became of it; whatever goes wrong is told, and the process goes on."""
    import numpy as np

    from libs.common.errors import Cancelled, PlatformError, SynthesisFailed
    from libs.voice.xtts.speaking import TooManyTokens

    try:
        if stop():
            raise Cancelled
        speaker = speakers.get(order["key"], Path(order["folder"]), order["weights"])
        said = {name: order[name] for name in ("speed", "temperature", "seed", "seconds")}
        whose = speaker.imitated(Path(order["reference"])) if order.get("reference") else speaker.own()
        wave, ended = speaker.say(order["text"], order["language"], whose, stop=stop, **said)
    except Cancelled:
        parent.say("cancelled", id=order["id"])
    except TooManyTokens:
        parent.say("too_long", id=order["id"])
    except PlatformError as error:
        parent.say("error", id=order["id"], problem=error.problem())
    except Exception as error:
        import traceback

        traceback.print_exc()
        fault = SynthesisFailed(f"{type(error).__name__}: {error}")
        parent.say("error", id=order["id"], problem=fault.problem())
    else:
        content = np.ascontiguousarray(wave, dtype="<f4").tobytes()
        parent.say("sound", content, id=order["id"], ended=ended, bytes=len(content))


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)
