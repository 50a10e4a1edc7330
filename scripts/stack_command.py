"""`python -m scripts.stack`: what can a person ask of a stack on this machine? up, status, down."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from scripts import processes
from scripts.stack import NEEDS, PORTS, PROJECT, SERVICES, Stack
from scripts.stack_members import StackError, read_state


class Asked(BaseException):
    """A signal asks for the end."""


def say(text: str) -> None:
    print(text, flush=True)


def listen_for_signals() -> None:
    """SIGINT and SIGTERM both end what runs now; a second one does not disturb the stopping."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Asked(signal.Signals(number).name)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def with_needs(names: list[str]) -> list[str]:
    """`names` and what they need."""
    wanted = set(names)
    for name in names:
        wanted |= set(NEEDS[name])
    return [service for service in SERVICES if service in wanted]


def tell_ended(stack: Stack, told: set[str]) -> set[str]:
    """Says which parts ended by themselves and are not in `told` yet; returns those."""
    news = {name: how for name, how in stack.ended().items() if name not in told}
    for name, how in news.items():
        say(f"{name} ended with {how}; the others go on. Log: {stack.log(name)}")
        if name != "nats":
            say(f"start it again with: scripts/service-up.sh {name}")
    told |= news.keys()
    return set(news)


def start_broker_again(stack: Stack, told: set[str]) -> None:
    """Starts the stack's own broker again, on its port and with its store, for no service can join in its place."""
    try:
        stack.restart("nats")
    except StackError as error:
        say(f"nats cannot be started again: {error}\nstop everything with Ctrl-C, mend that, and start anew")
    else:
        told.discard("nats")
        say("nats was started again, with everything that it had kept")


def up(root: Path, services: list[str], ports: str) -> int:
    """Runs the stack until Ctrl-C, SIGTERM or the end of this process; says when a part ends by itself."""
    listen_for_signals()
    joined: dict[str, Any] | None = read_state(root)
    environment: dict[str, str] = {}
    nats_url = os.environ.get("NATS_URL")
    wanted: dict[str, int] = PORTS
    secrets_file = PROJECT / ".env" if (PROJECT / ".env").is_file() and root == PROJECT / "var" else None
    if joined is not None:
        running = joined["members"]
        missing = [s for s in services if s not in running or not processes.is_alive(running[s]["pid"])]
        if not missing:
            say("already running: " + ", ".join(f"{s} on {running[s]['url']}" for s in services))
            return 0
        # The same data, broker and secrets as the stack that runs; a folder of its own for what this process writes.
        nats_url = joined["nats_url"]
        secrets_file = Path(joined["secrets"])
        environment = {
            "DATA_ROOT": str(root / "data"),
            "MODELS_ROOT": str(root / "models"),
            "DATABASE_URL": f"sqlite+aiosqlite:///{root / 'gateway.db'}",
            "STORAGE_URL": (root / "objects").as_uri(),
        }
        environment |= {
            f"{s.upper()}_URL": running[s]["url"] for s in running if s in ("gateway", "ingest", "inference")
        }
        # Where it was before, others still look for it.
        wanted = PORTS | {s: running[s]["port"] for s in missing if s in running}
        services, root = missing, root / "joined" / missing[-1]
    stack = Stack(
        root,
        services=services,
        ports="free" if ports == "free" else wanted,
        nats_url=nats_url,
        environment=environment,
        secrets_file=secrets_file,
        say=say,
    )
    told: set[str] = set()
    try:
        stack.start()
        if "gateway" in stack.members:
            url = stack.url("gateway")
            say(f"API {url}/api/v1 · docs {url}/docs")
            say(f"first login {stack.secrets['ADMIN_EMAIL']}, its password is ADMIN_PASSWORD in {stack.secrets_file}")
        say(f"logs in {stack.root / 'log'} · stop with Ctrl-C")
        while True:
            time.sleep(0.5)
            if "nats" in tell_ended(stack, told):
                start_broker_again(stack, told)
            if stack.members and len(told) == len(stack.members):
                say("nothing runs any more")
                return 1
    except Asked as asked:
        tell_ended(stack, told)
        say(f"{asked}: stopping")
        return 0
    except StackError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    finally:
        stack.stop()
        say("everything is stopped")


def status(root: Path) -> int:
    """Prints what runs in `root`; status 1 when nothing does."""
    state: dict[str, Any] | None = read_state(root)
    if state is None:
        say(f"nothing runs in {root}")
        return 1
    for name, member in state["members"].items():
        alive = "runs" if processes.is_alive(member["pid"]) else "ended"
        say(f"{name:14} {alive:6} {member['url']:28} pid {member['pid']:<8} {member['log']}")
    return 0


def down(root: Path) -> int:
    """Asks the supervisor of `root` to stop everything, and waits."""
    state: dict[str, Any] | None = read_state(root)
    if state is None:
        say(f"nothing runs in {root}")
        return 0
    supervisor = int(state["supervisor"])
    processes.send([supervisor], signal.SIGTERM)
    if processes.wait_gone([supervisor], 60):
        print(f"stack: process {supervisor} does not stop", file=sys.stderr)
        return 1
    say("everything is stopped")
    return 0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.stack", description=__doc__)
    parser.add_argument("deed", choices=("up", "status", "down"))
    parser.add_argument("--root", type=Path, default=PROJECT / "var", help="where everything is kept (default: var)")
    parser.add_argument("--only", action="append", choices=SERVICES, help="this service and what it needs; repeatable")
    parser.add_argument("--alone", action="store_true", help="with --only: without what it needs")
    parser.add_argument("--ports", choices=("default", "free"), default="default")
    options = parser.parse_args(arguments)
    root = options.root.absolute()
    if options.deed != "up":
        raise SystemExit(status(root) if options.deed == "status" else down(root))
    chosen = options.only or list(SERVICES)
    raise SystemExit(up(root, chosen if options.alone else with_needs(chosen), options.ports))
