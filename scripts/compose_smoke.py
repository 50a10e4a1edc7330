"""`scripts/compose-smoke`: do the stacks of deploy/compose really come up, work, and go away without a trace?

The plain stack: upload, training, conversion, every container restarted once in the middle of the training, two
trainers, and the eight curl commands of the customer's document. The development stack: the same journey with the
source of this folder mounted. The stack of --prod with servers from Debian's packages in place of public images
(deploy/smoke): the same journey with PostgreSQL and an object store, TLS, and what Prometheus sees of it.

Needs a Docker engine, espeak-ng and curl; two cores take about half an hour with nothing in the builder's cache.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from libs.client.errors import ClientError
from scripts import smoke_full, smoke_journey
from scripts.containers import Containers, ContainersError, given_outside, has_engine
from scripts.processes import free_port
from scripts.secret_file import ensure_secrets
from scripts.smoke_journey import SmokeError, Sounds, must
from scripts.stack import PROJECT, SERVICES

SMOKE = PROJECT / "deploy" / "smoke"
BESIDE = ("postgres", "s3", "caddy", "prometheus")
"""What runs beside the services and NATS in the full stack; Grafana's image cannot be had from packages."""
OVER_PROD = ("compose.debian.yaml", "compose.traces.yaml")
IMAGES = ("voicewright-light:smoke", "voicewright-voice:smoke")


class Report:
    """What was done, with the seconds since the beginning, on the terminal and in a file."""

    def __init__(self, path: Path | None) -> None:
        self._began = time.monotonic()
        self._file = path.open("w", encoding="utf-8") if path else None

    def __call__(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:7.0f} s  {text}"
        print(line, flush=True)
        if self._file:
            self._file.write(line + "\n")
            self._file.flush()


@contextmanager
def stack(
    folder: Path, name: str, say: Report, *, full: bool = False, options: Sequence[str] = ()
) -> Iterator[tuple[Containers, dict[str, int]]]:
    """One stack with its own secrets and ports, taken away with its volumes in any case; a failure shows its logs.

    Yields the stack and the ports by the names of their variables.
    """
    folder.mkdir()
    (folder / "assets").mkdir()
    names = ("GATEWAY_PORT", "HTTP_PORT", "HTTPS_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
    ports = {variable: free_port() for variable in names}
    values = {**given_outside(), **{k: str(v) for k, v in ports.items()}}
    values |= {"ASSETS_FOLDER": str(folder / "assets"), "VOICEWRIGHT_VERSION": "smoke"}
    if full:
        values["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://collector:4318"
    env_file = folder / "env"
    env_file.write_text("".join(f"{variable}={value}\n" for variable, value in values.items()))
    ensure_secrets(env_file, full=full)
    made = Containers(f"{name}-{os.getpid()}", env_file, ports["GATEWAY_PORT"], options)
    try:
        yield made, ports
        said = list(smoke_full.secrets_that_were_said(made))
        must(not said, f"secrets stand in the logs: {said}")
    except Exception:
        print(made.compose("logs", "--no-color", "--tail", "60"), file=sys.stderr)
        raise
    finally:
        made.compose("down", "--volumes", "--timeout", "60")
        must(made.left() == {}, f"left behind: {made.left()}")
        say("taken down: no container, network or volume is left")


def come_up(made: Containers, say: Report, *services: str) -> None:
    made.compose("up", "--detach", "--no-build", *services)
    made.wait_healthy()
    say(f"{len(services) or len(SERVICES) + 1} containers are up, services and broker are healthy")


def tell_sizes(say: Report) -> None:
    """What each image adds to its base."""
    for image in IMAGES:
        shown = subprocess.run(
            ["docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        layers = [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in shown]
        packages = sum(size for size, made in layers if "/opt/venv" in made and "COPY" in made)
        code = sum(size for size, made in layers if "/app" in made and "COPY" in made)
        must(bool(packages and code), f"{image} has no layer of packages or of code")
        say(f"{image} adds to its base {packages / 1e6:.0f} MB of packages and {code / 1e6:.1f} MB of code")


def plain(folder: Path, sounds: Sounds, say: Report) -> None:
    """compose.yaml: the five services and NATS."""
    say("-- the plain stack: five services and NATS, SQLite, a folder as object store")
    options = ("--with", str(SMOKE / "compose.ports.yaml"))
    with stack(folder / "plain", "smoke-plain", say, options=options) as (made, _):
        made.compose("build", "gateway", "trainer", seconds=3600)
        say("images built")
        tell_sizes(say)
        come_up(made, say)
        # The trainer first: it is at work. The gateway last, so that the others' news waits for it.
        order = ("trainer", "nats", "preprocessor", "ingest", "inference", "gateway")
        smoke_journey.journey(made, sounds, say, restarted=order)
        smoke_journey.two_trainers(made, sounds, say)
        smoke_journey.customers_commands(made, sounds, say)


def dev(folder: Path, sounds: Sounds, say: Report) -> None:
    """compose.dev.yaml over it: the source that is mounted, and not the images' own."""
    say("-- the development stack: the source of this folder in the same six containers")
    with stack(folder / "dev", "smoke-dev", say, options=("--dev",)) as (made, _):
        made.compose("build", "gateway", "trainer", seconds=3600)
        come_up(made, say)
        for service in SERVICES:
            read = made.inside(service, "cd / && python -c 'import libs; print(libs.__path__[0])'")
            must(read == "/src/libs", f"{service} reads {read}")
        smoke_journey.journey(made, sounds, say)


def full(folder: Path, sounds: Sounds, say: Report) -> None:
    """The files of --prod, with servers from packages."""
    say("-- the stack of --prod: PostgreSQL, an object store (moto), Caddy and Prometheus from Debian's packages")
    options = ("--prod", *(part for name in OVER_PROD for part in ("--with", str(SMOKE / name))))
    with stack(folder / "full", "smoke-full", say, full=True, options=options) as (made, ports):
        made.compose("build", "gateway", "trainer", "caddy", "prometheus", "s3", seconds=3600)
        say("images built")
        come_up(made, say, "nats", *SERVICES, *BESIDE, "collector")
        made.wait_healthy(BESIDE)
        say(f"{', '.join(BESIDE)} are healthy too")
        smoke_journey.journey(made, sounds, say)
        smoke_journey.two_trainers(made, sounds, say)
        smoke_full.behind_tls(made, ports["HTTPS_PORT"], folder, say)
        smoke_full.traces(made, say)
        smoke_full.database(made, say)
        smoke_full.objects(made, say)
        smoke_full.prometheus(made, ports["PROMETHEUS_PORT"], 2, say)
        smoke_full.files_of_what_was_not_run(say)


def versions() -> str:
    """What it runs with."""
    engine = _first_line("docker", "version", "--format", "{{.Server.Version}}")
    of_compose = (("docker", "compose", "version", "--short"), ("docker-compose", "version", "--short"))
    compose = next(filter(None, (_first_line(*command) for command in of_compose)), "unknown")
    return f"Docker {engine}, compose {compose}, {platform.machine()}, {os.cpu_count()} cores"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0 when everything worked and nothing is left, 1 when not, 2 where it cannot be tried."""
    parser = argparse.ArgumentParser(
        prog="scripts/compose-smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--plain", dest="parts", action="store_const", const=(plain,), help="the plain stack alone")
    only.add_argument("--dev", dest="parts", action="store_const", const=(dev,), help="the development stack alone")
    only.add_argument("--full", dest="parts", action="store_const", const=(full,), help="the stack of --prod alone")
    parser.set_defaults(parts=(plain, dev, full))
    parser.add_argument("--log", type=Path, help="also write what is told into this file")
    options = parser.parse_args(arguments)
    missing = [name for name in ("docker", "curl", "espeak-ng") if shutil.which(name) is None]
    if missing or not has_engine():
        print(f"compose-smoke: {f'{missing} missing' if missing else 'no Docker engine answers here'}", file=sys.stderr)
        return 2
    say = Report(options.log)
    say(versions())
    with tempfile.TemporaryDirectory(prefix="compose-smoke-") as name:
        folder = Path(name)
        try:
            sounds = smoke_journey.make_sounds(folder)
            for part in options.parts:
                part(folder, sounds, say)
        except (SmokeError, ContainersError, ClientError, subprocess.SubprocessError) as error:
            say(f"FAILED: {error}")
            return 1
    say("everything worked")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
