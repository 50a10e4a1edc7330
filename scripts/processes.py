"""How are processes started, found and ended so that none is left behind? Linux's means, the standard library alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

MARKER = "VOICEWRIGHT_STACK"
_PR_SET_PDEATHSIG = 1
_SERVER_PORTS = (12_000, 32_000)
"""Below Linux's, the BSDs' and IANA's ranges of ephemeral ports."""
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now.

    Not one of those that the system gives to outgoing connections: such a port may be taken by one of them before its
    server is up. Drawn at random, so that two who ask at the same time are hardly ever told the same.
    """
    while True:
        port = random.SystemRandom().randrange(*_SERVER_PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether a server could bind `port` of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_program(name: str) -> str | None:
    """The path of `name`, also where Debian keeps servers and ordinary users do not look."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin")


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Starts `command` in a session of its own, its output appended to `log`.

    The process is killed when the thread that started it ends (parent-death signal), so a supervisor that is killed
    leaves nothing behind; a Ctrl-C at the terminal reaches the supervisor alone.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it went away before the line above
                os._exit(1)

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def status(pid: int) -> str:
    """The state letter of a process, or '' when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether `pid` runs (a zombie does not)."""
    return status(pid) not in ("", "Z", "X")


def marked(marker: str) -> list[int]:
    """Every living process, this one apart, that was started under `marker`, also grandchildren that were orphaned."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and is_alive(int(folder.name)):
                found.append(int(folder.name))
    return found


def descendants(pid: int) -> list[int]:
    """The children of `pid` and theirs."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def send(pids: Iterable[int], sign: signal.Signals) -> None:
    """Sends `sign` to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)


def wait_gone(pids: Iterable[int], seconds: float) -> list[int]:
    """Waits until none of `pids` is alive, at most `seconds`; returns those that still are."""
    end = time.monotonic() + seconds
    left = [pid for pid in pids if is_alive(pid)]
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = [pid for pid in left if is_alive(pid)]
    return left


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log."""
    if not path.is_file():
        return "(no log)"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"
