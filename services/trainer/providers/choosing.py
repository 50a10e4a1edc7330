"""Which provider makes the voice of a job, and which can be used on this node?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from libs.common.errors import InvalidInput, ProviderUnavailable
from libs.common.providers import provider_of
from services.trainer.providers.protocol import Provider, Readiness, SpeechProvider
from services.trainer.providers.rvc import RvcProvider

LOOK_AGAIN_SECONDS = 60.0


class Providers:
    """The providers of one trainer, and what readiness tells of them: one that is absent makes no trainer unready."""

    name = "providers"

    def __init__(self, rvc: RvcProvider, others: Sequence[Provider] = ()) -> None:
        self.rvc = rvc
        self._by_name: dict[str, Provider] = {provider.name: provider for provider in (rvc, *others)}
        self._readiness: dict[str, Readiness] = {}
        self._looked = 0.0
        self._looking: asyncio.Task[Any] | None = None

    async def look(self) -> dict[str, Readiness]:
        """What each provider lacks on this node, looked at anew."""
        found = await asyncio.gather(*(provider.readiness() for provider in self._by_name.values()))
        self._readiness = dict(zip(self._by_name, found, strict=True))
        self._looked = time.monotonic()
        return self._readiness

    async def __call__(self) -> str:
        """Which can be used, and what the others lack."""
        found = self._readiness or await self.look()
        return "; ".join(
            name if state.is_available else f"without {name}: {', '.join(state.missing)}"
            for name, state in found.items()
        )

    def facts(self) -> dict[str, Any]:
        """What the trainer announces of its providers: as they were a minute ago at most, when somebody looked."""
        if time.monotonic() - self._looked > LOOK_AGAIN_SECONDS and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self.look(), name="providers.look")
        return {"providers": {name: readiness.as_dict() for name, readiness in self._readiness.items()}}

    async def usable(self, preset: str) -> Provider:
        """The provider of a preset. Raises ProviderUnavailable with what it lacks here, and how to get that."""
        name = provider_of(preset).name
        provider = self._by_name.get(name)
        readiness = await provider.readiness() if provider else Readiness(("this trainer does not have it",))
        if provider is None or not readiness.is_available:
            raise ProviderUnavailable(
                f"{name} cannot be used on this node: {'; '.join(readiness.missing)}",
                actions=(readiness.how,) if readiness.how else None,
                missing=list(readiness.missing),
            )
        return provider

    async def speaking(self, preset: str) -> SpeechProvider:
        """The same for one whose voices say text; raises InvalidInput for another."""
        provider = await self.usable(preset)
        if not isinstance(provider, SpeechProvider):
            raise InvalidInput(f"the preset {preset!r} makes voices that convert and do not speak", field="preset")
        return provider
