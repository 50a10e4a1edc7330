"""How does a child process make sure that it does not outlive its parent?

Twice: the kernel is asked to kill it when the parent ends (Linux), and a thread reads the pipe that only the parent
holds open.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

EXIT_ORPHANED = 30
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent is gone; ends at once if `parent` (a process id) is gone already.

    The kernel means the parent's *thread* that started this process: start children from a thread that lives on.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_ORPHANED)


def watch_pipe(descriptor: int, on_line: Callable[[str], None]) -> threading.Thread:
    """Read lines from `descriptor` in a thread; at its end this process ends at once, whatever it is doing.

    `os._exit`, because a step of training may hold the main thread for minutes and nothing is left to tidy: files are
    written under temporary names.
    """

    def watch() -> None:
        rest = b""
        while True:
            try:
                data = os.read(descriptor, 4096)
            except InterruptedError:
                continue
            except OSError:
                data = b""
            if not data:
                os._exit(EXIT_ORPHANED)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                on_line(line.decode("utf-8", "replace").strip())

    thread = threading.Thread(target=watch, name="parent", daemon=True)
    thread.start()
    return thread
