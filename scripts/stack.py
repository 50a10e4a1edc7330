"""How does the whole platform run on one machine without containers? A broker and the services, watched by one parent.

    stack = Stack(Path("var/demo"))
    with stack:                       # starts, waits until everything is ready; stops everything at the end
        httpx.get(stack.url("gateway") + "/readyz")
        stack.kill("trainer")         # as the kernel would
        stack.restart("trainer")

`python -m scripts.stack --help` is the same from the command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from scripts import processes
from scripts.secret_file import ensure_secrets
from scripts.stack_members import Member, StackError, ending, read_state

PROJECT = Path(__file__).resolve().parent.parent
SERVICES = ("ingest", "preprocessor", "trainer", "inference", "gateway")  # in the order of their start
PORTS = {"gateway": 8000, "ingest": 8001, "trainer": 8002, "preprocessor": 8003, "inference": 8004, "nats": 4222}
# What a service cannot do anything useful without. The gateway answers without workers, but nothing would get done.
NEEDS = {
    "gateway": ("ingest", "inference"),
    "ingest": (),
    "preprocessor": (),
    "trainer": (),
    "inference": (),
}
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "TZ", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES")


class Stack:
    """The broker and services of one folder. Start it from the main thread: the processes end when that thread ends.

    `root` holds everything that the stack writes: data, models, the broker's store, the database, logs, `stack.json`
    and `secrets.env`. Only one stack can use a folder at a time.
    """

    def __init__(
        self,
        root: Path,
        *,
        services: Sequence[str] = SERVICES,
        replicas: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
        ports: Literal["default", "free"] | Mapping[str, int] = "free",
        commands: Mapping[str, Sequence[str]] | None = None,
        nats_url: str | None = None,
        migrate: bool = True,
        secrets_file: Path | None = None,
        ready_timeout: float = 90.0,
        drain: float = 10.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """
        replicas: how many processes of a service; the second trainer is named `trainer-2`.
        environment: settings for every service, over the stack's own.
        ports: "default" takes 8000-8004 and 4222 where they are free; "free" always takes others; a mapping names them.
        commands: another program for a service, e.g. a stand-in in tests; it gets HOST and PORT like the real one.
        nats_url: a broker that already runs; None starts one.
        ready_timeout, drain: seconds for everything to become ready, and to end by itself after SIGTERM.
        """
        unknown = set(services) - set(SERVICES)
        if unknown:
            raise StackError(f"unknown service {', '.join(sorted(unknown))}: known are {', '.join(SERVICES)}")
        self.root = root.absolute()
        self.services = tuple(name for name in SERVICES if name in services)
        self._replicas = dict(replicas or {})
        self._extra = dict(environment or {})
        self._commands = {name: tuple(command) for name, command in (commands or {}).items()}
        self._wanted_ports = PORTS if ports == "default" else {} if ports == "free" else dict(ports)
        self._nats_url = nats_url
        self._migrate = migrate and "gateway" in self.services
        self.secrets_file = secrets_file or self.root / "secrets.env"
        self._ready_timeout = ready_timeout
        self._drain = drain
        self._say = say or (lambda _: None)
        self._marker = f"{self.root}#{secrets.token_hex(6)}"
        self._lock: IO[str] | None = None
        self._was_ready = False
        self._told: set[str] = set()
        self.members: dict[str, Member] = {}
        self.secrets: dict[str, str] = {}

    # -- the whole ----------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> Self:
        """Starts the broker, migrates the database, starts the services; with `wait` returns when all are ready.

        Raises StackError, having stopped everything, with the reason of each part that is not ready.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self.secrets = ensure_secrets(self.secrets_file)
            self._lay_out()
            if "nats" in self.members:
                self._launch(self.members["nats"])
                self.wait_ready("nats", seconds=15)
            if self._migrate:
                self._run_migration()
            for member in self._ordered():
                if member.service != "nats":
                    self._launch(member)
            self._write_state()
            if wait:
                self.wait_ready()
                self._write_state(ready=True)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """SIGTERM to the services, then to the broker; after `drain` seconds SIGKILL to whatever is left."""
        services = [m for m in self.members.values() if m.service != "nats"]
        broker = [m for m in self.members.values() if m.service == "nats"]
        for group, seconds in ((services, self._drain), (broker, 5.0)):
            running = [m.process for m in group if m.process is not None and m.process.poll() is None]
            pids = [process.pid for process in running]
            processes.send(pids, signal.SIGCONT)  # a paused process cannot end by itself
            processes.send(pids, signal.SIGTERM)
            self._reap(seconds, running)
        left = self.leftovers()
        processes.send(left, signal.SIGKILL)
        self._reap(5.0, [m.process for m in self.members.values() if m.process is not None])
        stuck = processes.wait_gone(left, 5.0)
        if self._lock is not None:  # otherwise the folder belongs to another stack
            (self.root / "stack.json").unlink(missing_ok=True)
            self._release_lock()
        if stuck:
            raise StackError(f"processes {stuck} survived SIGKILL")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def leftovers(self) -> list[int]:
        """Every living process that this stack started, directly or not. Empty after `stop`."""
        return processes.marked(self._marker)

    # -- one member ---------------------------------------------------------------------------------------------------

    def url(self, name: str) -> str:
        """`http://127.0.0.1:<port>` of a service; `nats://…` of "nats"."""
        return self._nats_url if name == "nats" and self._nats_url else self._member(name).url

    def pid(self, name: str) -> int:
        """The process id of a running member."""
        process = self._member(name).process
        if process is None or process.poll() is not None:
            raise StackError(f"{name} does not run")
        return process.pid

    def log(self, name: str) -> Path:
        return self._member(name).log

    def is_running(self, name: str) -> bool:
        return self._member(name).is_running

    def kill(self, name: str, *, family: bool = False) -> None:
        """kill -9 of the process alone, as the kernel does it; with `family` of all its children as well."""
        pid = self.pid(name)
        below = processes.descendants(pid) if family else []
        processes.send([pid, *below], signal.SIGKILL)
        self._member(name).process.wait(5)  # type: ignore[union-attr]  # pid() found it running

    def terminate(self, name: str, *, seconds: float = 30.0) -> int:
        """SIGTERM, as an orchestrator does it; waits for the end and returns the exit status."""
        pid = self.pid(name)
        processes.send([pid], signal.SIGTERM)
        process = self._member(name).process
        assert process is not None
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise StackError(f"{name} still runs {seconds:g} s after SIGTERM:\n{self._tail(name)}") from error

    def pause(self, name: str) -> None:
        """SIGSTOP to the process and all its children: it sleeps, and its clock goes on."""
        pid = self.pid(name)
        processes.send([pid, *processes.descendants(pid)], signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT after `pause`."""
        pid = self.pid(name)
        processes.send([pid, *processes.descendants(pid)], signal.SIGCONT)

    def restart(self, name: str, *, wait: bool = True, environment: Mapping[str, str] | None = None) -> None:
        """Starts a member that ended (or ends it first) on its port; `environment` goes over its settings."""
        member = self._member(name)
        if member.is_running:
            self.terminate(name)
        member.environment |= environment or {}
        self._launch(member)
        self._write_state()
        if wait:
            self.wait_ready(name)

    def add(self, service: str, *, wait: bool = True) -> str:
        """One more replica of a service; returns its name."""
        number = 2
        while f"{service}-{number}" in self.members:
            number += 1
        member = self._service_member(f"{service}-{number}", service, processes.free_port())
        self.members[member.name] = member
        self._launch(member)
        self._write_state()
        if wait:
            self.wait_ready(member.name)
        return member.name

    def wait_ready(self, *names: str, seconds: float | None = None) -> None:
        """Waits until the named members (all without names) are ready; raises StackError naming each that is not."""
        limit = self._ready_timeout if seconds is None else seconds
        waiting = {m.name: m for m in self._ordered() if not names or m.name in names}
        end = time.monotonic() + limit
        reasons: dict[str, str] = {}
        while waiting:
            for name, member in list(waiting.items()):
                reasons[name] = member.not_ready()
                if not reasons[name]:
                    if name not in self._told:
                        self._told.add(name)
                        self._say(f"{name} is ready: {member.url}")
                    del waiting[name]
            ended = [name for name, member in waiting.items() if not member.is_running]
            if waiting and (ended or time.monotonic() > end):
                reasons |= {name: self.members[name].not_ready() for name in ended}
                raise StackError(self._report({name: reasons[name] for name in (ended or waiting)}, limit))
            if waiting:
                time.sleep(0.05)

    def ended(self) -> dict[str, str]:
        """The members that ended by themselves, and how."""
        return {
            m.name: ending(m.process.returncode)
            for m in self.members.values()
            if m.process is not None and m.process.poll() is not None
        }

    # -- inside -------------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Chooses ports and writes down what each member is started with."""
        if self._nats_url is None:
            port = self._port("nats")
            server = processes.find_program("nats-server")
            if server is None:
                raise StackError("nats-server is not installed: run scripts/install, or name a broker with NATS_URL")
            store = self.root / "nats"
            limits = PROJECT / "deploy" / "nats.conf"
            address = ("-a", "127.0.0.1", "-p", str(port))
            command = (server, "-c", str(limits), "-js", "-sd", str(store), *address)
            self.members["nats"] = Member("nats", "nats", command, self._base(), port, self._log_path("nats"))
        ports = {service: self._port(service) for service in self.services}
        self._addresses = {
            f"{name.upper()}_URL": f"http://127.0.0.1:{port}"
            for name, port in ports.items()
            if name in ("gateway", "ingest", "inference")
        }
        for service in self.services:
            for number in range(self._replicas.get(service, 1)):
                name = service if number == 0 else f"{service}-{number + 1}"
                port = ports[service] if number == 0 else processes.free_port()
                self.members[name] = self._service_member(name, service, port)

    def _service_member(self, name: str, service: str, port: int) -> Member:
        command = self._commands.get(service) or (sys.executable, "-m", f"services.{service}")
        environment = self.environment() | {"PORT": str(port)}
        return Member(name, service, command, environment, port, self._log_path(name))

    def environment(self) -> dict[str, str]:
        """The settings that every service of this stack gets."""
        settings = {
            "HOST": "127.0.0.1",
            "DATA_ROOT": str(self.root / "data"),
            "MODELS_ROOT": str(self.root / "models"),
            "ASSETS_ROOT": os.environ.get("ASSETS_ROOT", str(PROJECT / "var" / "assets")),
            "DATABASE_URL": f"sqlite+aiosqlite:///{self.root / 'gateway.db'}",
            "STORAGE_URL": (self.root / "objects").as_uri(),
            "NATS_URL": self.url("nats"),
            "DRAIN_TIMEOUT": f"{max(self._drain - 2, 1):g}",
        }
        return self._base() | settings | self.secrets | self._addresses | self._extra

    def _base(self) -> dict[str, str]:
        prefixes = ("OMP_", "OTEL_")
        passed = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(prefixes)}
        return passed | {"PYTHONUNBUFFERED": "1", processes.MARKER: self._marker}

    def _log_path(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def _port(self, name: str) -> int:
        taken = {member.port for member in self.members.values()}
        wanted = self._wanted_ports.get(name)
        if wanted is not None and wanted not in taken:
            if processes.is_free(wanted):
                return wanted
            self._say(f"port {wanted} is busy: {name} takes another")
        while (port := processes.free_port()) in taken:
            pass
        return port

    def _launch(self, member: Member) -> None:
        member.process = processes.spawn(member.command, member.environment, member.log, PROJECT)

    def _run_migration(self) -> None:
        log = self._log_path("migrate")
        process = processes.spawn((sys.executable, "-m", "services.gateway.migrate"), self.environment(), log, PROJECT)
        if status := process.wait(120):
            raise StackError(f"the database could not be migrated ({ending(status)}); {log}:\n{processes.tail(log)}")

    def _member(self, name: str) -> Member:
        if name not in self.members:
            raise StackError(f"no {name} in this stack: it has {', '.join(self.members) or 'nothing yet'}")
        return self.members[name]

    def _ordered(self) -> list[Member]:
        return sorted(self.members.values(), key=lambda m: ("nats", *SERVICES).index(m.service))

    def _reap(self, seconds: float, running: Iterable[subprocess.Popen[bytes]]) -> None:
        end = time.monotonic() + seconds
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))

    def _tail(self, name: str) -> str:
        return f"{self._member(name).log}:\n{processes.tail(self._member(name).log)}"

    def _report(self, reasons: Mapping[str, str], seconds: float) -> str:
        parts = [f"  {name}: {reason}\n{_indent(self._tail(name))}" for name, reason in reasons.items()]
        return f"not ready ({seconds:g} s were given):\n" + "\n".join(parts)

    def _write_state(self, *, ready: bool | None = None) -> None:
        """`stack.json`: what runs where, for people and other programs; no secrets."""
        self._was_ready = self._was_ready if ready is None else ready
        state = {
            "ready": self._was_ready,
            "supervisor": os.getpid(),
            "root": str(self.root),
            "nats_url": self.url("nats"),
            "secrets": str(self.secrets_file),
            "members": {
                m.name: {"service": m.service, "url": m.url, "port": m.port, "log": str(m.log), "pid": m.process.pid}
                for m in self._ordered()
                if m.process is not None
            },
        }
        draft = self.root / ".stack.json"
        draft.write_text(json.dumps(state, indent=2) + "\n")
        draft.replace(self.root / "stack.json")

    def _take_lock(self) -> None:
        # The lock is this process's alone: children are started with closed descriptors, so it ends with the parent.
        lock = (self.root / "stack.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            running = read_state(self.root) or {}
            owner = running.get("supervisor", "unknown")
            raise StackError(f"a stack already runs in {self.root} (process {owner}); stop it first") from error
        self._lock = lock

    def _release_lock(self) -> None:
        assert self._lock is not None
        self._lock.close()
        self._lock = None


def _indent(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())


if __name__ == "__main__":
    from scripts.stack_command import main

    main()
