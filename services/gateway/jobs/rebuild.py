"""How is the projection made anew? `python -m services.gateway.jobs.rebuild`, at any time, beside running gateways."""

from __future__ import annotations

import asyncio

from libs.common.bus import Bus
from services.gateway.database import Database
from services.gateway.jobs import projection
from services.gateway.settings import GatewaySettings


async def rebuild(settings: GatewaySettings) -> tuple[int, int]:
    """Connects, rebuilds, disconnects; returns keys written and removed."""
    database = Database(settings)
    bus = await Bus.connect(settings, "gateway")
    try:
        await bus.ensure()
        return await projection.rebuild(database, bus, len(settings.retry_delays))
    finally:
        await bus.close()
        await database.close()


def main() -> None:
    written, removed = asyncio.run(rebuild(GatewaySettings.from_environment()))
    print(f"KV jobs: {written} written, {removed} removed")


if __name__ == "__main__":
    main()
