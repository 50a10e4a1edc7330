"""Which providers can be used here? As the trainers that are alive announce it; nobody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.errors import ProviderUnavailable
from libs.common.providers import Provider
from services.gateway.workers import Announced

NO_TRAINER = "no trainer is running"


@dataclass(frozen=True)
class Availability:
    """Whether any trainer can use a provider; if none, what the one that lacks least is missing."""

    available: bool
    missing: tuple[str, ...] = ()
    how: str = ""


def availability(provider: Provider, alive: Sequence[Announced]) -> Availability:
    """The state of `provider` on the trainers among the workers that are `alive`."""
    trainers = [worker for worker in alive if worker.get("service") == "trainer"]
    if not trainers:
        return Availability(False, (NO_TRAINER,), "Start a trainer: python -m services.trainer.")
    said = [worker["providers"].get(provider.name) for worker in trainers if isinstance(worker.get("providers"), dict)]
    known = [state for state in said if isinstance(state, dict)]
    if any(state.get("available") for state in known) or (provider.name == "rvc" and not known):
        return Availability(True)
    if not known:
        return Availability(False, ("the trainers that are running do not have it",), "Bring them up to date.")
    least = min(known, key=lambda state: len(state.get("missing", ())))
    return Availability(False, tuple(str(item) for item in least.get("missing", ())), str(least.get("how", "")))


def check_available(provider: Provider, alive: Sequence[Announced]) -> None:
    """Raises ProviderUnavailable when every trainer that is alive says that it lacks something.

    While none is alive nothing is known: the job waits for one, and that one judges.
    """
    found = availability(provider, alive)
    if not found.available and found.missing != (NO_TRAINER,):
        raise ProviderUnavailable(
            f"{provider.name} cannot be used here: {'; '.join(found.missing)}",
            field="provider",
            actions=(found.how,) if found.how else None,
            missing=list(found.missing),
        )
