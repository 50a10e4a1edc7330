"""`python -m services.gateway.backup make|check|restore [--replace] FILE`; `-` is standard output or input."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from libs.common import logs
from libs.common.errors import PlatformError
from services.gateway.backup.making import make
from services.gateway.backup.restoring import check, restore
from services.gateway.settings import GatewaySettings


@contextlib.contextmanager
def _written(name: str) -> Iterator[IO[bytes]]:
    """A new file that has its name only when it is whole, readable by its owner alone: it holds everything."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    draft = path.with_name(f"{path.name}.part")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def _do(asked: argparse.Namespace) -> dict[str, Any]:
    if asked.deed == "make":
        with _written(asked.file) as out:
            return asyncio.run(make(GatewaySettings.from_environment(), out))
    with contextlib.ExitStack() as stack:
        source = sys.stdin.buffer if asked.file == "-" else stack.enter_context(open(asked.file, "rb"))
        if asked.deed == "check":
            return asdict(check(source))
        return asyncio.run(restore(GatewaySettings.from_environment(), source, replace=asked.replace))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m services.gateway.backup", description=__doc__)
    parser.add_argument("deed", choices=["make", "check", "restore"])
    parser.add_argument("file", help="the backup; - for standard output or input")
    parser.add_argument("--replace", action="store_true", help="restore: lose what is there")
    asked = parser.parse_args()
    logs.configure("gateway", level="WARNING")
    try:
        done = _do(asked)
    except PlatformError as error:
        sys.exit(f"{error.detail}\n{' '.join(error.actions)}".strip())
    except OSError as error:
        sys.exit(f"{asked.deed}: {error}")
    print(json.dumps({asked.deed: done}, indent=1), file=sys.stderr)


if __name__ == "__main__":
    main()
