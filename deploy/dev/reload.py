"""Runs `python ARGUMENTS…` and starts it again whenever a Python file beside this one changes. For development only.

A program that ends by itself is started again at the next change, so that a typing error costs no container.
Times of files are compared, because changes in a mounted folder do not always reach a container as events.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent
EVERY = 0.7
PATIENCE = 30.0


def state() -> dict[str, int]:
    """The time of each Python file; one that vanishes while we look has changed."""
    found = {}
    for path in ROOT.rglob("*.py"):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except OSError:
            continue
    return found


def end(child: subprocess.Popen[bytes]) -> int:
    """SIGTERM, so that it saves what it has in hand; SIGKILL when it does not end."""
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main(arguments: list[str]) -> int:
    asked: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    while True:
        seen = state()
        child = subprocess.Popen([sys.executable, *arguments])
        told = False
        while not asked and state() == seen:
            if child.poll() is not None and not told:
                told = True
                print(f"reload: ended with status {child.returncode}; waiting for a change", flush=True)
            time.sleep(EVERY)
        status = end(child)
        if asked:
            return status
        print("reload: the source has changed", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("use: python reload.py -m MODULE")
    sys.exit(main(sys.argv[1:]))
