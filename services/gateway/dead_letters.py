"""Which commands could nobody work on? `python -m services.gateway.dead_letters [--forget]` prints JSON lines."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict

from libs.common import logs
from libs.common.bus import Bus
from services.gateway.settings import GatewaySettings


async def show(settings: GatewaySettings, *, forget: bool) -> int:
    """Prints the dead letters, oldest first, and removes them when asked; returns how many there were."""
    bus = await Bus.connect(settings, "gateway")
    try:
        await bus.ensure()
        letters = await bus.dead_letters()
        for letter in letters:
            print(json.dumps(asdict(letter), ensure_ascii=False))
        if forget:
            await bus.forget_dead_letters()
    finally:
        await bus.close()
    return len(letters)


def main() -> None:
    """The command line."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--forget"]):
        sys.exit("use: python -m services.gateway.dead_letters [--forget]")
    logs.configure("gateway", level="WARNING")  # to stderr: what is printed is for other programs too
    count = asyncio.run(show(GatewaySettings.from_environment(), forget=bool(arguments)))
    print(f"{count} dead letters{', now forgotten' if arguments else ''}", file=sys.stderr)


if __name__ == "__main__":
    main()
