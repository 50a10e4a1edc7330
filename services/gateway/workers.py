"""Who works here, and what can they do? As workers announce themselves in KV `workers`; nobody is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from libs.common.bus import Bus
from libs.common.errors import InvalidInput, PlatformError
from libs.common.pitch_requests import METHODS, parts_of

Announced = dict[str, Any]


async def announced(bus: Bus | None) -> list[Announced]:
    """The workers that are alive; none while the broker is away."""
    if bus is None or not bus.is_connected:
        return []
    try:
        entries = await bus.bucket("workers").entries()
    except PlatformError:
        return []
    found = []
    for entry in entries.values():
        try:
            described = json.loads(entry.value)
        except ValueError:
            continue
        if isinstance(described, dict):
            found.append(described)
    return sorted(found, key=lambda worker: str(worker.get("worker", "")))


def devices(workers: Sequence[Announced]) -> list[str]:
    """The devices of the trainers among them."""
    return [str(worker.get("device", "cpu")) for worker in workers if worker.get("service") == "trainer"]


def check_pitch(workers: Sequence[Announced], service: str, method: str, field: str = "f0_method") -> None:
    """Raises InvalidInput, with the reason, for a pitch method that no worker of `service` can use.

    While none of them is alive nothing is known, and the worker that takes the command judges.
    """
    said = [w.get("f0_absent") for w in workers if w.get("service") == service]
    known = [absent for absent in said if isinstance(absent, dict)]
    wanted = parts_of(method) or [method]
    if len(known) < len(said) or not known or any(not absent.keys() & set(wanted) for absent in known):
        return
    least = min(known, key=len)
    lacking = next(name for name in wanted if any(name in absent for absent in (least, *known)))
    reason = next(str(absent[lacking]) for absent in (least, *known) if lacking in absent)
    here = ", ".join(name for name in METHODS if name not in least)
    raise InvalidInput(
        f"{field}: `{lacking}` cannot be used here: {reason}.",
        field=field,
        actions=(f"Choose one of {here}.", "Or install what is named, and ask again."),
    )


def check_content(workers: Sequence[Announced], preset: str) -> None:
    """Raises InvalidInput for a preset that needs HuBERT's features when no preprocessor has its weights."""
    said = [worker.get("has_hubert") for worker in workers if worker.get("service") == "preprocessor"]
    if said and all(has_it is False for has_it in said):
        raise InvalidInput(
            f"the preset {preset!r} needs HuBERT's features, and its weights are not installed: "
            "put hubert_base.pt where HUBERT_PATH says",
            field="preset",
            actions=("Choose the preset `lite` or one of rvc-v2.", "Or install what is named, and ask again."),
        )
