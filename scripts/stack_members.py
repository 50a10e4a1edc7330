"""What does a stack consist of? Processes that say why they are not ready, and a file that tells what runs where."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from scripts import processes


class StackError(RuntimeError):
    """The stack cannot do what was asked; the text says what and where to look."""


@dataclass
class Member:
    """One process of the stack: the broker, or a replica of a service."""

    name: str
    service: str
    command: tuple[str, ...]
    environment: dict[str, str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"{'nats' if self.service == 'nats' else 'http'}://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def not_ready(self) -> str:
        """Why this member cannot work yet; '' when it can."""
        if self.process is None:
            return "not started"
        if (status := self.process.poll()) is not None:
            return f"its process ended with {ending(status)}"
        if self.service == "nats":
            return _broker_not_ready(self.port)
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=6, trust_env=False)
        except httpx.HTTPError as error:
            return f"does not answer on {self.url} yet ({type(error).__name__})"
        if answer.status_code == 200:
            return ""
        return _failed_checks(answer) or f"/readyz answers {answer.status_code}"


def ending(status: int) -> str:
    """How a process ended, for people."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _broker_not_ready(port: int) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.settimeout(2)
            greeting = connection.recv(4096)
    except OSError as error:
        return f"does not answer on port {port} yet ({error})"
    if not greeting.startswith(b"INFO"):
        return f"port {port} belongs to something that is no NATS server"
    return "" if b'"jetstream":true' in greeting else "runs without JetStream"


def _failed_checks(answer: httpx.Response) -> str:
    try:
        checks = answer.json()["checks"]
        return "; ".join(f"{c.get('name')}: {c.get('detail', 'not ready')}" for c in checks if not c.get("ok"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def read_state(root: Path) -> dict[str, object] | None:
    """What `stack.json` of a running stack says; None when none runs there."""
    try:
        state: dict[str, object] = json.loads((root / "stack.json").read_text())
    except (OSError, ValueError):
        return None
    supervisor = state.get("supervisor")
    return state if isinstance(supervisor, int) and processes.is_alive(supervisor) else None
